"""Names become keys only when they can't leave their place."""

import pytest

from storage import keys
from storage.errors import InvalidNameError


@pytest.mark.parametrize("run_id", ["a", "7", "8f14e45f-ceea-467f-ab8d-0d3c1c5b0a11", "Run_1.b", "x" * 128])
def test_plain_run_ids_are_taken(run_id: str) -> None:
    assert keys.check_run_id(run_id) == run_id


@pytest.mark.parametrize("run_id", ["", ".", "..", "-a", "a/b", "a b", "a\n", "é", "a:events", "x" * 129])
def test_a_run_id_that_could_leave_its_folder_is_refused(run_id: str) -> None:
    with pytest.raises(InvalidNameError, match="letters, digits, dots, dashes or underscores"):
        keys.check_run_id(run_id)
    with pytest.raises(ValueError, match="run id"):
        keys.run_events(run_id)


def test_redis_keys_of_a_run_share_its_name() -> None:
    assert keys.run_state("r1") == "autoseq:run:r1"
    made = [make("r1") for make in (keys.run_events, keys.run_cancel, keys.run_record, keys.run_lease)]
    assert made == [f"autoseq:run:r1:{part}" for part in ("events", "cancel", "record", "lease")]


def test_s3_keys_sort_as_the_run_goes() -> None:
    assert keys.input_image(0) == "inputs/000.png"
    assert keys.step_text(3, "thinking") == "steps/003-thinking.txt"
    assert keys.step_image(4) == "steps/004-image.png"
    assert keys.step_image(4, (1,)) == "steps/004-image.v1.png"
    assert keys.step_image(4, (0, 1)) == "steps/004-image.v0.v1.png"
    assert keys.commit(3) == "commits/003.json"


@pytest.mark.parametrize(("prefix", "folder"), [("", "r1/"), ("runs", "runs/r1/"), ("team-a/runs", "team-a/runs/r1/")])
def test_a_run_has_a_folder_under_the_prefix(prefix: str, folder: str) -> None:
    assert keys.run_folder(prefix, "r1") == folder


@pytest.mark.parametrize("prefix", ["/", "a/", "/a", "a//b", "..", "a/../b", "a b"])
def test_a_crooked_prefix_is_refused(prefix: str) -> None:
    with pytest.raises(InvalidNameError, match="prefix"):
        keys.run_folder(prefix, "r1")


@pytest.mark.parametrize("role", ["", "Thinking", "../x", "a" * 33])
def test_a_role_is_a_plain_word(role: str) -> None:
    with pytest.raises(InvalidNameError, match="lower-case"):
        keys.step_text(1, role)


def test_an_idempotency_key_is_one_word() -> None:
    assert keys.idempotency("order/17") == "autoseq:idempotency:order/17"
    with pytest.raises(InvalidNameError, match="idempotency key"):
        keys.idempotency("order 17")
