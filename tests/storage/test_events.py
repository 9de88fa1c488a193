"""Events: written and read as the same values, by this release and beside 0.1.0."""

import json
from typing import Any

import pytest

from storage.errors import CorruptRecordError
from storage.events import (
    EVENTS,
    ArtifactStored,
    Cancelled,
    Denoised,
    Failed,
    Gap,
    Judged,
    Loading,
    Queued,
    RunEvent,
    Started,
    StepStarted,
    Succeeded,
    TextDelta,
    UnknownEvent,
    parse,
)
from tools import event_schema
from worker.settings import PROJECT

ID = "1700000000000-0"
ENVELOPE: dict[str, Any] = {"id": ID, "n": 4, "at": 1.5, "fraction": 0.25}
STORED: dict[str, Any] = {"key": "r/3.png", "url": "http://s3/3.png", "size": 9, "sha256": "aa"}
SAMPLES: tuple[RunEvent, ...] = (
    Queued(**ENVELOPE, name="küste", model="tiny", reason="the worker shuts down"),
    Queued(**ENVELOPE),
    Loading(**ENVELOPE, done=1, total=2),
    Started(**ENVELOPE, name="küste", model="tiny", steps=6, done=2),
    StepStarted(**ENVELOPE, eta_s=2.5, step=1, kind="read", role="initial", text="A cat", path="0.1"),
    StepStarted(**ENVELOPE, step=3, kind="draw", role="image", index=0, variations=2, attempt=1),
    StepStarted(**ENVELOPE, step=4, kind="forget"),
    TextDelta(**ENVELOPE, step=2, delta="Wellen\n"),
    Denoised(**ENVELOPE, step=3, done=3, total=7, preview="data:image/jpeg;base64,AA=="),
    Denoised(**ENVELOPE, step=3, done=4, total=7),
    Judged(**ENVELOPE, step=3, question="A cat?", scores=(0.25, 1.0)),
    Judged(**ENVELOPE, step=3, question="A cat?", answer="A cat", scores=()),
    ArtifactStored(**ENVELOPE, step=2, role="thinking", **STORED),
    ArtifactStored(
        **ENVELOPE, step=3, role="image", **STORED, index=0, path="", variation=1, attempt=0, score=0.5, selected=False
    ),
    Succeeded(**ENVELOPE, manifest="s3://b/manifest.json"),
    Failed(**ENVELOPE, error="out of memory"),
    Cancelled(**ENVELOPE),
    Gap(**ENVELOPE, state="running", name="küste", model="tiny", step=3, steps=6),
)


def test_there_is_a_sample_of_every_type() -> None:
    assert {type(event) for event in SAMPLES} == set(EVENTS)
    assert len({kind.type for kind in EVENTS}) == len(EVENTS)


@pytest.mark.parametrize("event", SAMPLES, ids=lambda event: event.type)
def test_an_event_is_read_back_as_it_was_written(event: RunEvent) -> None:
    assert parse(ID, event.to_json()) == event
    assert None not in event.to_document().values()


# As 0.1.0 leaves them in Redis.
OF_0_1_0: tuple[tuple[str, RunEvent], ...] = (
    ('{"type": "queued", "at": 1.5, "name": "test", "model": "tiny", "n": 1, "fraction": 0}', Queued()),
    ('{"type": "loading", "at": 1.5, "done": 1, "total": 2,"n":1,"fraction":0}', Loading(done=1, total=2)),
    (
        '{"type": "started", "at": 1.5, "name": "test", "model": "tiny", "steps": 6, "done": 2,"n":1,"fraction":0}',
        Started(steps=6, done=2),
    ),
    (
        '{"type": "step", "at": 1.5, "step": 1, "kind": "read", "role": "initial", "text": "x","n":1,"fraction":0}',
        StepStarted(step=1, kind="read", role="initial", text="x"),
    ),
    (
        '{"type": "step", "at": 1.5, "step": 3, "kind": "draw", "role": "image", "index": 0, "variations": 2, '
        '"attempt": 0, "path": "0.1","n":1,"fraction":0}',
        StepStarted(step=3, kind="draw", role="image", index=0, variations=2, attempt=0, path="0.1"),
    ),
    ('{"type": "text", "at": 1.5, "step": 2, "delta": "a","n":1,"fraction":0}', TextDelta(step=2, delta="a")),
    (
        '{"type": "denoised", "at": 1.5, "step": 3, "done": 1, "total": 2,"n":1,"fraction":0}',
        Denoised(step=3, done=1, total=2),
    ),
    (
        '{"type": "judged", "at": 1.5, "step": 3, "question": "q", "answer": null, "scores": [1, 0.5],'
        '"n":1,"fraction":0}',
        Judged(step=3, question="q", scores=(1.0, 0.5)),
    ),
    (
        '{"type": "artifact", "at": 1.5, "step": 2, "role": "thinking", "key": "k", "url": "u", "size": 3, '
        '"sha256": "aa","n":1,"fraction":0}',
        ArtifactStored(step=2, role="thinking", key="k", url="u", size=3, sha256="aa"),
    ),
    (
        '{"type": "artifact", "at": 1.5, "step": 3, "role": "image", "key": "k", "url": "u", "size": 3, '
        '"sha256": "aa", "index": 0, "path": "", "variation": 1, "attempt": 0, "score": null, "chosen": false,'
        '"n":1,"fraction":0}',
        ArtifactStored(
            step=3,
            role="image",
            key="k",
            url="u",
            size=3,
            sha256="aa",
            index=0,
            path="",
            variation=1,
            attempt=0,
            selected=False,
        ),
    ),
    (
        '{"type": "succeeded", "at": 1.5, "manifest": "s3://b/m","n":1,"fraction":1.000000}',
        Succeeded(manifest="s3://b/m"),
    ),
    ('{"type": "failed", "at": 1.5, "error": "no","n":1,"fraction":0}', Failed(error="no")),
    ('{"type": "cancelled", "at": 1.5,"n":1,"fraction":0}', Cancelled()),
)


