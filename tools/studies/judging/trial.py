"""One task, done by the interpreter under every policy and wording; its results, as a line of JSON."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from PIL.Image import Image

from core.events import ImageReady
from core.protocol import UnifiedModel
from core.sequence import fill_instruction, run_sequence
from recipes.recipe import Recipe
from tools.studies.judging.album import Album
from tools.studies.judging.tasks import FIRST, POLICIES, WORDINGS, Kind, Policy, Task, Wording, recipe


@dataclass(frozen=True, kw_only=True)
class Trial:
    """The results of a task."""

    kind: Kind
    number: int
    instruction: str
    right: Mapping[str, bool]
    """Whether each image is right, by its seed."""
    scores: Mapping[str, Mapping[str, float]]
    """Wording -> score of each image, by its seed."""
    outcomes: Mapping[str, Mapping[str, tuple[bool, int]]]
    """Wording -> policy -> whether the selected image is right, and how many were drawn."""

    @property
    def name(self) -> str:
        return f"{self.kind} {self.number}"

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @staticmethod
    def from_json(line: str) -> "Trial":
        return Trial(**json.loads(line))


def trial(task: Task, model: UnifiedModel, timesteps: int) -> Trial:
    """Do `task` under every policy and wording; each image is drawn once."""
    album, outcomes = Album(model), dict[str, dict[str, tuple[bool, int]]]()
    for wording in WORDINGS[task.kind]:
        found = outcomes[wording.name] = {}
        for policy in POLICIES:
            if policy.retries and policy.variations > FIRST.variations and not _may_retry(policy, wording):
                continue
            final, drawn = _outcome(task, recipe(task, policy, wording, model.spec, timesteps), album)
            found[policy.name] = task.is_right(final), drawn
    return Trial(
        kind=task.kind,
        number=task.number,
        instruction=task.instruction,
        right={str(seed): task.is_right(image) for seed, image in album.images.items()},
        scores={wording.name: dict(_scores(task, wording, album)) for wording in WORDINGS[task.kind]},
        outcomes=outcomes,
    )


def _may_retry(policy: Policy, wording: Wording) -> bool:
    """Limits the study: retries with many variations only for captions, with two also for the wording 'match'."""
    return wording.answer is not None or (wording.name == "match" and policy.variations <= 2)


def _outcome(task: Task, asked: Recipe, album: Album) -> tuple[Image, int]:
    """The selected image, and how many were drawn for it."""
    inputs = [] if task.given is None else [task.given]
    ready = [event for event in run_sequence(asked, album, inputs=inputs) if isinstance(event, ImageReady)]
    selected = [one.image for event in ready for one in event.variations if one.selected]
    return selected[-1], sum(len(event.variations) for event in ready)


def _scores(task: Task, wording: Wording, album: Album) -> Iterator[tuple[str, float]]:
    asked = wording.judge(task.target.text)
    question = fill_instruction(asked.question, task.instruction)
    for seed, image in album.images.items():
        yield str(seed), album.judge(image, question, asked.answer)


def recorded(path: Path) -> dict[str, Trial]:
    """The trials in the file at `path`, by name. Removes an incomplete last line, as a kill leaves it."""
    if not path.exists():
        return {}
    whole, _, _ = path.read_text().rpartition("\n")
    path.write_text(whole + "\n" if whole else "")
    return {trial.name: trial for trial in map(Trial.from_json, whole.splitlines())}
