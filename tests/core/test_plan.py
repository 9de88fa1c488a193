"""The plan holds the rules of a sequence."""

from itertools import pairwise

from core.plan import Draw, Evict, Read, Step, Write, plan
from recipes.recipe import ImageItem, Recipe, Retry, TextItem


def recipe(*context: TextItem | ImageItem, **fields: object) -> Recipe:
    return Recipe(name="test", context=context or (TextItem(text="A cat"),), **fields)  # type: ignore[arg-type]  # a builder


def outline(steps: tuple[Step, ...]) -> list[str]:
    """One word a step."""
    words = []
    for step in steps:
        match step:
            case Read(role=role, item=ImageItem()):
                words.append(f"{role}-image")
            case Read(role="initial"):
                words.append("initial-text")
            case Read():
                words.append("given")
            case Write(role=role):
                words.append(role)
            case Draw(index=index, attempt=attempt):
                words.append(f"image-{index}" + "-again" * bool(attempt))
            case Evict(dropped=dropped):
                words.append(f"forget-{','.join(map(str, dropped))}")
    return words


def test_thinking_comes_before_each_image_and_refinement_between_images() -> None:
    steps = plan(recipe(num_images=2, think=True))
    assert outline(steps) == ["initial-text", "thinking", "image-0", "refinement", "thinking", "image-1"]


def test_without_thinking_texts_and_images_alternate() -> None:
    steps = plan(recipe(num_images=3))
    assert outline(steps) == ["initial-text", "image-0", "refinement", "image-1", "refinement", "image-2"]


def test_a_context_that_ends_with_a_thought_is_drawn_at_once() -> None:
    given = TextItem(text="A cat"), TextItem(text="It sits on a wall", thought=True)
    steps = plan(recipe(*given, num_images=2, think=True))
    assert outline(steps) == ["initial-text", "initial-text", "image-0", "refinement", "thinking", "image-1"]
    assert [step.shows for step in steps if isinstance(step, Draw)] == [1, 4]


def test_so_many_of_the_first_items_can_be_pinned() -> None:
    given = TextItem(text="A cat"), TextItem(text="and"), TextItem(text="a dog")
    steps = plan(recipe(*given, num_images=4, max_context_items=4, pin=1))
    forgotten = [step.dropped for step in steps if isinstance(step, Evict)]
    assert forgotten[:3] == [(2,), (3,), (4,)]
    assert all(step.context[:1] == (1,) for step in steps if step.number > 1)


def test_steps_are_numbered_from_one_without_gaps() -> None:
    steps = plan(recipe(num_images=7, think=True, max_context_items=3))
    assert [step.number for step in steps] == list(range(1, len(steps) + 1))


def test_a_context_that_ends_with_an_image_is_refined_first() -> None:
    steps = plan(recipe(TextItem(text="Look"), ImageItem(image="photo.png"), num_images=2))
    assert outline(steps) == ["initial-text", "initial-image", "refinement", "image-0", "refinement", "image-1"]


def test_a_context_that_ends_with_a_text_is_drawn_first_even_after_an_image() -> None:
    steps = plan(recipe(ImageItem(image="photo.png"), TextItem(text="Make it warmer")))
    assert outline(steps) == ["initial-image", "initial-text", "image-0"]


def test_given_refinements_come_first_and_in_order() -> None:
    steps = plan(recipe(num_images=4, refinement_prompts=("One", "Two")))
    assert outline(steps)[1:] == ["image-0", "given", "image-1", "given", "image-2", "refinement", "image-3"]
    given = [step.item for step in steps if isinstance(step, Read) and step.role == "refinement"]
    assert given == [TextItem(text="One"), TextItem(text="Two")]


def test_the_instruction_goes_to_written_refinements_alone() -> None:
    steps = plan(recipe(num_images=2, think=True, refine_instruction="Be bold"))
    assert [(step.role, step.instruction) for step in steps if isinstance(step, Write)] == [
        ("thinking", None),
        ("refinement", "Be bold"),
        ("thinking", None),
    ]


def test_the_oldest_unpinned_items_are_forgotten_before_the_next_generation() -> None:
    steps = plan(recipe(num_images=4, max_context_items=3))
    assert outline(steps) == [
        "initial-text",
        "image-0",
        "refinement",
        "image-1",
        "forget-2",
        "refinement",
        "forget-3",
        "image-2",
        "forget-4",
        "refinement",
        "forget-6",
        "image-3",
    ]


def test_unpinned_initial_items_are_forgotten_too() -> None:
    steps = plan(recipe(num_images=2, max_context_items=2, pin="none"))
    assert [step.dropped for step in steps if isinstance(step, Evict)] == [(1,)]


