"""The tasks of the trials: pictures to draw and to edit, the judges' questions, and the policies."""

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
    """One image to draw or edit."""

    kind: Kind
    number: int
    instruction: str
    target: Scene
    """The scene that a right image shows."""
    given: Image | None = None
    """The picture to edit."""

    def is_right(self, image: Image) -> bool:
        return see(image) == self.target


@dataclass(frozen=True, kw_only=True)
class Wording:
    """The question of a judge: a recipe's `judge`, with {target} for the scene that a right image shows."""

    name: str
    question: str
    answer: str | None = None
    below: float = 0.5
    """The score below which an image is drawn again."""

    def judge(self, target: str) -> JudgeSettings:
        """The recipe's settings for an image of `target`."""
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
    """How the image is selected."""

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
"""Those with more images first; the others reuse them."""


def tasks(kind: Kind, count: int, seed: int) -> Iterator[Task]:
    """`count` tasks, each determined by `seed`, its kind and its number."""
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
    """The recipe of `task` under `policy`, judged by `wording`."""
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
