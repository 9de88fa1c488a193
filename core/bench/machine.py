"""The machine under test: what it is, how fast it multiplies and copies, and the limit that this sets for some work."""

import math
import platform
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from core.bagel.linear import linear

SAMPLES = 5
CPU_SIDE, GPU_SIDE = 1024, 8192
CPU_COPY, GPU_COPY = 2**26, 2**30
"""Sizes of the measured products and copies: large enough to reach the machine's rates."""


@dataclass(frozen=True, kw_only=True)
class Machine:
    """The machine, and its measured rates."""

    device: str
    dtype: str
    threads: int
    torch: str
    commit: str
    flop_per_s: float
    """Of a large product in the dtype; an addition and a multiplication are 2."""
    bytes_per_s: float
    """Read and written by a large copy."""

    def limit_s(self, work: "Work") -> float:
        """The least seconds for some work at these rates."""
        return max(work.flop / self.flop_per_s, work.weight_bytes / self.bytes_per_s)


@dataclass(frozen=True, kw_only=True)
class Work:
    """What some work has to do at least."""

    flop: float
    """Of products, attention and convolutions."""
    weight_bytes: float
    """Of the weights that it uses, each once."""


def measure_machine(device: torch.device, dtype: torch.dtype) -> Machine:
    """Measure the rates of `device` with products in `dtype` and copies: the best of some samples."""
    large = device.type == "cuda"
    side = GPU_SIDE if large else CPU_SIDE
    left, right = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    source = torch.ones(GPU_COPY if large else CPU_COPY, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return Machine(
        device=_device_name(device),
        dtype=str(dtype).removeprefix("torch."),
        threads=torch.get_num_threads(),
        torch=torch.__version__,
        commit=_commit(),
        flop_per_s=2 * side**3 / seconds(lambda: linear(left, right), device),
        bytes_per_s=2 * source.nbytes / seconds(lambda: target.copy_(source), device),
    )


def synchronize(device: torch.device) -> None:
    """Wait until `device` has done all that was launched."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def peak_bytes(device: torch.device) -> int | None:
    """The most memory of a GPU that tensors took since the peak was reset; None on the CPU."""
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None


def least_work(network: nn.Module, run: Callable[[], object]) -> Work:
    """Count the operations of `run` and the weights of `network` that they use."""
    weights = _WeightCounter(network)
    flops = FlopCounterMode(display=False, custom_mapping={torch.ops.mkldnn._linear_pointwise: _product_flop})
    with flops, weights:
        run()
    return Work(flop=flops.get_total_flops(), weight_bytes=sum(weights.used.values()))


def _product_flop(x: Sequence[int], *_: object, out_shape: Sequence[int], **__: object) -> int:
    """Of oneDNN's products, which torch does not count: of `x` (..., K) and a matrix (N, K), given their shapes."""
    return 2 * math.prod(out_shape) * x[-1]


class _WeightCounter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Collects the parameters that operations read, except for lookups, which read a few rows."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._sizes = {one.untyped_storage().data_ptr(): one.nbytes for one in network.parameters()}
        self.used: dict[int, int] = {}

    def __torch_dispatch__(
        self,
        func: Callable[..., object],
        types: object,
        args: tuple[object, ...] = (),
        kwargs: dict[str, object] | None = None,
    ) -> object:
        out = func(*args, **kwargs or {})
        lookup = func in (torch.ops.aten.embedding.default, torch.ops.aten.index.Tensor)
        for tensor in (arg for arg in args if isinstance(arg, Tensor) and not lookup):
            place = tensor.untyped_storage().data_ptr()
            if place in self._sizes:
                self.used[place] = self._sizes[place]
        return out


def seconds(run: Callable[[], object], device: torch.device) -> float:
    """The least seconds of some calls."""
    samples = []
    for _ in range(SAMPLES + 1):  # the first one warms up
        synchronize(device)
        start = time.perf_counter()
        run()
        synchronize(device)
        samples.append(time.perf_counter() - start)
    return min(samples[1:])


def _device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    models = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    return models[0].partition(":")[2].strip() if models else platform.machine()


def _commit() -> str:
    """The commit of this source tree, with a plus sign if files differ from it; "unknown" outside of a repository."""
    folder = Path(__file__).parent
    try:
        found = subprocess.run(
            ("git", "describe", "--always", "--dirty=+", "--abbrev=12", "--exclude=*"),  # noqa: S607 - git of the PATH
            cwd=folder, capture_output=True, text=True, check=True,
        )  # fmt: skip
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return found.stdout.strip()
