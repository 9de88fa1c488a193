"""Print pip's option for PyTorch's CPU builds, which are gigabytes smaller than the default ones.

Prints nothing on a machine with an NVIDIA GPU, and nothing if the index does not answer, because pip would retry it.
"""

import shutil
import subprocess
import sys
import urllib.request

CPU_INDEX = "https://download.pytorch.org/whl/cpu"
TIMEOUT_S = 2.0


def has_gpu() -> bool:
    """Whether NVIDIA's driver finds a GPU."""
    program = shutil.which("nvidia-smi")
    return program is not None and subprocess.run([program, "-L"], capture_output=True, check=False).returncode == 0  # noqa: S603


def answers(index: str) -> bool:
    """Whether the index has a page for torch."""
    try:
        with urllib.request.urlopen(f"{index}/torch/", timeout=TIMEOUT_S):  # noqa: S310 - a fixed https URL
            return True
    except OSError:
        return False


if __name__ == "__main__" and not has_gpu() and answers(CPU_INDEX):
    sys.stdout.write(f"--extra-index-url {CPU_INDEX}\n")
