"""The interpreter carries out a plan, and a resumed run equals an undisturbed one."""

from collections.abc import Generator, Iterator, Sequence
from dataclasses import replace

import pytest
from PIL import Image

from core.events import Event, ImageReady, Judged, Skipped, StepStarted, TextDelta, TextReady
from core.plan import Read, Write, plan
from core.protocol import Context, Denoising, Drawn, Picture, Text
from core.scripted import ScriptedModel
from core.sequence import PLANNING_PROMPT, StepOutput, Unused, derive_seed, run_sequence, used_after
from recipes.recipe import ImageItem, ImageSettings, JudgeSettings, Recipe, Retry, TextItem, TextSettings

IMAGE = ImageSettings(width=64, height=64, num_timesteps=3)


def recipe(**fields: object) -> Recipe:
    given = {"context": (TextItem(text="A cat"),), "num_images": 3, "image": IMAGE, **fields}
    return Recipe(name="test", **given)  # type: ignore[arg-type]  # a builder


class Recording(ScriptedModel):
    """Remembers the contexts it was given, and the questions."""

    def __init__(self) -> None:
        super().__init__()
        self.contexts: list[Context] = []
        self.questions: list[tuple[str, str | None]] = []

    def write(self, context: Context, settings: TextSettings, *, seed: int) -> Iterator[str]:
        self.contexts.append(context)
        return super().write(context, settings, seed=seed)

    def draw(self, context: Context, settings: ImageSettings, *, seeds: Sequence[int]) -> Iterator[Denoising | Drawn]:
        self.contexts.append(context)
        return super().draw(context, settings, seeds=seeds)

    def judge(self, image: Image.Image, question: str, answer: str | None = None) -> float:
        self.questions.append((question, answer))
        return super().judge(image, question, answer)


class Strict(Recording):
    """Scores the images it draws by a list, then with 1."""

    def __init__(self, *scores: float) -> None:
        super().__init__()
        self.scores = list(scores)

    def judge(self, image: Image.Image, question: str, answer: str | None = None) -> float:
        super().judge(image, question, answer)
        return self.scores.pop(0) if self.scores else 1.0


def outputs(events: list[Event]) -> list[str | bytes]:
    made: list[str | bytes] = []
    for event in events:
        if isinstance(event, TextReady):
            made.append(event.text)
        elif isinstance(event, ImageReady):
            made += [one.image.tobytes() for one in event.variations]
    return made


def results(events: list[Event], upto: int) -> list[StepOutput]:
    """What the first `upto` steps made, as a run's stored objects give it back."""
    made: list[StepOutput] = [None] * upto
    for event in events:
        if event.step.number <= upto:
            if isinstance(event, TextReady):
                made[event.step.number - 1] = event.text
            elif isinstance(event, ImageReady):
                chosen = [replace(one, image=one.image.copy()) for one in event.variations if one.selected]
                made[event.step.number - 1] = tuple(chosen)
    return made


def drawn(events: list[Event]) -> list[ImageReady]:
    return [event for event in events if isinstance(event, ImageReady)]


def test_every_step_of_the_plan_starts_once_and_in_order() -> None:
    given = recipe(think=True, max_context_items=3)
    started = [event.step for event in run_sequence(given, ScriptedModel()) if isinstance(event, StepStarted)]
    assert tuple(started) == plan(given)


def test_the_parts_of_a_text_are_the_text() -> None:
    events = list(run_sequence(recipe(), ScriptedModel()))
    for ready in [event for event in events if isinstance(event, TextReady)]:
        parts = [event.text for event in events if isinstance(event, TextDelta) and event.step == ready.step]
        assert len(parts) > 1
        assert "".join(parts) == ready.text


def test_what_was_made_is_read_back_in_order() -> None:
    model = Recording()
    events = run_sequence(recipe(num_images=2, think=True), model)
    made = [event for event in events if isinstance(event, TextReady | ImageReady)]
    last = model.contexts[-1]
    assert last.system_prompt == PLANNING_PROMPT
    assert last.items[0] == Text("A cat")
    for item, event in zip(last.items[1:], made, strict=False):
        assert item == (Text(event.text) if isinstance(event, TextReady) else Picture(event.image))


def test_the_instruction_is_seen_once_and_never_stays() -> None:
    model = Recording()
    list(run_sequence(recipe(num_images=2, refine_instruction="Be bold"), model))
    seen = [Text("Be bold") in context.items for context in model.contexts]
    assert seen == [False, True, False]


def test_forgotten_items_are_gone_from_the_context() -> None:
    model = Recording()
    list(run_sequence(recipe(num_images=6, think=True, max_context_items=4), model))
    assert max(len(context.items) for context in model.contexts) == 4
    assert all(context.items[0] == Text("A cat") for context in model.contexts)


