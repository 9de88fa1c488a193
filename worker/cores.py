"""The CPU cores that this process may use."""

import os
from pathlib import Path

CPU_QUOTA = Path("/sys/fs/cgroup/cpu.max")
"""The quota of a container (cgroup v2): microseconds of CPU time in each period, or `max`, and the period."""


def available_cores(quota: Path = CPU_QUOTA) -> int:
    """The cores that this process may run on, at most as many as its container's CPU quota pays for."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        allowed, period = quota.read_text().split()
    except OSError:  # no container, or another system
        return cores
    return cores if allowed == "max" else max(1, min(cores, int(allowed) // int(period)))
