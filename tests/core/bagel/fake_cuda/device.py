"""CUDA devices that do nothing: lets a PyTorch without CUDA, or a machine without a GPU, handle fake CUDA tensors."""

import ctypes
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch

from tests.core.bagel.fake_cuda.recorder import Op, Recorder

CUDA = 1
"""c10::DeviceType::CUDA."""
REGISTRY = "_ZN3c104impl26device_guard_impl_registryE"
VIRTUAL_METHODS = 64
"""At least as many as a c10::impl::DeviceGuardImplInterface has."""


@contextmanager
def pretended_guard() -> Iterator[None]:
    """Views and indexing of a CUDA tensor ask the device's guard, which a build without CUDA lacks.

    PyTorch has a guard that does nothing, but installs it only if the present one counts 0 devices
    (c10::impl::ensureCUDADeviceGuardSet). So an object whose methods all return 0 is registered first.
    """
    library = ctypes.CDLL(str(next((Path(torch.__file__).parent / "lib").glob("libc10.*"))))
    registry = (ctypes.c_void_p * (CUDA + 1)).in_dll(library, REGISTRY)
    zero = ctypes.CFUNCTYPE(ctypes.c_int)(lambda: 0)
    address = ctypes.cast(zero, ctypes.c_void_p).value
    methods = (ctypes.c_void_p * VIRTUAL_METHODS)(*[address] * VIRTUAL_METHODS)
    guard = ctypes.c_void_p(ctypes.addressof(methods))
    before, registry[CUDA] = registry[CUDA], ctypes.addressof(guard)
    try:
        torch._C._ensureCUDADeviceGuardSet()
        yield
    finally:
        registry[CUDA] = before


class FakeStream:
    """A stream. Everything is in order here, whatever the streams say."""

    def __init__(self, *_: object, **__: object) -> None:
        self.cuda_stream = 0

    def wait_stream(self, _: object) -> None: ...

    def wait_event(self, _: object) -> None: ...

    def record_event(self, event: Any = None) -> Any:
        return event or torch.cuda.Event()  # type: ignore[no-untyped-call]

    def __enter__(self) -> "FakeStream":
        return self

    def __exit__(self, *_: object) -> None: ...


def fake_event(waits: Callable[[str], None]) -> type:
    """A class of events that reports each wait of the host."""

    class FakeEvent:
        def __init__(self, *_: object, **__: object) -> None: ...

        def record(self, _: object = None) -> None: ...

        def wait(self, _: object = None) -> None: ...

        def query(self) -> bool:
            return True

        def synchronize(self) -> None:
            waits("event")

    return FakeEvent


def fake_graph(recorder: Recorder) -> type:
    """A class of graphs that repeat what the recorder saw while they were captured."""

    class FakeGraph:
        def __init__(self) -> None:
            self.ops: list[Op] = []

        def replay(self) -> None:
            recorder.now.ops += self.ops
            recorder.now.launches += 1

    return FakeGraph


@contextmanager
def pretended_cuda(recorder: Recorder, *, memory_bytes: int = 80 * 2**30) -> Iterator[None]:
    """Two GPUs; the host's waits for them go to `recorder`."""
    stream, waits = FakeStream(), recorder.wait
    fakes: dict[str, Any] = {
        "CUDAGraph": fake_graph(recorder),
        "graph": recorder.capture,
        "device": nullcontext,
        "_lazy_init": lambda: None,
        "is_available": lambda: False,  # or FakeTensor would start a real GPU where there is one
        "device_count": lambda: 2,
        "mem_get_info": lambda *_: (memory_bytes, memory_bytes),
        "current_stream": lambda *_: stream,
        "stream": nullcontext,
        "synchronize": lambda *_: waits("device"),
        "Stream": FakeStream,
        "Event": fake_event(waits),
    }
    with pretended_guard(), patch.multiple(torch.cuda, **fakes):
        yield
