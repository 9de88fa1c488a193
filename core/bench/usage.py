"""Measures the usage of a model: time, tokens, velocity evaluations and memory."""

import os
import time
from collections.abc import Sequence, Sized
from dataclasses import dataclass, replace
from pathlib import Path

from core.bagel import Bagel

_WORK = ("wall_s", "cpu_s", "tokens_read", "tokens_decoded", "velocity_evaluations")


@dataclass(frozen=True, kw_only=True)
class Usage:
    """Time, counts and memory of some work. A count may be a fraction, as in a mean per image."""

    wall_s: float
    cpu_s: float
    """CPU time of this process, all threads: unlike `wall_s`, it does not include waiting for a busy core."""
    tokens_read: float
    """Tokens read into the KV cache."""
    tokens_decoded: float
    """Tokens sampled, including the end token of each text."""
    velocity_evaluations: float
    """One for each image, denoising step and guidance branch (see core.cost)."""
    kv_bytes: int
    """Size of the KV cache at the end. It only grows during a run, so this is its peak."""
    resident_bytes: int
    """Resident memory of this process at the end."""

    def since(self, earlier: "Usage") -> "Usage":
        """The difference of two readings, with the memory of this one."""
        return replace(self, **{name: getattr(self, name) - getattr(earlier, name) for name in _WORK})

    def scaled(self, factor: float) -> "Usage":
        """`factor` times the time and the counts, with the same memory."""
        return replace(self, **{name: getattr(self, name) * factor for name in _WORK})


def total(usages: Sequence[Usage]) -> Usage:
    """The sum of separate runs; the KV caches add up as if the runs were on separate workers."""
    sums = {name: sum(getattr(usage, name) for usage in usages) for name in (*_WORK, "kv_bytes")}
    return replace(usages[-1], **sums)


class Meter:
    """Counts the work of `model`, its velocity evaluations from now on with a forward hook that stays on the model."""

    def __init__(self, model: Bagel) -> None:
        self.model = model
        self._velocity_evaluations = 0
        model.network.llm2vae.register_forward_hook(self._count_velocities)

    def read(self) -> Usage:
        """The totals so far; `Usage.since` gives the usage between two readings."""
        return Usage(
            wall_s=time.perf_counter(),
            cpu_s=time.process_time(),
            tokens_read=self.model.tokens_read,
            tokens_decoded=self.model.tokens_decoded,
            velocity_evaluations=self._velocity_evaluations,
            kv_bytes=self.model.kv_bytes,
            resident_bytes=_resident_bytes(),
        )

    def _count_velocities(self, _module: object, _inputs: object, velocities: Sized) -> None:
        self._velocity_evaluations += len(velocities)


def _resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")
