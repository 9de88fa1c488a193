"""The plan holds the rules of a sequence."""

from core.plan import Draw, Forget, Read, Step, Write, plan
from recipes.recipe import ImageItem, Recipe, TextItem


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
            case Draw(index=index):
                words.append(f"image-{index}")
            case Forget(dropped=dropped):
                words.append(f"forget-{','.join(map(str, dropped))}")
    return words


def test_thinking_comes_before_each_image_and_refinement_between_images() -> None:
    steps = plan(recipe(num_images=2, think=True))
    assert outline(steps) == ["initial-text", "thinking", "image-0", "refinement", "thinking", "image-1"]


def test_without_thinking_texts_and_images_alternate() -> None:
    steps = plan(recipe(num_images=3))
    assert outline(steps) == ["initial-text", "image-0", "refinement", "image-1", "refinement", "image-2"]


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
    assert [step.dropped for step in steps if isinstance(step, Forget)] == [(1,)]


def test_no_generation_sees_more_items_than_allowed() -> None:
    for limit in range(2, 8):
        held: set[int] = set()
        for step in plan(recipe(num_images=12, think=True, max_context_items=limit)):
            if isinstance(step, Forget):
                assert set(step.dropped) <= held
                held -= set(step.dropped)
                continue
            if isinstance(step, Write | Draw):
                assert len(held) <= limit
                assert 1 in held, "the initial context is pinned"
            held.add(step.number)
