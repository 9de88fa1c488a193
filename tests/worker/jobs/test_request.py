"""A run can be asked for by position or by name, and wrong arguments are named."""

import pytest

from storage.redis.record import RunRecord
from worker.jobs.request import RequestError, RunRequest


def test_a_request_survives_being_sent() -> None:
    asked = RunRequest(
        run_id="r1",
        recipe={"name": "a"},
        overrides={"seed": 3},
        variables={"animal": "fox"},
        priority="high",
        idempotency_key="order-7",
    )
    assert RunRequest.parse("r1", (), asked.kwargs()) == asked


def test_the_recipe_may_come_by_position() -> None:
    assert RunRequest.parse("r1", ("magical-forest",), {}) == RunRequest(
        run_id="r1", recipe="magical-forest", overrides={}
    )


@pytest.mark.parametrize(
    ("args", "kwargs", "message"),
    [
        ((), {}, "recipe: must be the name of a recipe"),
        ((), {"recipe": 7}, "recipe: must be the name of a recipe"),
        ((), {"recipe": "a", "overides": {}}, "got overides"),
        (("a", {}, "high", "key", {}, "more"), {}, "too many arguments"),
        ((), {"recipe": "a", "overrides": [1]}, "overrides: must be a JSON object"),
        ((), {"recipe": "a", "variables": "fox"}, "variables: must be a JSON object"),
        ((), {"recipe": "a", "priority": "urgent"}, "'urgent' is none of high, normal, low"),
        ((), {"recipe": "a", "idempotency_key": 5}, "idempotency_key: must be a string"),
        (
            (),
            {"recipe": "a", "idempotency_key": "two words"},
            "idempotency key 'two words': must be 1 to 255 printable",
        ),
    ],
)
def test_wrong_arguments_are_named(args: tuple[object, ...], kwargs: dict[str, object], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        RunRequest.parse("r1", args, kwargs)


def test_what_no_record_can_hold_is_refused() -> None:
    deep: dict[str, object] = {}
    for _ in range(2000):
        deep = {"a": deep}
    for recipe in ({"name": "\ud800"}, deep, {"name": {1, 2}}):
        with pytest.raises(RequestError, match="recipe: can't be written as JSON in UTF-8"):
            RunRequest.parse("r1", (recipe,), {})
    with pytest.raises(RequestError, match="overrides: can't be written"):
        RunRequest.parse("r1", ("a", {"name": "\udfff"}), {})


def test_a_record_with_another_priority_is_no_request() -> None:
    record = RunRecord(run_id="r1", document="a", priority="urgent", submitted_at=1)
    with pytest.raises(RequestError, match="'urgent' is none of"):
        RunRequest.of(record)
