"""A model spec computes image sizes, and can be read by older and newer releases."""

import json
from dataclasses import replace

import pytest

from core.scripted import SPEC
from recipes.model_spec import MAX_PIXELS, ModelSpec, ModelSpecError, ResizeRule, TrainingLimits

OFFICIAL = ResizeRule(max_px=1024, min_px=512, stride_px=16)
LIMITED = replace(SPEC, limits=TrainingLimits(min_side_px=512, max_side_px=1024))


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ((1024, 1024), (1024, 1024)),
        ((2048, 1024), (1024, 512)),
        ((4000, 1000), (1024, 256)),  # the longest side is the last word
        ((100, 100), (512, 512)),
        ((640, 480), (688, 512)),
        ((1000, 600), (992, 608)),  # half a patch goes to the even number
    ],
)
def test_images_are_resized_to_the_grid(given: tuple[int, int], expected: tuple[int, int]) -> None:
    assert OFFICIAL.size(*given) == expected
    assert OFFICIAL.size(*reversed(given)) == tuple(reversed(expected))


def test_no_image_gets_more_pixels_than_there_is_room_for() -> None:
    wide = ResizeRule(max_px=100_000, min_px=14, stride_px=14)
    width, height = wide.size(9_000, 9_000)
    assert width * height <= MAX_PIXELS * 1.01
    assert wide.block_tokens(140, 140) == 2 + 10 * 10


@pytest.mark.parametrize("spec", [SPEC, LIMITED], ids=["without-limits", "with-limits"])
def test_a_spec_is_read_back_as_it_was_written(spec: ModelSpec) -> None:
    assert ModelSpec.from_json(spec.to_json()) == spec


def test_release_0_1_gets_only_the_fields_that_it_knows() -> None:
    written = json.loads(LIMITED.to_json_0_1())
    assert list(written) == [
        "name",
        "vae",
        "vit",
        "max_side_px",
        "text_defaults",
        "image_defaults",
        "kv_values_per_token",
    ]
    assert written == {name: json.loads(LIMITED.to_json())[name] for name in written}
    assert ModelSpec.from_json(LIMITED.to_json_0_1()) == SPEC


def test_fields_of_a_later_release_are_ignored() -> None:
    data = json.loads(LIMITED.to_json())
    for fields in (data, data["vae"], data["vit"], data["limits"]):
        fields["later"] = {"of": "any type"}
    assert ModelSpec.from_json(json.dumps(data)) == LIMITED


@pytest.mark.parametrize(
    "changed",
    [
        {"vae": 5},
        {"vit": {}},
        {"max_side_px": "64"},
        {"name": None},
        {"image_defaults": []},
        {"limits": None},
        {"limits": {"max_side_px": "64"}},
        {"limits": {"max_prompt_chars": 0}},
    ],
)
def test_a_text_that_is_no_spec_is_refused(changed: dict[str, object]) -> None:
    with pytest.raises(ModelSpecError, match="not a model spec"):
        ModelSpec.from_json(json.dumps({**json.loads(SPEC.to_json()), **changed}))


@pytest.mark.parametrize("missing", ["name", "vae", "kv_values_per_token"])
def test_a_spec_without_a_field_of_release_0_1_is_refused(missing: str) -> None:
    data = json.loads(SPEC.to_json())
    del data[missing]
    with pytest.raises(ModelSpecError, match=missing):
        ModelSpec.from_json(json.dumps(data))