def test_given_images_are_read_in_the_order_of_the_recipe() -> None:
    first, second = Image.new("RGB", (8, 8), "red"), Image.new("RGB", (8, 8), "blue")
    model = Recording()
    context = (ImageItem(image="a.png"), TextItem(text="and"), ImageItem(image="b.png"), TextItem(text="Mix them"))
    list(run_sequence(recipe(context=context, num_images=1), model, inputs=[first, second]))
    assert model.contexts[0].items == (Picture(first), Text("and"), Picture(second), Text("Mix them"))


def test_a_heartbeat_tells_each_item_that_is_read_before_a_generation() -> None:
    model, beats, given = Recording(), list[int](), recipe(num_images=2, think=True)
    events = list(run_sequence(given, model, heartbeat=lambda: beats.append(len(model.contexts))))
    silent = list(run_sequence(given, ScriptedModel()))
    assert [type(event) for event in events] == [type(event) for event in silent], "it is no event"
    assert outputs(events) == outputs(silent)
    assert beats == [number for number, context in enumerate(model.contexts) for _ in context.items]


def test_what_a_heartbeat_raises_ends_the_sequence_before_the_generation() -> None:
    def stop() -> None:
        raise TimeoutError

    model, events = Recording(), list[Event]()
    with pytest.raises(TimeoutError):
        events.extend(run_sequence(recipe(), model, heartbeat=stop))
    assert not model.contexts


LANGUAGE: list[dict[str, object]] = [
    {},
    {"max_context_items": 4},
    {"variations_per_image": 3},
    {"variations_per_image": 3, "select": "judge"},
    {"retry": Retry(below=0.7, times=3)},
    {"variations_per_image": 2, "select": "judge", "retry": Retry(below=0.8, times=2), "max_context_items": 4},
    {"variations_per_image": 2, "select": "tree", "max_context_items": 5},
    {"variations_per_image": 2, "select": "tree", "retry": Retry(below=0.6, times=2)},
    {"num_images": 4, "refinement_prompts": (None, "Make it red", None), "refine_instruction": "Be bold"},
]


@pytest.mark.parametrize("fields", LANGUAGE, ids=lambda fields: "-".join(fields) or "plain")
def test_a_run_resumed_after_any_step_equals_an_undisturbed_one(fields: dict[str, object]) -> None:
    given = recipe(**{"think": True, **fields})
    whole = list(run_sequence(given, ScriptedModel()))
    for done in range(len(plan(given)) + 1):
        rest = list(run_sequence(given, ScriptedModel(), done=results(whole, done)))
        expected = [event for event in whole if event.step.number > done]
        assert [type(event) for event in rest] == [type(event) for event in expected]
        assert outputs(rest) == outputs(expected)


@pytest.mark.parametrize("fields", LANGUAGE, ids=lambda fields: "-".join(fields) or "plain")
def test_a_resumed_run_needs_only_the_outputs_that_are_used_later(fields: dict[str, object]) -> None:
    given = recipe(**{"think": True, **fields})
    steps, whole = plan(given), list(run_sequence(given, ScriptedModel()))
    for done in range(len(steps) + 1):
        used = used_after(steps, done)
        few = [made if number in used else Unused() for number, made in enumerate(results(whole, done), 1)]
        rest = list(run_sequence(given, ScriptedModel(), done=few))
        assert outputs(rest) == outputs([event for event in whole if event.step.number > done])
    if "max_context_items" in fields:
        assert len(used_after(steps, len(steps) - 1)) < len(steps) / 2


@pytest.mark.parametrize("fields", LANGUAGE, ids=lambda fields: "-".join(fields) or "plain")
def test_every_generation_sees_as_many_items_as_the_plan_says(fields: dict[str, object]) -> None:
    model = Recording()
    events = list(run_sequence(recipe(**{"think": True, **fields}), model))
    ended = [event for event in events if isinstance(event, TextReady | ImageReady)]
    generated = [event.step for event in ended if not isinstance(event.step, Read)]
    instructed = [isinstance(step, Write) and step.instruction is not None for step in generated]
    assert [len(context.items) for context in model.contexts] == [
        len(step.context) + more for step, more in zip(generated, instructed, strict=True)
    ]


def test_variations_are_drawn_from_one_context_each_from_its_own_seed() -> None:
    model = Recording()
    events = drawn(list(run_sequence(recipe(variations_per_image=4), model)))
    assert [len(event.variations) for event in events] == [4, 4, 4]
    assert len({one.seed for event in events for one in event.variations}) == 12
    assert len({one.image.tobytes() for event in events for one in event.variations}) == 12
    assert [[one.selected for one in event.variations] for event in events] == [[True, False, False, False]] * 3
    assert len(model.contexts) == 3 + 2, "one for each image, one for each refinement"
    assert model.questions == []


def test_the_variation_with_the_highest_score_goes_on() -> None:
    model = Strict(0.2, 0.9, 0.4, 0.5, 0.5, 0.1)
    events = list(run_sequence(recipe(num_images=2, variations_per_image=3, select="judge"), model))
    told = [event.scores for event in events if isinstance(event, Judged)]
    assert told == [(0.2,), (0.2, 0.9), (0.2, 0.9, 0.4), (0.5,), (0.5, 0.5), (0.5, 0.5, 0.1)]
    assert [event.best.number for event in drawn(events)] == [1, 0], "of equals the first"
    assert model.contexts[-1].items[1] == Picture(drawn(events)[0].variations[1].image)