@pytest.mark.parametrize(("text", "event"), OF_0_1_0, ids=lambda value: getattr(value, "type", ""))
def test_an_event_of_release_0_1_0_is_read(text: str, event: RunEvent) -> None:
    about = {name: value for name, value in (("name", "test"), ("model", "tiny")) if f'"{name}"' in text}
    assert parse("1-0", text) == type(event)(**{**vars(event), **about, "id": "1-0", "n": 1, "at": 1.5})


def test_the_mark_of_a_preview_that_is_stored_apart_is_read() -> None:
    event = parse(ID, '{"type": "denoised", "at": 1.5, "step": 3, "done": 1, "total": 2, "preview": true,"n":1}')
    assert isinstance(event, Denoised)
    assert event.preview == ""


def test_fields_of_a_later_release_are_ignored() -> None:
    document = {**SAMPLES[0].to_document(), "later": {"a": [1]}}
    assert parse(ID, json.dumps(document)) == SAMPLES[0]


@pytest.mark.parametrize("changed", [{"type": "log", "message": "x"}, {"version": 2}])
def test_an_event_of_a_later_release_is_passed_on_as_it_is(changed: dict[str, object]) -> None:
    document = {**SAMPLES[0].to_document(), "later": 1, **changed}
    event = parse(ID, json.dumps(document))
    assert isinstance(event, UnknownEvent)
    assert (event.type, event.id, event.n, event.fraction) == (document["type"], ID, 4, 0.25)
    assert json.loads(event.to_json()) == document


@pytest.mark.parametrize(
    "text",
    [
        *("", "5", "[]", "{", "[" * 5000, '{"n": 1}', '{"type": "text"}'),
        *('{"n": "1", "type": "log"}', '{"n": 1, "type": null}', '{"n": NaN, "type": "log"}'),
        *('{"n": 1, "type": "text", "step": 1}', '{"n": 1, "type": "text", "step": "1", "delta": "a"}'),
        *('{"n": 1, "type": "log", "at": 1e999}', '{"n": 1, "type": "queued", "version": "2"}'),
    ],
)
def test_an_event_of_another_program_is_named(text: str) -> None:
    with pytest.raises(CorruptRecordError, match="event 1-0: not an event of this program"):
        parse("1-0", text)


def test_only_the_end_of_a_run_is_final() -> None:
    assert {event.type for event in SAMPLES if event.is_final} == {"succeeded", "failed", "cancelled"}


def test_the_stored_schema_is_current() -> None:
    stored = (PROJECT / "storage" / "events.schema.json").read_text(encoding="utf-8")
    assert stored == event_schema.schema_text(), "run: python -m tools.event_schema > storage/events.schema.json"


@pytest.mark.parametrize("event", SAMPLES, ids=lambda event: event.type)
def test_an_event_has_the_fields_of_its_schema(event: RunEvent) -> None:
    schema = event_schema.json_schema()["$defs"][type(event).__name__]
    types = {"string": str, "integer": int, "number": int | float, "boolean": bool, "array": list}
    document = json.loads(event.to_json())
    assert set(schema["required"]) <= document.keys() <= schema["properties"].keys()
    assert document["type"] == schema["properties"]["type"]["const"]
    for name, value in document.items():
        assert isinstance(value, types[schema["properties"][name]["type"]]), name
        assert schema["properties"][name]["description"]
