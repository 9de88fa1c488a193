"""Modules whose weights are not on their device: the weights are copied there for each call, a layer ahead of time."""

import mmap
import weakref
from collections.abc import Callable, Sequence
from functools import partial
from itertools import accumulate, chain
from types import ModuleType
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from core.memory import SLOTS

Source: TypeAlias = Callable[[slice], Sequence[Tensor]]
"""Returns a slice of a module's tensors, in the order of Weights, in host memory or as they are read from files."""
Needed: TypeAlias = Callable[[nn.Module, tuple[Any, ...], dict[str, Any]], int]
"""Returns how many of a module's tensors, from the first one, a call with these arguments needs."""
ALL = slice(None)
ALIGNMENT = 256


class Weights:
    """The parameters and buffers of a module, which exist only while it is called; otherwise they are meta tensors."""

    def __init__(self, module: nn.Module, source: Source) -> None:
        self.source = source
        self._places = [(owner, name) for owner, name, _ in _tensors(module)]
        self._absent = [_like(tensor, torch.empty_like(tensor, device="meta")) for _, _, tensor in _tensors(module)]
        self.clear()

    def __len__(self) -> int:
        return len(self._places)

    def put(self, tensors: Sequence[Tensor]) -> None:
        """Give the module `tensors`, all of its own or the first ones."""
        for (owner, name), absent, tensor in zip(self._places, self._absent, tensors, strict=False):
            setattr(owner, name, _like(absent, tensor))

    def clear(self) -> None:
        """Take the module's tensors away."""
        for (owner, name), absent in zip(self._places, self._absent, strict=True):
            setattr(owner, name, absent)


def _tensors(module: nn.Module) -> list[tuple[nn.Module, str, Tensor]]:
    return [
        (owner, name, tensor)
        for owner in module.modules()
        for name, tensor in chain(owner.named_parameters(recurse=False), owner.named_buffers(recurse=False))
    ]


def count_tensors(module: nn.Module) -> int:
    """The number of parameters and buffers of `module`."""
    return len(_tensors(module))


def _like(old: Tensor, new: Tensor) -> Tensor:
    """`new` as a parameter if `old` is one."""
    return nn.Parameter(new, requires_grad=False) if isinstance(old, nn.Parameter) else new


def load_for_each_call(module: nn.Module, source: Source) -> None:
    """Have `module` take its tensors from `source` for each call, and only for it."""
    weights = Weights(module, source)
    module.register_forward_pre_hook(lambda *_: weights.put(weights.source(ALL)))
    module.register_forward_hook(lambda *_: weights.clear(), always_call=True)


