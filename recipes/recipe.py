"""The recipe: everything that determines the result of a run, as frozen values with their bounds."""

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal, TypeAlias

from annotated_types import Ge, Gt, Le, MaxLen, MinLen

MAX_TEXT_CHARS = 8192
MAX_IMAGES = 64
MAX_CONTEXT_ITEMS = 256
INSTRUCTION = "{instruction}"
"""The placeholder in a judge question for the text that the image should match."""

Mode: TypeAlias = Literal["generation", "editing"]
Prompt: TypeAlias = Annotated[str, MinLen(1), MaxLen(MAX_TEXT_CHARS)]

# Read by pydantic in load.py and schema.py; a plain dict, so that core can use these types without pydantic.
STRICT: dict[str, Any] = {"extra": "forbid", "strict": True, "use_attribute_docstrings": True}


@dataclass(frozen=True, kw_only=True)
class TextItem:
    """A text in the initial context."""

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT

    text: Prompt
    """The text that the model reads."""
    thought: bool = False
    """Whether this text is a thinking text for the next image. With `think`, the model then writes none for it."""


@dataclass(frozen=True, kw_only=True)
class ImageItem:
    """An image in the initial context, by reference."""

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT

    image: Annotated[str, MinLen(1)]
    """A path relative to the recipe file (uploaded at submit), s3://bucket/key, or a data: URI (PNG, JPEG or WebP)."""
    sha256: str | None = None
    """The expected SHA-256 of the image file, 64 hexadecimal digits; optional, checked before the run."""


ContextItem: TypeAlias = TextItem | ImageItem


@dataclass(frozen=True, kw_only=True)
class TextSettings:
    """Settings for text generation."""

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT

    max_new_tokens: Annotated[int, Ge(1), Le(8192)] = 512
    """Maximum length of a text, in tokens."""
    temperature: Annotated[float, Ge(0.0), Le(5.0)] = 0.3
    """Sampling temperature; 0 always takes the most likely token (greedy decoding)."""
    top_p: Annotated[float, Gt(0.0), Le(1.0)] = 1.0
    """Sample from the smallest set of most likely tokens with at least this total probability; 1 disables it."""
    top_k: Annotated[int, Ge(0), Le(1_000_000)] = 0
    """Sample from this many most likely tokens; 0 disables it."""


@dataclass(frozen=True, kw_only=True)
class StepCacheSettings:
    """Which denoising steps are computed, and how the velocities of the others are forecast."""

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT

    method: Literal["taylor"] = "taylor"
    """How velocities are forecast: by a polynomial in time through the last computed ones (taylor)."""
    interval: Annotated[int, Ge(2), Le(100)] = 2
    """One of this many steps is computed, after the warm-up; the others are forecast."""
    order: Annotated[int, Ge(1), Le(2)] = 1
    """Degree of the polynomial; lower while fewer than order + 1 velocities are known."""
    warmup: Annotated[int, Ge(1), Le(1000)] = 2
    """Number of first steps that are always computed."""
    tail: Annotated[int, Ge(0), Le(1000)] = 2
    """Number of last steps that are always computed."""

    def computes(self, step: int, steps: int) -> bool:
        """Whether step number `step`, from 0, of `steps` steps is computed."""
        return step < self.warmup or step >= steps - self.tail or (step - self.warmup + 1) % self.interval == 0


@dataclass(frozen=True, kw_only=True)
class ImageSettings:
    """Settings for image generation."""

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT

    width: Annotated[int, Ge(1), Le(16_384)] | None = 1024
    """Width in pixels, a multiple of the model's stride; null (with height) uses the size of the last image in the
    context."""
    height: Annotated[int, Ge(1), Le(16_384)] | None = 1024
    """Height in pixels, a multiple of the model's stride; null (with width) uses the size of the last image in the
    context."""
    num_timesteps: Annotated[int, Ge(2), Le(1000)] = 50
    """Number of points in the denoising schedule; the number of computed steps is one less."""
    timestep_shift: Annotated[float, Gt(0.0), Le(100.0)] = 3.0
    """Shift of the denoising schedule; values above 1 put more of its steps at high noise."""
    cfg_text_scale: Annotated[float, Ge(0.0), Le(100.0)] = 4.0
    """Guidance scale of the last text; 1 or less disables all guidance."""
    cfg_img_scale: Annotated[float, Ge(0.0), Le(100.0)] = 2.0
    """Guidance scale of the images in the context; always 1 (off) if the initial context has no image."""
    cfg_interval: tuple[Annotated[float, Ge(0.0), Le(1.0)], Annotated[float, Ge(0.0), Le(1.0)]] = (0.4, 1.0)
    """Guidance applies at times above the first value and up to the second; time runs from 1 (noise) to 0 (image)."""
    cfg_renorm_type: Literal["global", "channel", "text_channel"] = "global"
    """Renormalization against oversaturation: over the whole image (global), per token (channel), or per token for the
    text guidance only (text_channel)."""
    cfg_renorm_min: Annotated[float, Ge(0.0), Le(1.0)] = 0.0
    """Minimum scaling factor of the renormalization."""
    step_cache: StepCacheSettings | None = None
    """Forecast the velocities of some denoising steps instead of computing them; null computes all steps."""


