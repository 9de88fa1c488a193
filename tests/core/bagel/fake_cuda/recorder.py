"""Writes down what a GPU would be asked to do: kernels with their bytes and FLOPs, waits of the host, live memory."""

import sys
import weakref
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from math import prod
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.flop_counter import flop_registry

import core

CORE = str(Path(core.__path__[0]))
PRODUCTS = {"mm", "addmm", "bmm", "baddbmm", "convolution", "_scaled_dot_product_flash_attention"}
PRODUCTS |= {"_scaled_dot_product_efficient_attention", "_scaled_dot_product_cudnn_attention"}
WHOLE = PRODUCTS | {"_fused_rms_norm", "upsample_nearest2d", "native_group_norm", "native_layer_norm"}
"""One kernel on CUDA, although they could be taken apart."""
FREE = {"empty", "new_empty", "empty_like", "empty_strided", "new_empty_strided", "detach", "lift_fresh", "alias"}
FREE |= {"record_stream"}
SHAPED_BY_DATA = {"nonzero", "masked_select", "unique", "_unique2"}
GATHERS = {"embedding", "index", "index_select"}
SCATTERS = {"index_copy_", "index_put_"}
BLOCK_BYTES = 512
"""The allocator rounds up to this."""
ANY_TOKEN, ANY_NUMBER = 100, 0.5
"""What the host reads from a GPU."""


@dataclass(frozen=True)
class Op:
    """One kernel."""

    name: str
    place: str
    flops: int
    read: int
    written: int
    float32: bool


