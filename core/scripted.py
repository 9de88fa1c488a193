"""A deterministic model without weights, to try and test the worker."""

import hashlib
import random
import time
from collections.abc import Callable, Iterator, Sequence

from PIL import Image, ImageDraw

from core.protocol import Context, Denoising, Drawn, Item, Picture, Text
from recipes.model_spec import ModelSpec, ResizeRule
from recipes.recipe import ImageSettings, TextSettings

SPEC = ModelSpec(
    name="scripted",
    vae=ResizeRule(max_px=1024, min_px=64, stride_px=8),
    vit=ResizeRule(max_px=64, min_px=64, stride_px=8),
    max_side_px=1024,
    text_defaults={"max_new_tokens": 32},
    image_defaults={"width": 64, "height": 64, "num_timesteps": 8},
    kv_values_per_token=0,
)

_WORDS = (
    *("a", "small", "large", "red", "green", "blue"),
    *("star", "circle", "ring", "moves", "to", "the", "left", "grows"),
)


LATER_SETTING = ", step_cache=None"
"""What settings did not have in release 0.1.0, whose runs continue with the same bits."""


class ScriptedModel:
    """Implements UnifiedModel: its outputs depend only on the context, the settings and the seed.

    Args:
        spec: the spec of the model.
        delay_s: the time of each token and of each denoising step, however many images are drawn at once.
        sleep: waits for a number of seconds.
    """

    def __init__(
        self, *, spec: ModelSpec = SPEC, delay_s: float = 0.0, sleep: Callable[[float], None] = time.sleep
    ) -> None:
        self.spec = spec
        self.max_batch = 8
        """Has no effect."""
        self.delay_s = delay_s
        self.tokens_read = 0
        self._sleep = sleep
        self._cached: tuple[Item, ...] = ()
        self._contents: dict[Item, tuple[int, bytes]] = {}  # of the cached items: size and hash

    def warm_up(self) -> None:
        """Do nothing: no call is slower than the others."""

    def prefill(self, context: Context, settings: TextSettings | ImageSettings) -> Iterator[None]:
        """Yield once for each item, cached or not."""
        del settings
        yield from (None for _ in context.items)

    def write(self, context: Context, settings: TextSettings, *, seed: int) -> Iterator[str]:
        """A line of words, one part each."""
        rng = self._read(context, settings, seed)
        for position in range(min(rng.randint(4, 12), settings.max_new_tokens)):
            self._wait()
            word = rng.choice(_WORDS)
            yield f" {word}" if position else word

    def draw(self, context: Context, settings: ImageSettings, *, seeds: Sequence[int]) -> Iterator[Denoising | Drawn]:
        """Ellipses, each on a plain background."""
        size = settings.width or 64, settings.height or 64
        images = [_ellipse(size, self._read(context, settings, seed)) for seed in seeds]
        total = settings.num_timesteps - 1
        for done in range(1, total + 1):
            self._wait()
            yield Denoising(done=done, total=total, preview=lambda: _strip(images))
        yield Drawn(images=tuple(images))

    def judge(self, image: Image.Image, question: str, answer: str | None = None) -> float:
        """A number that depends only on the image, the question and the answer."""
        content = _content(Picture(image))
        asked = question if answer is None else f"{question}\0{answer}"
        self.tokens_read += len(content) + len(asked)
        self._wait()
        digest = hashlib.sha256(asked.encode() + b"\0" + content).digest()
        return int.from_bytes(digest[:4], "big") / 2**32

    def forget(self) -> None:
        """Clear the cache, so that all items count as new."""
        self._cached, self._contents = (), {}

    def _read(self, context: Context, settings: TextSettings | ImageSettings, seed: int) -> random.Random:
        """Count the new items of `context`, and return a generator seeded with all inputs."""
        kept = 0
        while kept < min(len(self._cached), len(context.items)) and self._cached[kept] == context.items[kept]:
            kept += 1
        contents: dict[Item, tuple[int, bytes]] = {}
        for item in context.items:
            contents[item] = contents.get(item) or self._contents.get(item) or _size_and_hash(_content(item))
        self.tokens_read += sum(contents[item][0] for item in context.items[kept:])
        self._cached, self._contents = context.items, contents
        described = repr((context.system_prompt, settings, seed)).replace(LATER_SETTING, "")
        digest = hashlib.sha256(described.encode())
        for item in context.items:
            digest.update(contents[item][1])
        return random.Random(digest.digest())  # noqa: S311 - not a secret

    def _wait(self) -> None:
        if self.delay_s:
            self._sleep(self.delay_s)


def _content(item: Item) -> bytes:
    return item.text.encode() if isinstance(item, Text) else item.image.convert("RGB").tobytes()


def _size_and_hash(content: bytes) -> tuple[int, bytes]:
    return len(content), hashlib.sha256(content).digest()


def _ellipse(size: tuple[int, int], rng: random.Random) -> Image.Image:
    image = Image.new("RGB", size, _colour(rng))
    corners = [rng.uniform(0.05, 0.45) * image.width, rng.uniform(0.05, 0.45) * image.height]
    corners += [rng.uniform(0.55, 0.95) * image.width, rng.uniform(0.55, 0.95) * image.height]
    ImageDraw.Draw(image).ellipse(corners, fill=_colour(rng))
    return image


def _strip(images: Sequence[Image.Image]) -> Image.Image:
    strip = Image.new("RGB", (64 * len(images), 64))
    for place, image in enumerate(images):
        strip.paste(image.resize((64, 64)), (64 * place, 0))
    return strip


def _colour(rng: random.Random) -> tuple[int, int, int]:
    return rng.randrange(256), rng.randrange(256), rng.randrange(256)
