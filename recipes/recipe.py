"""The recipe: everything that decides a run's outcome, as frozen values that carry their own bounds."""

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal, TypeAlias

from annotated_types import Ge, Gt, Le, MaxLen, MinLen

MAX_TEXT_CHARS = 8192
MAX_IMAGES = 64
MAX_CONTEXT_ITEMS = 256
INSTRUCTION = "{instruction}"
"""What stands in a question for the text that an image is to show."""

Mode: TypeAlias = Literal["generation", "editing"]
Prompt: TypeAlias = Annotated[str, MinLen(1), MaxLen(MAX_TEXT_CHARS)]

# Read by pydantic in load.py and schema.py; a plain dict, so that core can use these types without pydantic.
STRICT: dict[str, Any] = {"extra": "forbid", "strict": True, "use_attribute_docstrings": True}


@dataclass(frozen=True, kw_only=True)
class TextItem:
    """A text in the initial context."""

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT

    text: Prompt
    """What the model reads."""
    thought: bool = False
    """Whether this is a plan for the image that comes next, as `think` writes one: then no other is written first."""


@dataclass(frozen=True, kw_only=True)
class ImageItem:
    """An image in the initial context, by reference."""

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT

    image: Annotated[str, MinLen(1)]
    """A path relative to the recipe file (uploaded at submit), s3://bucket/key, or a data: URI (PNG, JPEG or WebP)."""
    sha256: str | None = None
    """Optional pin: the SHA-256 of the image file's bytes, 64 hexadecimal digits; checked before the run."""


ContextItem: TypeAlias = TextItem | ImageItem


@dataclass(frozen=True, kw_only=True)
class TextSettings:
    """How texts are written."""

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT

    max_new_tokens: Annotated[int, Ge(1), Le(8192)] = 512
    """The longest text, in tokens."""
    temperature: Annotated[float, Ge(0.0), Le(5.0)] = 0.3
    """Sampling temperature; 0 takes the likeliest token each time (greedy)."""
    top_p: Annotated[float, Gt(0.0), Le(1.0)] = 1.0
    """Sample among the likeliest tokens that together hold this probability; 1 turns it off."""
    top_k: Annotated[int, Ge(0), Le(1_000_000)] = 0
    """Sample among this many likeliest tokens; 0 turns it off."""


@dataclass(frozen=True, kw_only=True)
class ImageSettings:
    """How images are drawn."""

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT

    width: Annotated[int, Ge(1), Le(16_384)] | None = 1024
    """Pixels, a multiple of the model's stride; null (with height) takes the size of the last image in the context."""
    height: Annotated[int, Ge(1), Le(16_384)] | None = 1024
    """Pixels, a multiple of the model's stride; null (with width) takes the size of the last image in the context."""
    num_timesteps: Annotated[int, Ge(2), Le(1000)] = 50
    """Points of the denoising schedule; one step fewer is computed."""
    timestep_shift: Annotated[float, Gt(0.0), Le(100.0)] = 3.0
    """Spends more of the schedule at high noise when above 1."""
    cfg_text_scale: Annotated[float, Ge(0.0), Le(100.0)] = 4.0
    """How strongly the last text guides the image; 1 or less turns all guidance off."""
    cfg_img_scale: Annotated[float, Ge(0.0), Le(100.0)] = 2.0
    """How strongly the context's images guide, when the initial context holds one; else it is always 1 (off)."""
    cfg_interval: tuple[Annotated[float, Ge(0.0), Le(1.0)], Annotated[float, Ge(0.0), Le(1.0)]] = (0.4, 1.0)
    """Guidance holds at times above the first and up to the second; time goes from 1 (noise) to 0 (image)."""
    cfg_renorm_type: Literal["global", "channel", "text_channel"] = "global"
    """What keeps guidance from oversaturating: one norm for the whole image, one for each token, or one for each token
    of the text guidance alone."""
    cfg_renorm_min: Annotated[float, Ge(0.0), Le(1.0)] = 0.0
    """The least factor the renormalisation may scale by."""


@dataclass(frozen=True, kw_only=True)
class OutputSettings:
    """What is left behind."""

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT

    format: Literal["png"] = "png"
    """The image format; PNG is lossless, which an exact resume needs."""
    page: bool = True
    """Whether the run gets a static web page, index.html."""