def test_no_generation_sees_more_items_than_allowed() -> None:
    for limit in range(2, 8):
        held: set[int] = set()
        for step in plan(recipe(num_images=12, think=True, max_context_items=limit)):
            if isinstance(step, Evict):
                assert set(step.dropped) <= held
                held -= set(step.dropped)
                continue
            if isinstance(step, Write | Draw):
                assert len(held) <= limit
                assert 1 in held, "the initial context is pinned"
            held.add(step.number)


def test_above_the_limit_half_of_what_is_not_pinned_goes_at_once() -> None:
    steps = plan(recipe(num_images=20, think=True, max_context_items=9))
    forgets = [step for step in steps if isinstance(step, Evict)]
    assert {len(step.context) - len(step.dropped) for step in forgets} == {1 + 4}
    again = sum(len(step.context) - len(step.dropped) - 1 for step in forgets)
    assert again <= len(steps), "no item is read again more than once, on average"


def test_the_last_image_its_refinement_and_the_thought_stay() -> None:
    for limit in range(4, 12):
        steps = {step.number: step for step in plan(recipe(num_images=12, think=True, max_context_items=limit))}
        for step in steps.values():
            if isinstance(step, Draw) and step.index:
                image, refinement, thought = (steps[number] for number in step.context[-3:])
                assert isinstance(image, Draw)
                assert isinstance(refinement, Write)
                assert isinstance(thought, Write)
                assert (refinement.role, thought.role) == ("refinement", "thinking")


def test_a_null_among_the_given_refinements_is_written_by_the_model() -> None:
    steps = plan(recipe(num_images=4, refinement_prompts=(None, "Two", None)))
    assert outline(steps)[1:] == ["image-0", "refinement", "image-1", "given", "image-2", "refinement", "image-3"]


def test_further_tries_follow_each_image_and_see_what_the_first_saw() -> None:
    steps = plan(recipe(num_images=2, think=True, retry=Retry(below=0.5, times=2)))
    assert outline(steps)[1:6] == ["thinking", "image-0", "image-0-again", "image-0-again", "refinement"]
    first, *again = [step for step in steps if isinstance(step, Draw)][:3]
    assert [(step.attempt, step.item, step.context) for step in again] == [
        (attempt, first.number, first.context) for attempt in (1, 2)
    ]
    assert steps[-1].context == (1, 2, 3, 6, 7), "contexts name an image by its first try"


def test_a_tree_goes_on_from_each_variation_depth_first() -> None:
    steps = plan(recipe(num_images=2, think=True, variations_per_image=2, select="tree"))
    assert [(step.path, word) for step, word in zip(steps, outline(steps), strict=True)] == [
        ((), "initial-text"),
        ((), "thinking"),
        ((), "image-0"),
        *[(path, word) for path in ((0,), (1,)) for word in ("refinement", "thinking", "image-1")],
    ]
    assert [step.context for step in steps if isinstance(step, Draw)] == [(1, 2), (1, 2, 3, 4, 5), (1, 2, 3, 7, 8)]
    assert [step.number for step in steps] == list(range(1, 10))


def test_each_branch_of_a_tree_uses_the_given_refinements_and_forgets_on_its_own() -> None:
    given = recipe(
        num_images=3, variations_per_image=2, select="tree", refinement_prompts=("One", None), max_context_items=4
    )
    for path in ((0, 0), (0, 1), (1, 0), (1, 1)):
        line = [step for step in plan(given) if step.path == path[: len(step.path)]]
        assert [word for word in outline(tuple(line)) if not word.startswith("forget")] == [
            "initial-text",
            "image-0",
            "given",
            "image-1",
            "refinement",
            "image-2",
        ]
        assert max(len(step.context) for step in line if isinstance(step, Write | Draw)) <= 4


def test_an_image_is_to_show_the_last_text_that_is_no_thought() -> None:
    steps = {step.number: step for step in plan(recipe(num_images=3, think=True, refinement_prompts=("Red",)))}
    shown = [steps[step.shows] for step in steps.values() if isinstance(step, Draw)]
    assert [(type(step), step.role) for step in shown if isinstance(step, Read | Write)] == [
        (Read, "initial"),
        (Read, "refinement"),
        (Write, "refinement"),
    ]


def test_a_step_continues_from_the_context_after_the_one_before() -> None:
    steps = plan(recipe(num_images=5, think=True, max_context_items=4, retry=Retry(below=0.5, times=1)))
    assert any(isinstance(step, Evict) for step in steps)
    further = {step.number for step in steps if isinstance(step, Draw) and step.attempt}
    for before, step in pairwise(steps):
        assert step.context == (before.context if step.number in further else before.after)
