"""What is asked of the model in the trials: pictures to draw and to edit, and the ways to ask whether it did so."""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, TypeAlias

from PIL.Image import Image

from recipes.defaults import image_defaults
from recipes.model_spec import ModelSpec
from recipes.recipe import INSTRUCTION, ContextItem, ImageItem, ImageSettings, JudgeSettings, Recipe, Retry, TextItem
from tests.toyworld.edits import random_edit
from tests.toyworld.pictures import picture, see
from tests.toyworld.scenes import Scene, random_scene

Kind: TypeAlias = Literal["drawing", "editing"]
THINGS_TO_DRAW = (2, 3, 4, 4)
THINGS_TO_EDIT = (1, 2)
FURTHER_TRIES = 2


@dataclass(frozen=True, kw_only=True)
class Task:
    """One image that is wanted."""

    kind: Kind
    number: int
    instruction: str
    target: Scene
    """What a right image shows, and nothing else."""
    given: Image | None = None
    """The picture to edit."""

    def is_right(self, image: Image) -> bool:
        return see(image) == self.target


@dataclass(frozen=True, kw_only=True)
class Wording:
    """A way to have an image judged: a recipe's `judge`, with {target} for what a right image shows."""

    name: str
    question: str
    answer: str | None = None
    below: float = 0.5
    """The bound of the retries."""

    def judge(self, target: str) -> JudgeSettings:
        """As the recipe has it for an image of `target`; an answer is a sentence."""
        if self.answer is None:
            return JudgeSettings(question=self.question.replace(TARGET, target))
        said = self.answer.replace(TARGET, target[0].upper() + target[1:])
        return JudgeSettings(question=self.question, answer=said)


TARGET = "{target}"
MATCH = Wording(name="match", question=JudgeSettings().question)
PICTURE_OF = Wording(name="picture of", question=f"Is this a picture of {INSTRUCTION}?")
MATCH_TARGET = Wording(name="match target", question=f"Does the picture match: {TARGET}?")
DONE = Wording(name="done", question=f"Has this been done: {INSTRUCTION}?")
CAPTION = Wording(name="caption", question="What is in the picture?", answer=f"{TARGET}.", below=0.9)
WORDINGS: dict[Kind, tuple[Wording, ...]] = {
    "drawing": (MATCH, PICTURE_OF, CAPTION),
    "editing": (MATCH, DONE, MATCH_TARGET, CAPTION),
}


@dataclass(frozen=True, kw_only=True)
class Policy:
    """How the image that goes on is found."""

    variations: int
    retries: bool = False

    @property
    def name(self) -> str:
        how = "judge" if self.variations > 1 else "first"
        return f"{how}, n = {self.variations}{', retry' if self.retries else ''}"


FIRST = Policy(variations=1)
POLICIES = (
    Policy(variations=4),
    Policy(variations=4, retries=True),
    Policy(variations=2),
    Policy(variations=2, retries=True),
    FIRST,
    Policy(variations=1, retries=True),
)
"""Those of more images first: the others then find theirs drawn."""


def tasks(kind: Kind, count: int, seed: int) -> Iterator[Task]:
    """So many tasks, each from `seed`, its kind and its number alone."""
    for number in range(count):
        rng = random.Random(f"{seed}/{kind}/{number}")
        if kind == "drawing":
            scene = random_scene(rng, rng.choice(THINGS_TO_DRAW))
            instruction = scene.text[0].upper() + scene.text[1:]
            yield Task(kind=kind, number=number, instruction=instruction, target=scene)
        else:
            scene = random_scene(rng, rng.choice(THINGS_TO_EDIT))
            edit = random_edit(scene, rng)
            given = picture(scene)
            yield Task(kind=kind, number=number, instruction=edit.instruction, target=edit.target, given=given)


def recipe(task: Task, policy: Policy, wording: Wording, spec: ModelSpec, timesteps: int) -> Recipe:
    """What anyone would write to have `task` done so."""
    context: tuple[ContextItem, ...] = (TextItem(text=task.instruction),)
    if task.given is not None:
        context = (ImageItem(image="given"), *context)
    settings = image_defaults(spec, "generation" if task.given is None else "editing") | {"num_timesteps": timesteps}
    low, high = settings.get("cfg_interval", ImageSettings.cfg_interval)
    return Recipe(
        name="judging",
        seed=task.number,
        context=context,
        variations_per_image=policy.variations,
        select="judge" if policy.variations > 1 else "first",
        judge=wording.judge(task.target.text),
        retry=Retry(below=wording.below, times=FURTHER_TRIES) if policy.retries else None,
        image=ImageSettings(**{**settings, "cfg_interval": (low, high)}),
    )
