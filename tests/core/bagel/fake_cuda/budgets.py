"""What each phase may ask of a GPU. `python -m tests.core.bagel.fake_cuda` prints what it asks now."""

from collections.abc import Iterator
from dataclasses import dataclass

from tests.core.bagel.fake_cuda.recorder import Phase

GB, GIB = 1e9, 2**30


@dataclass(frozen=True)
class Budget:
    """Exactly so many waits of the host for the GPU, and at most so much of the rest."""

    waits: int
    """By accident or for want of pinned memory: numbers read, and copies."""
    events: int
    """On purpose: for an event of the step before."""
    kernels: int
    gb: float
    """Read and written, in 10^9 bytes."""
    peak_gib: float
    """Of all GPUs, weights included."""
    attention: str = ""
    """The kernels that PyTorch may choose on compute capability 9.0. cuDNN plans anew for each length."""
    host_gb: float = 0.1
    """Copied from the host, in 10^9 bytes."""

    def problems(self, phase: Phase) -> Iterator[str]:
        """Where `phase` is over the budget."""
        if phase.syncs.total() != self.waits:
            yield f"{phase.syncs.total()} waits, budget {self.waits}: {dict(phase.syncs)}"
        if phase.events != self.events:
            yield f"{phase.events} waits for events, budget {self.events}"
        if not phase.backends[90].keys() <= set(self.attention.split()):
            yield f"attention by {dict(phase.backends[90])}, budget {self.attention}"
        for name, used, most in (
            ("kernels", len(phase.ops), self.kernels),
            ("GB moved", phase.moved / GB, self.gb),
            ("GB copied from the host", phase.from_host / GB, self.host_gb),
            ("GiB at the peak", phase.peak / GIB, self.peak_gib),
        ):
            if used > most:
                yield f"{used:.6g} {name}, budget {most}"


FUSED = {
    "read a text": Budget(1, 0, 320, 13.24, 27.5, "flash"),
    "text token, context 100": Budget(0, 1, 279, 14.31, 27.5),
    "text token, context 100, greedy": Budget(0, 1, 269, 14.3, 27.5),
    "text token, context 100, top_p and top_k": Budget(0, 1, 289, 14.31, 27.5),
    "generation: first step": Budget(4, 0, 725, 112, 29.1, "cudnn"),
    "generation: guided step": Budget(0, 1, 636, 111, 29.1, "cudnn"),
    "generation: plain step": Budget(0, 1, 485, 67, 28.4, "cudnn"),
    "generation: preview": Budget(1, 0, 133, 0.59, 27.8, "efficient"),
    "generation: VAE decode": Budget(1, 0, 131, 31, 29.2, "efficient"),
    "VAE encode": Budget(2, 0, 96, 17.37, 28.8, "efficient"),
    "read an image": Budget(7, 0, 1287, 157, 28.8, "cudnn efficient"),
    "read both contexts of an edit": Budget(2, 0, 568, 26.09, 28, "flash"),
    "edit: first step": Budget(4, 0, 874, 156, 30.4, "cudnn"),
    "edit: guided step": Budget(0, 1, 724, 155, 30.4, "cudnn"),
    "text token, context 9000": Budget(0, 1, 279, 15.08, 28.5),
    "judge": Budget(7, 0, 1167, 101, 29.5, "cudnn flash"),
    "batch of 8: first step": Budget(5, 0, 2111, 719, 38.9, "cudnn flash"),
}
"""One GPU, with the Triton kernels."""
WITHOUT_TRITON = {
    "read a text": Budget(1, 0, 573, 13.47, 27.5, "flash"),
    "text token, context 100": Budget(0, 1, 561, 14.32, 27.5, "flash"),
}
TWO_GPUS = {
    "read a text": Budget(1, 0, 350, 13.24, 27.5, "flash"),
    "first token of a text": Budget(2, 1, 683, 28.62, 27.5),
    "generation: first step": Budget(4, 0, 785, 112, 29.1, "cudnn"),
    "judge": Budget(7, 0, 1258, 101, 28.8, "cudnn flash"),
}
OFFLOADED = {
    "read a text": Budget(1, 0, 501, 33, 11, "flash", host_gb=9.5),
    "first token of a text": Budget(2, 1, 948, 69, 11, host_gb=19.8),
    "generation: first step": Budget(4, 0, 1116, 152, 12.6, "cudnn", host_gb=20.3),
}
"""Three quarters of the decoder layers in host memory."""
INT8 = {
    "read a text": Budget(1, 0, 594, 33, 15.6, "flash"),
    "first token of a text": Budget(2, 1, 679, 15.5, 15.4),
    "generation: first step": Budget(4, 0, 1281, 203, 17.2, "cudnn"),
}