class LayerStream:
    """Copies the weights of a device's layers into one of two slots in turn, while the layer before them computes.

    The layers have equal shapes and are called in order, again and again. With the copy of the last layer's follower,
    the first one, the next pass starts early.

        compute stream   | layer 0        | layer 1        | layer 2
        copy stream      | 1 into slot 1  | 2 into slot 0  | 0 into slot 0, after layer 2, if there are only three

    Args:
        device: the device of the layers.
        layers: the layers, and where their weights are.
        needed: how many tensors of a layer are copied for a call; None copies all.
        api: torch's module for the type of the device, which has its streams and events.
    """

    def __init__(
        self,
        device: torch.device,
        layers: Sequence[tuple[nn.Module, Source]],
        needed: Needed | None = None,
        api: ModuleType | None = None,
    ) -> None:
        self.device = device
        self.api: Any = api or torch.get_device_module(device)
        self.copies = self.api.Stream(device)
        self.weights = [Weights(layer, source) for layer, source in layers]
        self.slots = [[tensor.to(device, copy=True) for tensor in source(ALL)] for _, source in layers[:SLOTS]]
        self.holds = [(slot, len(weights)) for slot, weights in enumerate(self.weights[:SLOTS])]
        """The layer in each slot, and how many of its tensors."""
        self.needed = needed or (lambda *_: len(self.weights[0]))
        self.count = len(self.weights[0])
        """How many tensors of a layer the current pass needs."""
        self.copied, self.used = ([self.api.Event() for _ in self.slots] for _ in range(2))
        for index, (layer, _) in enumerate(layers):
            layer.register_forward_pre_hook(partial(self._before, index), with_kwargs=True)
            layer.register_forward_hook(partial(self._after, index), always_call=True)

    def _before(self, index: int, layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.count = self.needed(layer, args, kwargs)
        self._copy(index)
        slot = index % SLOTS
        self.api.current_stream(self.device).wait_event(self.copied[slot])
        self.weights[index].put(self.slots[slot][: self.count])

    def _after(self, index: int, *_: object) -> None:
        """The layer is launched: when it has been computed its slot is free. The next copy starts before that."""
        self.weights[index].clear()
        self.used[index % SLOTS].record(self.api.current_stream(self.device))
        self._copy((index + 1) % len(self.weights))

    def _copy(self, index: int) -> None:
        """Copy what the slot of a layer lacks of it, as soon as the layer in that slot has been computed."""
        slot = index % SLOTS
        held, count = self.holds[slot]
        part = slice(count if held == index else 0, self.count)
        if part.start >= part.stop:
            return
        self.holds[slot] = (index, 0)
        with self.api.stream(self.copies):
            self.copies.wait_event(self.used[slot])
            for target, tensor in zip(self.slots[slot][part], self.weights[index].source(part), strict=True):
                target.copy_(tensor, non_blocking=True)
            self.copied[slot].record(self.copies)
        self.holds[slot] = (index, self.count)


class HostCopy:
    """A copy of the tensors of a module in one block of host memory, from which CUDA can copy while it computes."""

    def __init__(self, module: nn.Module) -> None:
        tensors = [tensor.detach() for _, _, tensor in _tensors(module)]
        offsets = list(accumulate((-(-tensor.nbytes // ALIGNMENT) * ALIGNMENT for tensor in tensors), initial=0))
        pages = mmap.mmap(-1, offsets[-1], flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        self.block = torch.frombuffer(pages, dtype=torch.uint8)
        if any(tensor.is_cuda for tensor in tensors):
            self._pin()
        self.tensors = [
            self.block[offset : offset + tensor.nbytes].view(tensor.dtype).view(tensor.shape).copy_(tensor)
            for offset, tensor in zip(offsets, tensors, strict=False)
        ]

    def __call__(self, part: slice) -> Sequence[Tensor]:
        return self.tensors[part]

    def _pin(self) -> None:
        """Lock the block in memory until it is freed. PyTorch's own allocator would round it up to a power of two."""
        cudart: Any = torch.cuda.cudart()  # type: ignore[no-untyped-call]
        torch.cuda.check_error(cudart.cudaHostRegister(self.block.data_ptr(), self.block.nbytes, 0))
        weakref.finalize(self, cudart.cudaHostUnregister, self.block.data_ptr()).atexit = False


def compute_on(module: nn.Module, device: torch.device) -> None:
    """Move the tensors among the arguments of each call of `module` to `device`."""
    module.register_forward_pre_hook(lambda _, args, kwargs: moved((args, kwargs), device), with_kwargs=True)


def return_to(module: nn.Module, device: torch.device) -> None:
    """Move the tensors among the results of each call of `module` to `device`."""
    module.register_forward_hook(lambda _module, _args, result: moved(result, device))


def moved(value: Any, device: torch.device) -> Any:  # noqa: ANN401 - whatever a module takes and returns
    """`value` with the tensors in its tuples, lists and dicts on `device`."""
    if isinstance(value, Tensor):
        return value.to(device, non_blocking=True)
    if isinstance(value, tuple | list):
        parts = [moved(part, device) for part in value]
        return type(value)(*parts) if hasattr(value, "_fields") else type(value)(parts)
    if isinstance(value, dict):
        return {key: moved(part, device) for key, part in value.items()}
    return value
