"""The phases of the engine's work, each run once on pretended GPUs."""

from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from unittest.mock import patch

import torch
from PIL import Image

from core.bagel.flow import holds, schedule
from core.bagel.fused import KERNELS
from core.bagel.model import Bagel
from core.protocol import Context, Picture, Text
from recipes.recipe import ImageSettings, TextSettings
from tests.core.bagel.fake_cuda.device import pretended_cuda
from tests.core.bagel.fake_cuda.functions import CudaFunctions, biases_in_modes
from tests.core.bagel.fake_cuda.model import Keep, load, on_one_gpu
from tests.core.bagel.fake_cuda.recorder import Recorder

PROMPT = Text("A magical forest with a castle of glass. " * 4)
CHANGE = Text("Make it warmer")
SAMPLED = TextSettings(max_new_tokens=4, temperature=0.3)
FILTERED = replace(SAMPLED, top_p=0.9, top_k=50)
GREEDY = replace(SAMPLED, temperature=0.0)
GENERATION = ImageSettings(width=1024, height=1024, num_timesteps=50, cfg_text_scale=4.0, cfg_img_scale=1.0)
EDITING = replace(GENERATION, cfg_img_scale=2.0, cfg_interval=(0.0, 1.0), cfg_renorm_type="text_channel")
FEW = {"num_timesteps": 4, "cfg_interval": (0.7, 1.0)}
"""Two guided steps and a plain one, at the times 1, 0.86 and 0.6."""


@contextmanager
def pretending(*, capability: int = 90, fused: bool = True) -> Iterator[Recorder]:
    """A recorder of what happens on two pretended GPUs of this compute capability, with or without Triton."""
    recorder = Recorder()
    functions = CudaFunctions(recorder, capability)
    with patch.object(KERNELS, "enabled", fused), biases_in_modes(), pretended_cuda(recorder), recorder, functions:
        yield recorder


@dataclass
class Story:
    """The engine on pretended GPUs, and what it is asked to do."""

    recorder: Recorder
    bagel: Bagel
    side: int = 1024

    @cached_property
    def picture(self) -> Picture:
        return Picture(Image.new("RGB", (self.side, self.side), "green"))

    def write(self, name: str, settings: TextSettings = SAMPLED) -> None:
        """The third token of a text after what has been read: the first ones also allocate, and launch one ahead."""
        ids = self.bagel.write_ids(settings, seed=1)
        next(ids)
        next(ids)
        with self.recorder.phase(f"text token, {name}"):
            next(ids)
        ids.close()  # type: ignore[attr-defined]

    def text(self) -> None:
        """Read a text of about 100 tokens, and write after it."""
        with self.recorder.phase("read a text"):
            self.bagel.reader.sync(self.bagel._context, (PROMPT,))
        self.write("context 100")

    def sampling(self) -> None:
        """Write in other ways."""
        self.write("context 100, greedy", GREEDY)
        self.write("context 100, top_p and top_k", FILTERED)

    def draw(self, name: str, context: Context, settings: ImageSettings, images: int = 1) -> Iterator[None]:
        """The steps of an image one by one; the first includes the preparations, and the VAE follows the last."""
        few = replace(settings, width=self.side, height=self.side, **FEW)  # type: ignore[arg-type]
        events = self.bagel.draw(context, few, seeds=range(images))
        for part in ("first step", "guided step", "plain step", "VAE decode"):
            with self.recorder.phase(f"{name}: {part}"):
                event = next(events)
            if part == "plain step":
                with self.recorder.phase(f"{name}: preview"):
                    event.preview()  # type: ignore[union-attr]
            yield

    def generate(self) -> None:
        deque(self.draw("generation", Context(items=(PROMPT,)), GENERATION), maxlen=0)

    def batch(self) -> None:
        next(self.draw("batch of 8", Context(items=(PROMPT,)), GENERATION, images=8))

    def edit(self) -> None:
        """Read an image of about 9,000 tokens, change it, and write after it."""
        self.bagel.forget()
        with self.recorder.phase("VAE encode"), torch.inference_mode():
            self.bagel.reader.latent_tokens(self.picture.image)
        with self.recorder.phase("read an image"):
            self.bagel.reader.sync(self.bagel._context, (self.picture,))
        context = Context(items=(self.picture, CHANGE))
        with self.recorder.phase("read both contexts of an edit"), torch.inference_mode():
            self.bagel.branches(context, EDITING)
        steps = self.draw("edit", context, EDITING)
        next(steps)
        next(steps)  # it has no plain steps
        self.write("context 9000")

    def judge(self) -> None:
        with self.recorder.phase("judge"):
            self.bagel.judge(self.picture.image, "Is it a forest?", "A forest at dawn.")

    def begin(self) -> None:
        """The shortest text and image."""
        with self.recorder.phase("read a text"):
            self.bagel.reader.sync(self.bagel._context, (PROMPT,))
        with self.recorder.phase("first token of a text"):
            next(self.bagel.write_ids(SAMPLED, seed=1))
        next(self.draw("generation", Context(items=(PROMPT,)), GENERATION))


ALL = ("text", "sampling", "generate", "edit", "judge", "batch")


def run(
    parts: Sequence[str] = ALL,
    *,
    keep: Keep = on_one_gpu,
    quantize: str | None = None,
    side: int = 1024,
    capability: int = 90,
    fused: bool = True,
) -> Recorder:
    """Some parts of a story, with the decoder layers placed by `keep`."""
    with pretending(capability=capability, fused=fused) as recorder:
        story = Story(recorder, load(recorder, keep, quantize), side)
        for part in parts:
            getattr(story, part)()
    return recorder


def guided_steps(settings: ImageSettings) -> int:
    """The steps of an image that compute all branches."""
    times = schedule(settings.num_timesteps, settings.timestep_shift)[:-1]
    return sum(holds(settings.cfg_interval, time) for time in times)
