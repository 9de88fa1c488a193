"""A model that draws and judges each image of a task only once for all policies."""

from collections.abc import Iterator, Sequence

from PIL.Image import Image

from core.protocol import Context, Denoising, Drawn, UnifiedModel
from recipes.model_spec import ModelSpec
from recipes.recipe import ImageSettings, TextSettings


class Album:
    """The images that follow one context, by their seeds, and their scores. Implements UnifiedModel.

    Args:
        model: the model that draws and judges.
    """

    def __init__(self, model: UnifiedModel) -> None:
        self.model = model
        self.max_batch = model.max_batch
        self.images: dict[int, Image] = {}
        self._scores: dict[tuple[int, str, str | None], float] = {}

    @property
    def spec(self) -> ModelSpec:
        return self.model.spec

    @property
    def tokens_read(self) -> int:
        return self.model.tokens_read

    def warm_up(self) -> None:
        self.model.warm_up()

    def prefill(self, context: Context, settings: TextSettings | ImageSettings) -> Iterator[None]:
        del context, settings
        yield from ()  # `draw` may have all images already

    def write(self, context: Context, settings: TextSettings, *, seed: int) -> Iterator[str]:
        return self.model.write(context, settings, seed=seed)

    def draw(self, context: Context, settings: ImageSettings, *, seeds: Sequence[int]) -> Iterator[Denoising | Drawn]:
        missing = [seed for seed in seeds if seed not in self.images]
        for progress in self.model.draw(context, settings, seeds=missing) if missing else ():
            if isinstance(progress, Drawn):
                self.images.update(zip(missing, progress.images, strict=True))
        yield Drawn(images=tuple(self.images[seed] for seed in seeds))

    def judge(self, image: Image, question: str, answer: str | None = None) -> float:
        asked = (id(image), question, answer)
        if asked not in self._scores:
            self._scores[asked] = self.model.judge(image, question, answer)
        return self._scores[asked]

    def forget(self) -> None:
        self.model.forget()
