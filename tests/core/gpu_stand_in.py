"""A GPU that computes on the CPU: real numbers in code that asks for CUDA, its events, its memory and its graphs."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any
from unittest.mock import patch

import torch
from torch.overrides import TorchFunctionMode

from tests.core.bagel.fake_cuda.device import FakeStream, fake_event

PEAK_BYTES = 2
NO_GRAPH = "this GPU records nothing"


class _OnTheCpu(TorchFunctionMode):
    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        del types
        kwargs = kwargs or {}
        if func is torch.device:
            return func(*args, **kwargs)
        return func(*map(_here, args), **{name: _here(value) for name, value in kwargs.items()})


def _here(value: object) -> object:
    if isinstance(value, torch.device):
        return torch.device("cpu")
    return "cpu" if isinstance(value, str) and value.startswith("cuda") else value


class _Generator(torch.Generator):
    def __new__(cls, _device: object = None) -> "_Generator":
        return super().__new__(cls, "cpu")


@contextmanager
def _no_graph(*_: object, **__: object) -> Iterator[None]:
    raise RuntimeError(NO_GRAPH)
    yield


@contextmanager
def gpu_stand_in() -> Iterator[None]:
    """One GPU that records no graphs."""
    fakes: dict[str, Any] = {
        "CUDAGraph": object,
        "Event": fake_event(lambda _: None),
        "Stream": FakeStream,
        "current_stream": FakeStream,
        "device": nullcontext,
        "device_count": lambda: 1,
        "empty_cache": lambda: None,
        "get_device_capability": lambda *_: (9, 0),
        "get_device_name": lambda *_: "stand-in",
        "graph": _no_graph,
        "max_memory_allocated": lambda *_: PEAK_BYTES,
        "mem_get_info": lambda *_: (2**36, 2**36),
        "memory_allocated": lambda *_: 1,
        "reset_peak_memory_stats": lambda *_: None,
        "set_sync_debug_mode": lambda *_: None,
        "synchronize": lambda *_: None,
    }
    with patch.multiple(torch.cuda, **fakes), patch("torch.Generator", _Generator), _OnTheCpu():
        yield
