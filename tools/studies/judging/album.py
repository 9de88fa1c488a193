"""A model that draws and judges each image of a task only once for all policies."""

from collections.abc import Iterator, Sequence

from PIL.Image import Image

from core.protocol import Context, Denoising, Drawn, ModelWrapper, UnifiedModel
from recipes.recipe import ImageSettings, TextSettings


class Album(ModelWrapper):
    """The images that follow one context, by their seeds, and their scores.

    Args:
        model: the model that draws and judges.
    """

    def __init__(self, model: UnifiedModel) -> None:
        super().__init__(model)
        self.images: dict[int, Image] = {}
        self._scores: dict[tuple[int, str, str | None], float] = {}

    def prefill(self, context: Context, settings: TextSettings | ImageSettings) -> Iterator[None]:
        del context, settings
        yield from ()  # `draw` may have all images already

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