def test_the_question_is_about_the_last_instruction() -> None:
    model = Recording()
    judge = JudgeSettings(question="Is this so: {instruction}! Yes?")
    given = recipe(num_images=2, think=True, select="judge", judge=judge, refinement_prompts=("Make it red. ",))
    list(run_sequence(given, model))
    assert model.questions == [("Is this so: A cat! Yes?", None), ("Is this so: Make it red! Yes?", None)]


def test_the_judge_may_be_asked_how_likely_an_answer_is() -> None:
    model = Recording()
    judge = JudgeSettings(question="What is in the picture?", answer="It is {instruction}.")
    events = list(run_sequence(recipe(num_images=1, select="judge", judge=judge), model))
    assert model.questions == [("What is in the picture?", "It is A cat.")]
    (judged,) = [event for event in events if isinstance(event, Judged)]
    assert (judged.question, judged.answer) == model.questions[0]


def test_an_image_with_a_low_score_is_drawn_again_until_one_is_good_enough() -> None:
    model = Strict(0.1, 0.3, 0.8)
    events = list(run_sequence(recipe(num_images=1, retry=Retry(below=0.5, times=4)), model))
    assert [event.variations[0].score for event in drawn(events)] == [0.1, 0.3, 0.8]
    assert [type(event) for event in events if isinstance(event, ImageReady | Skipped)] == [ImageReady] * 3 + [
        Skipped
    ] * 2
    assert len({one.seed for event in drawn(events) for one in event.variations}) == 3
    assert len({context.items for context in model.contexts}) == 1, "back at the fork each time"


def test_when_no_try_is_good_enough_the_best_goes_on() -> None:
    model = Strict(0.1, 0.4, 0.2)
    events = list(run_sequence(recipe(num_images=2, retry=Retry(below=0.5, times=2)), model))
    first, second, third, _ = drawn(events)
    assert [event.variations[0].selected for event in (first, second, third)] == [True, True, False]
    assert model.contexts[-1].items[1] == Picture(second.image)


def test_a_retry_of_judged_variations_draws_them_all_again() -> None:
    model = Strict(0.1, 0.4, 0.3, 0.35)
    given = recipe(num_images=1, variations_per_image=2, select="judge", retry=Retry(below=0.5, times=1))
    events = drawn(list(run_sequence(given, model)))
    assert [[one.selected for one in event.variations] for event in events] == [[False, True], [False, False]]


def test_a_retry_in_a_tree_draws_the_low_branches_again() -> None:
    model = Strict(0.9, 0.1, 0.7)
    given = recipe(num_images=1, variations_per_image=2, select="tree", retry=Retry(below=0.5, times=2))
    first, again = drawn(list(run_sequence(given, model)))
    assert [one.selected for one in first.variations] == [True, True]
    assert [(one.number, one.score, one.selected) for one in again.variations] == [(1, 0.7, True)]


def test_branches_of_a_tree_share_what_they_have_in_common() -> None:
    def tokens_read(**fields: object) -> int:
        model = ScriptedModel()
        list(run_sequence(recipe(num_images=3, think=True, **fields), model))
        return model.tokens_read

    single, tree = tokens_read(), tokens_read(variations_per_image=2, select="tree")
    assert single < tree < 4 * single, "four branches, less than four runs"


def test_the_context_at_the_end_is_returned() -> None:
    def end_of(events: Generator[Event, None, Context]) -> tuple[list[Event], Context]:
        told: list[Event] = []
        while True:
            try:
                told.append(next(events))
            except StopIteration as end:
                return told, end.value

    events, context = end_of(run_sequence(recipe(num_images=2), ScriptedModel()))
    assert context.items[-1] == Picture(drawn(events)[-1].image)
    events, context = end_of(run_sequence(recipe(num_images=2, variations_per_image=2, select="tree"), ScriptedModel()))
    assert context.items[-1] == Picture(drawn(events)[-1].variations[-1].image)
    assert context.items[1] == Picture(drawn(events)[0].variations[-1].image)


def test_a_step_that_made_an_item_cannot_be_restored_without_it() -> None:
    with pytest.raises(ValueError, match="the output of step 2 can't be None"):
        list(run_sequence(recipe(), ScriptedModel(), done=[None, None]))


def test_seeds_differ_by_run_step_variation_and_purpose() -> None:
    seeds = {
        derive_seed(run, step, variation, purpose)
        for run in range(4)
        for step in range(4)
        for variation in range(4)
        for purpose in ("text", "noise")
    }
    assert len(seeds) == 4 * 4 * 4 * 2
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_a_seed_is_the_same_on_every_machine() -> None:
    assert derive_seed(7, 3, 0, "noise") == 998161800022229401
