"""What PyTorch decides above its operators when it runs on CUDA, for a build without CUDA."""

from typing import Any

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
}


class CudaFunctions(TorchFunctionMode):
    """Chooses the kernels of attention and norms as on CUDA, and takes new tensors' numbers through the host."""

    def __init__(self, recorder: Recorder, capability: int) -> None:
        super().__init__()
        self.recorder = recorder
        self.capability = capability

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func in (torch.tensor, torch.as_tensor) and torch.device(kwargs.get("device") or "cpu").type == "cuda":
            device = kwargs.pop("device")
            return func(*args, **kwargs).to(device)
        if kwargs.get("pin_memory"):
            return self._pinned(func(*args, **(kwargs | {"pin_memory": False})))
        if func is Tensor.pin_memory:
            return self._pinned(args[0].clone())
        if func is Tensor.is_pinned:
            return self.recorder.is_pinned(args[0])
        if func is Tensor.data_ptr and isinstance(args[0], FakeTensor):
            return args[0].untyped_storage()._cdata + args[0].storage_offset() * args[0].element_size()
        if func is Tensor.to:  # a number is a GPU; a build without CUDA knows no accelerator
            args = tuple(f"cuda:{value}" if type(value) is int else value for value in args)
        if func is Tensor.__getitem__ and isinstance(args[1], list) and args[0].is_cuda:
            return args[0][torch.tensor(args[1]).to(args[0].device)]
        if func in (functional.rms_norm, torch.rms_norm) and args[0].is_cuda:
            return fused_rms_norm(*args, **kwargs)
        if func is SCALED_DOT_PRODUCT_ATTENTION and args[0].is_cuda:
            return self._attend(*args, **kwargs)
        return func(*args, **kwargs)

    def _pinned(self, tensor: Tensor) -> Tensor:
        self.recorder.pinned.add(tensor.untyped_storage()._cdata)
        return tensor

    def _attend(  # noqa: PLR0913, PLR0917 - PyTorch's signature
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
        if chosen == "flash":
            return KERNELS[chosen](query, key, value, dropout_p, causal, scale=scale)[0]
        if chosen in KERNELS:
            bias = None if mask is None else as_bias(mask, query)
            return KERNELS[chosen](query, key, value, bias, False, dropout_p, causal, scale=scale)[0]  # noqa: FBT003
        return aten._scaled_dot_product_attention_math(
            query, key, value, mask, dropout_p, causal, scale=scale, enable_gqa=enable_gqa
        )[0]


def as_bias(mask: Tensor, query: Tensor) -> Tensor:
    """A bool mask as PyTorch gives it to a kernel: numbers to add, one matrix a head."""
    bias = torch.zeros_like(mask, dtype=query.dtype).masked_fill_(mask.logical_not(), float("-inf"))
    return bias.expand(*query.shape[:-2], *bias.shape[-2:])


def fused_rms_norm(x: Tensor, shape: list[int], weight: Tensor | None = None, eps: float | None = None) -> Tensor:
    """One kernel on CUDA, which a build without CUDA would take apart."""
    return aten._fused_rms_norm(x, list(shape), weight, eps)[0]
