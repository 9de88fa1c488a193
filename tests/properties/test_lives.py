"""Whatever happens to runs, in any order, their promises hold; `make properties` is the long form."""

import sys
from pathlib import Path

import pytest

from storage import keys
from tests.properties.attempts import Trouble
from tests.properties.campaign import Scale, run_lives, table
from tests.properties.promises import Broken
from tests.properties.world import DOCUMENTS, World
from worker.local.services import LocalServices

SHORT = Scale(seed=20, steps=150, shares=0)


def test_every_promise_holds_at_every_step_of_a_life(
    services: LocalServices, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    outcome = run_lives(services, tmp_path, SHORT)
    with capsys.disabled():
        sys.stdout.write(f"\n{table(outcome)}\n")
    assert outcome.steps.total() >= SHORT.steps


def test_a_late_worker_is_told_and_its_run_ends_as_if_it_never_was(services: LocalServices, tmp_path: Path) -> None:
    world = World(services, tmp_path)
    run_id = world.submit(DOCUMENTS[0])
    world.take()
    (late,) = world.attempts
    world.go_on(late, 3)
    world.let_leases_lapse()
    world.reconcile()
    world.take()
    world.go_on(world.attempts[1], 5)
    world.drain(world.attempts[1])
    world.go_on(late, 2)
    assert late.ended == "lease lost"
    world.bring_all_to_an_end()
    assert world.runs[run_id].look().state == "succeeded"
    world.close()


def test_a_worker_that_dies_in_the_middle_of_a_call_leaves_a_run_that_goes_on(
    services: LocalServices, tmp_path: Path
) -> None:
    world = World(services, tmp_path)
    run_id = world.submit(DOCUMENTS[-1])
    for calls in range(0, 30, 5):
        world.take([Trouble(service="S3", calls=calls, effect="after", kills=True)])
        for attempt in [*world.attempts]:
            world.go_on(attempt, 10**6)
        world.let_leases_lapse()
        world.reconcile()
        world.look()
        if not world.waiting:
            break
    world.bring_all_to_an_end()
    assert world.runs[run_id].look().state == "succeeded"
    world.close()


@pytest.mark.parametrize(
    ("name", "words"),
    [
        (keys.commit(1), "differs"),
        (keys.commit(5), "a gap"),
        ("steps/009-image.png", "extra"),
        (keys.MANIFEST, "a manifest without"),
    ],
)
def test_a_folder_that_is_not_as_promised_is_seen(
    services: LocalServices, tmp_path: Path, name: str, words: str
) -> None:
    world = World(services, tmp_path)
    run_id = world.submit(DOCUMENTS[0])
    run = world.runs[run_id]
    right = run.expected.get(name, b"")
    world.store.put(f"served/{run_id}/{name}", b"{}" if words == "differs" else right, content_type="text/plain")
    with pytest.raises(Broken, match=words):
        world.look()
    world.close()


@pytest.mark.parametrize(
    ("events", "words"),
    [
        ([("step", {"step": 2})], "is step 2, 0 is due"),
        ([("succeeded", {}), ("log", {})], "after the end"),
        ([("artifact", {"sha256": "0", "step": 2})], r"due is \[\(2, "),
    ],
)
def test_a_stream_that_is_not_as_promised_is_seen(
    services: LocalServices, tmp_path: Path, events: list[tuple[str, dict[str, object]]], words: str
) -> None:
    world = World(services, tmp_path)
    run = world.runs[world.submit(DOCUMENTS[0])]
    world.look()
    *before, last = [{"type": kind, "n": n, "fraction": 0, **fields} for n, (kind, fields) in enumerate(events, 2)]
    for event in before:
        run.follow(event)
    with pytest.raises(Broken, match=words):
        run.follow(last)
    world.close()