@dataclass
class Phase:
    """What happened between two points of a program. `peak` is the memory of all GPUs in bytes."""

    ops: list[Op] = field(default_factory=list)
    launches: int = 0
    """Kernels launched one by one, and graphs."""
    views: int = 0
    syncs: Counter[str] = field(default_factory=Counter)
    events: int = 0
    backends: dict[int, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    """The kernels of attention, for each compute capability."""
    from_host: int = 0
    """Bytes copied to the GPUs."""
    peak: int = 0

    @property
    def moved(self) -> int:
        return sum(op.read + op.written for op in self.ops)

    @property
    def flops(self) -> int:
        return sum(op.flops for op in self.ops)


@cache
def is_composite(func: Any) -> bool:
    """Whether other operators do its work."""
    return torch._C._dispatch_has_kernel_for_dispatch_key(func.name(), "CompositeImplicitAutograd")


class Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Runs operators of fake tensors on fakes and all others for real.

    Raises what a GPU would raise for tensors on different devices; other mistakes are in `faults`.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.fake = FakeTensorMode(allow_non_fake_inputs=True)
        self.phases: dict[str, Phase] = {}
        self.now = Phase()
        self.faults: Counter[str] = Counter()
        self.live = 0
        self._pinned: set[int] = set()
        self._capturing = False
        self._held: dict[int, tuple[int, Any]] = {}

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # nothing is compiled here, and the wrapper costs time

    @contextmanager
    def phase(self, name: str) -> Iterator[Phase]:
        """Write down what happens inside under `name`."""
        before, self.now = self.now, Phase(peak=self.live)
        self.phases[name] = self.now
        try:
            yield self.now
        finally:
            self.now = before

    @contextmanager
    def capture(self, graph: Any, **_: Any) -> Iterator[None]:
        """Write down what happens inside in `graph`. A GPU can't be waited for meanwhile."""
        before, self.now, self._capturing = self.now, Phase(peak=self.live), True
        try:
            yield
        finally:
            graph.ops, self.now, self._capturing = self.now.ops, before, False

    def place(self) -> str:
        """The line of the engine that is running."""
        frame = sys._getframe(1)
        while frame is not None:
            if frame.f_code.co_filename.startswith(CORE):
                return f"core{frame.f_code.co_filename[len(CORE) :]}:{frame.f_lineno}"
            frame = frame.f_back  # type: ignore[assignment]
        return "outside of core"

    def wait(self, why: str) -> None:
        """The host waits for the GPU: at an event, or by an accident of what it asks for."""
        if self._capturing:
            self.faults[f"{why} while a graph is captured, at {self.place()}"] += 1
            raise RuntimeError(f"a graph is being captured: {why}")
        if why == "event":
            self.now.events += 1
        else:
            self.now.syncs[f"{why} at {self.place()}"] += 1

    def attention(self, chosen: Mapping[int, str], mask: Tensor | None) -> None:
        """Attention runs on the kernels `chosen` for each compute capability."""
        for capability, kernel in chosen.items():
            self.now.backends[capability][kernel] += 1
            if kernel == "math":
                self.faults[f"attention by separate products on sm_{capability} at {self.place()}"] += 1
        if mask is not None:
            self.faults[f"attention with a mask at {self.place()}"] += 1

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        leaves = tree_leaves((args, kwargs))
        on_gpu = any(isinstance(leaf, FakeTensor) for leaf in leaves) or any(
            isinstance(leaf, torch.device) and leaf.type == "cuda" for leaf in leaves
        )
        if not on_gpu or func.namespace == "prim":
            return func(*args, **kwargs)
        name = func._schema.name.removeprefix("aten::")
        if name not in WHOLE and is_composite(func):
            with self:
                return func.decompose(*args, **kwargs)
        tensors = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
        self._check_dtypes(name, tensors)
        self._find_waits(name, args, kwargs, tensors)
        if name == "_local_scalar_dense":
            return ANY_NUMBER if args[0].is_floating_point() else ANY_TOKEN
        out = self._run(func, name, args, kwargs)
        self._note(func, name, args, kwargs, out)
        return self._on_host(name, args, out)

    def _run(self, func: Any, name: str, args: Any, kwargs: Any) -> Any:
        try:
            with self.fake:
                return func(*tree_map(self._to_fake, args), **tree_map(self._to_fake, kwargs))
        except Exception as error:
            self.faults[f"{type(error).__name__} in {name} at {self.place()}: {str(error).splitlines()[-1]}"] += 1
            raise

    def pin(self, tensor: Tensor) -> Tensor:
        """Say that a tensor of the host lies in pinned memory."""
        storage = tensor.untyped_storage()
        self._pinned.add(storage._cdata)
        weakref.finalize(storage, self._pinned.discard, storage._cdata)
        return tensor

    def is_pinned(self, tensor: Tensor) -> bool:
        return tensor.untyped_storage()._cdata in self._pinned

    def host_tensor(self, like: Tensor, *, pinned: bool) -> Tensor:
        """A tensor in host memory, without memory."""
        with self.fake:
            tensor = torch.empty(like.shape, dtype=like.dtype, device="cpu")
        return self.pin(tensor) if pinned else tensor

    def _to_fake(self, value: Any) -> Any:
        if isinstance(value, Tensor) and not isinstance(value, FakeTensor):
            return self.fake.from_tensor(value)
        return value

    def _on_host(self, name: str, args: Any, out: Any) -> Any:
        """What the host gets of a copy from a GPU: real tensors."""
        if name == "copy_" and not isinstance(args[0], FakeTensor):
            return args[0].fill_(ANY_NUMBER if args[0].is_floating_point() else ANY_TOKEN)
        if name == "_to_copy" and out.device.type == "cpu" and args[0].device.type == "cuda":
            return torch.full(out.shape, ANY_NUMBER if out.is_floating_point() else ANY_TOKEN, dtype=out.dtype)
        return out

    def _check_dtypes(self, name: str, tensors: list[Tensor]) -> None:
        kinds = {str(tensor.dtype) for tensor in tensors if tensor.is_floating_point() and tensor.dim()}
        if name in PRODUCTS and len(kinds) > 1:
            self.faults[f"{' and '.join(sorted(kinds))} in {name} at {self.place()}"] += 1

    def _find_waits(self, name: str, args: Any, kwargs: Any, tensors: list[Tensor]) -> None:
        """Count what makes the host wait. A copy from or to pinned memory does not if it is asked not to."""
        real = [tensor for tensor in tensors if tensor.device.type == "cpu"]
        if name == "_local_scalar_dense" and args[0].device.type == "cuda":
            self.wait("a number is read from the GPU")
        elif name in SHAPED_BY_DATA:
            self.wait(f"{name}: its shape depends on numbers on the GPU")
        elif name == "_to_copy":
            target = torch.device(kwargs.get("device") or args[0].device)
            pinned = target.type == "cpu" or self.is_pinned(args[0])  # a copy to the host that may lag is pinned
            if target.type != args[0].device.type and not (kwargs.get("non_blocking") and pinned):
                self.wait(f"copy to {target.type}")
        elif name == "copy_" and len({tensor.device.type for tensor in args[:2]}) > 1:
            told = kwargs.get("non_blocking") or args[2:3] == (True,)
            if not (told and self.is_pinned(real[0])):
                self.wait(f"copy to {args[0].device.type}")
        elif name.startswith("index") and any(tensor.dim() for tensor in real):
            self.wait("an index on the host")

    def _note(self, func: Any, name: str, args: Any, kwargs: Any, out: Any) -> None:
        outs = [leaf for leaf in tree_leaves(out) if isinstance(leaf, FakeTensor) and leaf.device.type == "cuda"]
        ins = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        if not any(tensor.device.type == "cuda" for tensor in (*ins, *outs)):
            return
        for tensor in outs:
            self._hold(tensor)
        if name in FREE:
            return
        own = {tensor.untyped_storage()._cdata for tensor in ins if isinstance(tensor, FakeTensor)}
        fresh = [tensor for tensor in outs if tensor.untyped_storage()._cdata not in own]
        changed = written_arguments(func, args, kwargs)
        if outs and not fresh and not changed:
            self.now.views += 1
            return
        flops = 0
        if func._overloadpacket in flop_registry:
            flops = flop_registry[func._overloadpacket](*args, **kwargs, out_val=out)
        written = sum(map(footprint, fresh)) + sum(changed.values())
        read = written if name in GATHERS else sum(map(footprint, ins))
        if name in SCATTERS:  # the rows, and not all of what they are written to
            read = written = footprint(ins[-1])
        if func.namespace == "autosequence" or name == "copy_":  # what it changes it does not read
            read -= sum(footprint(tensor) for tensor in ins if id(tensor) in changed)
        float32 = bool(fresh) and fresh[0].dtype == torch.float32
        if name in ("copy_", "_to_copy") and ins[-1].device.type == "cpu":
            self.now.from_host += footprint(ins[-1])
        self.now.launches += 1
        self.now.ops.append(Op(name, self.place(), flops, read, written, float32))

    def _hold(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self._held:
            return
        size = -(-storage.nbytes() // BLOCK_BYTES) * BLOCK_BYTES

        def released(_: object) -> None:
            self.live -= self._held.pop(key)[0]

        self._held[key] = size, weakref.ref(storage, released)
        self.live += size
        self.now.peak = max(self.now.peak, self.live)


def footprint(tensor: Tensor) -> int:
    """Bytes of the elements; an expanded tensor has fewer than elements."""
    return min(prod(tensor.shape) * tensor.element_size(), tensor.untyped_storage().nbytes())


def written_arguments(func: Any, args: Any, kwargs: Any) -> dict[int, int]:
    """The tensors that an operator changes, by id, and the bytes it writes to each.

    An operator with an argument `row` writes one row of each buffer (rows, M, H) that it changes.
    """
    if not func._schema.is_mutable:
        return {}
    declared = func._schema.arguments
    given = {argument.name: value for argument, value in zip(declared, args, strict=False)} | kwargs
    one_row = isinstance(given.get("row"), Tensor)
    changed = {}
    for argument in declared:
        value = given.get(argument.name)
        if argument.alias_info is not None and argument.alias_info.is_write and isinstance(value, Tensor):
            changed[id(value)] = footprint(value) // (value.shape[0] if one_row else 1)
    return changed
