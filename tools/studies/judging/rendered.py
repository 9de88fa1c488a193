"""The scores of rendered pictures with a true description, and with one that differs by one change."""

import random
from collections.abc import Iterator
from statistics import mean

from core.protocol import UnifiedModel
from tests.toyworld.edits import random_edit
from tests.toyworld.pictures import picture
from tests.toyworld.scenes import Scene, random_scene
from tools.studies.judging.figures import auc
from tools.studies.judging.tasks import CAPTION, MATCH_TARGET, Wording

THINGS = (1, 2, 3)


def report(model: UnifiedModel, count: int, seed: int) -> str:
    """How well yes/no answers and the likelihood of captions tell true from false descriptions of pictures."""
    asked = list(_questions(count, seed))
    lines = [f"rendered: {count} pictures, each with a true and a false description"]
    for wording in (MATCH_TARGET, CAPTION):
        true, false = ([_score(model, wording, *one) for one in side] for side in zip(*asked, strict=True))
        ranked = mean(one > other for one, other in zip(true, false, strict=True))
        low, high = sorted(true)[count // 20], sorted(false)[-1 - count // 20]
        lines.append(
            f"  {wording.name:<14}AUC {auc(true, false):.2f}; the true one of a picture is higher in {ranked:.0%}; "
            f"95 % of the true are above {low:.3f}, 95 % of the false below {high:.3f}"
        )
    return "\n".join(lines)


def _questions(count: int, seed: int) -> Iterator[tuple[tuple[Scene, Scene], tuple[Scene, Scene]]]:
    """(picture, description) pairs: the picture's own scene, and one with as many things that differs by one change."""
    for number in range(count):
        rng = random.Random(f"{seed}/rendered/{number}")
        scene = random_scene(rng, rng.choice(THINGS))
        other = random_edit(scene, rng).target
        while len(other.things) != len(scene.things):
            other = random_edit(scene, rng).target
        yield (scene, scene), (scene, other)


def _score(model: UnifiedModel, wording: Wording, scene: Scene, said: Scene) -> float:
    asked = wording.judge(said.text)
    return model.judge(picture(scene), asked.question, asked.answer)
