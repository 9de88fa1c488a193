"""What a device says that fails or is full, so that the worker can recognize it."""

import subprocess
import sys
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from core.bagel import Bagel
from core.bench.repeat import hash_of_run

LEFT_BYTES = (2**31, 2**29, 2**27, 2**25)
"""Free memory that is left for a run: from little to almost nothing."""
TIMEOUT_S = 120
FAULT = """
import sys, torch
device = torch.device(sys.argv[1])
table = torch.zeros(1, device=device)
for attempt in ("first", "second"):
    try:
        (table[torch.tensor([5], device=device)] + 1).sum().item()
    except Exception as error:
        print(attempt, type(error).__mro__[0].__module__, type(error).__name__, str(error)[:300].replace("\\n", " "))
"""
"""Reads behind the end of a table, twice: on a GPU the fault stays for the process."""


def device_fault(device: torch.device) -> Iterator[Mapping[str, object]]:
    """The words of a fault that stays, from another process."""
    command = (sys.executable, "-c", FAULT, str(device))
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=TIMEOUT_S)  # noqa: S603 - FAULT
    yield {"said": done.stdout.splitlines(), "exit": done.returncode}


def full_card(model: Bagel) -> Iterator[Mapping[str, object]]:
    """A run with less and less free memory: what it says, and whether the model gives the same afterwards."""
    device = model.network.device
    expected = hash_of_run(model)
    for left in LEFT_BYTES if device.type == "cuda" else (0,):
        model.forget()
        ballast = _fill(device, left)
        try:
            found = hash_of_run(model)
        except RuntimeError as error:
            said = {"error": type(error).__name__, "said": str(error)[:300]}
            yield {"left_bytes": left, "class": type(error).__module__, **said}
        else:
            yield {"left_bytes": left, "equal": found == expected}
        del ballast
        model.forget()
        if device.type == "cuda":
            torch.cuda.empty_cache()
    yield {"after": hash_of_run(model) == expected}


def _fill(device: torch.device, left: int) -> Tensor | None:
    """Take the memory of a GPU but for `left` bytes."""
    if device.type != "cuda":
        return None
    torch.cuda.empty_cache()
    free, _ = torch.cuda.mem_get_info(device)
    return torch.empty(max(0, free - left), dtype=torch.uint8, device=device)
