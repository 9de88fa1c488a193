"""What PyTorch decides above its operators when it runs on CUDA, for a build without CUDA."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor
from torch.nn import functional
from torch.nn.attention.bias import CausalBias, CausalVariant
from torch.overrides import TorchFunctionMode

from tests.core.bagel.fake_cuda.attention import CAPABILITIES, Attention, backend
from tests.core.bagel.fake_cuda.recorder import Recorder

aten = torch.ops.aten
SCALED_DOT_PRODUCT_ATTENTION = functional.scaled_dot_product_attention
KERNELS = {
    "flash": aten._scaled_dot_product_flash_attention,
    "cudnn": aten._scaled_dot_product_cudnn_attention,
    "efficient": aten._scaled_dot_product_efficient_attention,
    "math": aten._scaled_dot_product_attention_math,
}


@contextmanager
def biases_in_modes() -> Iterator[None]:
    """PyTorch's CausalBias can't be made while a dispatch mode sees the tensor that it is made of."""

    def new(cls: type[CausalBias], *_: object) -> CausalBias:
        bias: CausalBias = Tensor._make_subclass(cls, torch.empty(0))
        return bias

    with patch.object(CausalBias, "__new__", new):
        yield


class CudaFunctions(TorchFunctionMode):
    """Chooses the kernels of attention and norms as on CUDA, and takes new tensors' numbers through the host."""

    def __init__(self, recorder: Recorder, capability: int) -> None:
        super().__init__()
        self.recorder = recorder
        self.capability = capability
        self.of_any: dict[Any, Any] = {
            torch.tensor: partial(self._through_the_host, torch.tensor),
            torch.as_tensor: partial(self._through_the_host, torch.as_tensor),
            Tensor.pin_memory: lambda tensor: recorder.pin(tensor.clone()),
            Tensor.is_pinned: recorder.is_pinned,
        }
        self.of_fakes: dict[Any, Any] = {
            Tensor.data_ptr: address,
            Tensor.__getitem__: indexed,
            functional.linear: linear,
            functional.rms_norm: fused_rms_norm,
            torch.rms_norm: fused_rms_norm,
            SCALED_DOT_PRODUCT_ATTENTION: self._attend,
        }

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if kwargs.pop("pin_memory", False):
            return self.recorder.pin(func(*args, **kwargs))
        fake = bool(args) and isinstance(args[0], FakeTensor)
        replacement = self.of_any.get(func) or (self.of_fakes.get(func) if fake else None)
        return (replacement or func)(*args, **kwargs)

    def _through_the_host(self, func: Any, data: object, *, device: Any = None, **kwargs: Any) -> Tensor:
        """A new tensor from numbers of the host is made there, and then copied."""
        made: Tensor = func(data, **kwargs)
        return made if device is None else made.to(device)

    def _attend(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attn_mask: Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,  # noqa: FBT001, FBT002
        scale: float | None = None,
        enable_gqa: bool = False,  # noqa: FBT001, FBT002
    ) -> Tensor:
        lower_right = isinstance(attn_mask, CausalBias) and attn_mask.variant == CausalVariant.LOWER_RIGHT
        mask = None if isinstance(attn_mask, CausalBias) else attn_mask
        causal = is_causal or (mask is None and attn_mask is not None)
        call = Attention(query, key, value, mask, causal and not lower_right, enable_gqa)
        able = {capability: backend(call, capability, cudnn=not lower_right) for capability in CAPABILITIES}
        self.recorder.attention(able, mask)
        chosen = able[self.capability]
        inputs: tuple[Any, ...] = (query, key, value)
        others = {"scale": scale}
        if chosen == "math":
            inputs += (mask,)
            others["enable_gqa"] = enable_gqa
        elif chosen != "flash":
            inputs += (None if mask is None else as_bias(mask, query), False)
        out: Tensor = KERNELS[chosen](*inputs, dropout_p, causal, **others)[0]
        return out


def as_bias(mask: Tensor, query: Tensor) -> Tensor:
    """A bool mask as PyTorch gives it to a kernel: numbers to add, one matrix a head."""
    bias = torch.zeros_like(mask, dtype=query.dtype).masked_fill_(mask.logical_not(), float("-inf"))
    return bias.expand(*query.shape[:-2], *bias.shape[-2:])


def fused_rms_norm(x: Tensor, shape: list[int], weight: Tensor | None = None, eps: float | None = None) -> Tensor:
    """One kernel on CUDA, which a build without CUDA would take apart."""
    normed: Tensor = aten._fused_rms_norm(x, list(shape), weight, eps)[0]
    return normed


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """One product, as PyTorch does it; here without the many steps in which it decides so."""
    rows = x.reshape(-1, x.shape[-1])
    out = torch.mm(rows, weight.t()) if bias is None else torch.addmm(bias, rows, weight.t())
    return out.view(*x.shape[:-1], -1)


def indexed(tensor: Tensor, index: Any) -> Tensor:
    """A list of rows goes through the host."""
    return tensor[torch.tensor(index).to(tensor.device) if isinstance(index, list) else index]


def address(tensor: Tensor) -> int:
    """A number that is the tensor's own for as long as its storage lives."""
    start: int = tensor.untyped_storage()._cdata
    return start + int(tensor.storage_offset()) * tensor.element_size()