@dataclass(frozen=True, kw_only=True)
class JudgeSettings:
    """How the model judges what it has drawn."""

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT

    question: Prompt = "Does the picture match: {instruction}?"
    """What the model is asked about each image. {instruction} stands for the text that the image was drawn after,
    without a full stop at its end."""
    answer: Prompt | None = None
    """The answer whose likelihood is the score (the geometric mean of its tokens' probabilities), such as
    {instruction}; null scores how probable yes is against no."""


@dataclass(frozen=True, kw_only=True)
class Retry:
    """When an image is dropped and drawn again."""

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT

    below: Annotated[float, Ge(0.0), Le(1.0)]
    """Draw again while the score of what would go on is lower than this."""
    times: Annotated[int, Ge(1), Le(8)]
    """At most this many further tries."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """One automatic interleaved text-image sequence, every default filled in."""

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT

    name: str
    """Lower-case letters, digits and dashes, at most 64; begins with a letter or digit."""
    model: str | None = None
    """A name the worker serves; null is the worker's default model."""
    model_sha256: str | None = None
    """Optional pin: the fingerprint of the model's files, 64 hexadecimal digits; a worker with other files refuses."""
    seed: Annotated[int, Ge(0), Le(2**63 - 1)] = 0
    """All the run's randomness comes from this number."""
    context: Annotated[tuple[ContextItem, ...], MinLen(1), MaxLen(MAX_CONTEXT_ITEMS)]
    """What the model reads first, in order: texts and images. Any image here makes the run an editing run."""
    num_images: Annotated[int, Ge(1), Le(MAX_IMAGES)] = 1
    """The sequence ends when this many images exist."""
    think: bool = False
    """Whether the model writes down its plan before each image."""
    auto_refine: bool = True
    """Whether the model writes the refinement texts for which refinement_prompts has none."""
    refinement_prompts: Annotated[tuple[Prompt | None, ...], MaxLen(MAX_IMAGES)] = ()
    """Given refinement texts, used in order; null lets the model write that one, as it does those after the last."""
    refine_instruction: Prompt | None = None
    """A text the model sees only while it writes a refinement; it never stays in the context."""
    max_context_items: Annotated[int, Ge(1), Le(MAX_CONTEXT_ITEMS)] | None = None
    """The most items in the context: above it all but the pinned and about half of the others, the latest, are
    forgotten at once; null keeps all."""
    pin: Literal["initial", "none"] | Annotated[int, Ge(0), Le(MAX_CONTEXT_ITEMS)] = "initial"
    """Which items max_context_items never drops: the initial context, none, or so many of its first items."""
    variations_per_image: Annotated[int, Ge(1), Le(MAX_IMAGES)] = 1
    """Images drawn for each image step from one shared context, each from its own seed."""
    select: Literal["first", "judge", "tree"] = "first"
    """Which variation goes on: the first, the one that the model scores highest, or each as a branch of its own."""
    judge: JudgeSettings = JudgeSettings()
    """How the model judges what it has drawn."""
    retry: Retry | None = None
    """Draw an image again from the same context when its score is low; the best of all tries goes on."""
    text: TextSettings = TextSettings()
    """How texts are written."""
    image: ImageSettings = ImageSettings()
    """How images are drawn."""
    output: OutputSettings = OutputSettings()
    """What is left behind."""
    parent: str | None = None
    """The run and the step that this recipe branched off, as RUN@STEP; only told, it decides nothing."""

    @property
    def mode(self) -> Mode:
        """Editing when the initial context holds an image, else generation; images the run makes do not change it."""
        return "editing" if any(isinstance(item, ImageItem) for item in self.context) else "generation"

    @property
    def num_pinned(self) -> int:
        """How many items of the initial context, its first, are never dropped."""
        if isinstance(self.pin, int):
            return self.pin
        return len(self.context) if self.pin == "initial" else 0

    @property
    def is_judged(self) -> bool:
        """Whether images are scored: to choose among them, or to draw again."""
        return self.select == "judge" or self.retry is not None

    @property
    def num_refinements(self) -> int:
        """Refinement texts of the sequence: one between two images, one first when the context ends with an image."""
        return self.num_images - 1 + isinstance(self.context[-1], ImageItem)