@dataclass(frozen=True, kw_only=True)
class OutputSettings:
    """Settings for the stored results."""

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT

    format: Literal["png"] = "png"
    """Image format; PNG is lossless, which exact resume requires."""
    page: bool = True
    """Whether to create a static web page of the run, index.html."""


@dataclass(frozen=True, kw_only=True)
class JudgeSettings:
    """Settings for scoring images."""

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT

    question: Prompt = "Does the picture match: {instruction}?"
    """Question to the model about each image. {instruction} is replaced with the text that the image follows, without
    its final full stop."""
    answer: Prompt | None = None
    """Answer whose likelihood is the score (the geometric mean of the probabilities of its tokens), such as
    {instruction}; null scores the probability of yes against no."""


@dataclass(frozen=True, kw_only=True)
class Retry:
    """When to draw an image again."""

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT

    below: Annotated[float, Ge(0.0), Le(1.0)]
    """Draw again while the score of the selected image is below this value."""
    times: Annotated[int, Ge(1), Le(8)]
    """Maximum number of further attempts."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """One automatic interleaved text-image sequence, with all defaults filled in."""

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT

    name: str
    """Name of the recipe: at most 64 lower-case letters, digits and dashes, starting with a letter or digit."""
    model: str | None = None
    """Name of a model that the worker serves; null uses the worker's default model."""
    model_sha256: str | None = None
    """Expected fingerprint of the model's files, 64 hexadecimal digits; a worker with other files rejects the run."""
    seed: Annotated[int, Ge(0), Le(2**63 - 1)] = 0
    """Seed of all randomness in the run."""
    context: Annotated[tuple[ContextItem, ...], MinLen(1), MaxLen(MAX_CONTEXT_ITEMS)]
    """Texts and images that the model reads first, in order. If one of them is an image, the run is an editing run."""
    num_images: Annotated[int, Ge(1), Le(MAX_IMAGES)] = 1
    """Number of images in the sequence."""
    think: bool = False
    """Whether the model writes a thinking text before each image."""
    auto_refine: bool = True
    """Whether the model writes the refinement texts that refinement_prompts does not give."""
    refinement_prompts: Annotated[tuple[Prompt | None, ...], MaxLen(MAX_IMAGES)] = ()
    """Refinement texts, used in order; the model writes those that are null and those after the last."""
    refine_instruction: Prompt | None = None
    """Instruction that the model sees only while it writes a refinement text; it does not stay in the context."""
    max_context_items: Annotated[int, Ge(1), Le(MAX_CONTEXT_ITEMS)] | None = None
    """Maximum number of items in the context. When it is exceeded, the older half (about) of the items that are not
    pinned is evicted at once; null keeps all."""
    pin: Literal["initial", "none"] | Annotated[int, Ge(0), Le(MAX_CONTEXT_ITEMS)] = "initial"
    """Items that max_context_items never evicts: the initial context, none, or this many of its first items."""
    variations_per_image: Annotated[int, Ge(1), Le(MAX_IMAGES)] = 1
    """Number of images drawn for each image of the sequence, from the same context but with different seeds."""
    select: Literal["first", "judge", "tree"] = "first"
    """Which variation the sequence continues from: the first, the one with the highest score (judge), or each one as a
    separate branch (tree)."""
    judge: JudgeSettings = JudgeSettings()
    """Settings for scoring images."""
    retry: Retry | None = None
    """Draw an image again from the same context if its score is low; the sequence continues from the best attempt."""
    text: TextSettings = TextSettings()
    """Settings for text generation."""
    image: ImageSettings = ImageSettings()
    """Settings for image generation."""
    output: OutputSettings = OutputSettings()
    """Settings for the stored results."""
    parent: str | None = None
    """Run and step from which this recipe was branched, as RUN@STEP; recorded only, without effect on the run."""

    @property
    def mode(self) -> Mode:
        """Editing if the initial context has an image, else generation; drawn images do not change it."""
        return "editing" if any(isinstance(item, ImageItem) for item in self.context) else "generation"

    @property
    def num_pinned(self) -> int:
        """Number of first items of the initial context that are never evicted."""
        if isinstance(self.pin, int):
            return self.pin
        return len(self.context) if self.pin == "initial" else 0

    @property
    def is_judged(self) -> bool:
        """Whether images are scored, to select one or to draw again."""
        return self.select == "judge" or self.retry is not None
