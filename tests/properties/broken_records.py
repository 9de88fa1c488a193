"""What a worker and a reader find of a run in S3 and in Redis, in every state of repair."""

import contextlib
import json
import random
from collections.abc import Mapping
from functools import cache
from typing import Final

from core.scripted import SPEC, ScriptedModel
from recipes.faults import RecipeError
from recipes.model_spec import ModelSpec, ModelSpecError
from storage import keys
from storage.errors import CorruptRecordError, NewerRecordError, StorageError
from storage.events import parse
from storage.journal import Journal
from storage.objects.memory import MemoryStore
from storage.redis.record import RunRecord
from storage.redis.state import RunState
from tests.properties.broken_images import TOKENS as IMAGE_TOKENS
from tests.properties.cases import refused
from tests.properties.damage import damaged, damaged_data
from tests.properties.world import DOCUMENTS
from tests.worker.serving import UPLOADS, Silent, request, undisturbed
from worker.jobs.inputs import InputError
from worker.jobs.job import restore
from worker.jobs.result import result_of
from worker.serve.claim import Unclaimed
from worker.serve.run import run

RUN: Final = "run-1"
DOCUMENTED: Final = (StorageError, RecipeError, InputError)
JSON_TOKENS: Final = (
    *(
        b"[" * 3000,
        b'{"a":' * 3000,
        b"null",
        b"NaN",
        b"-Infinity",
        b"1e999",
        b"9" * 5000,
        b"\xff",
        b"\0",
        b'"',
        b"\\ud800",
        b"\\",
    ),
    *(b"true", b"{}", b"[]", b",", b":", b"-1", b"\xef\xbb\xbf", b'"step": 2,', b'"artifacts": [],', b'"extra": 1,'),
)


@cache
def _left(number: int) -> Mapping[str, bytes]:
    return undisturbed(request(RUN, DOCUMENTS[number]))


def bucket_case(rng: random.Random) -> bool:
    """Of a run's folder: whoever reads it or goes on with it does so, or says what is broken."""
    objects = dict(_left(rng.randrange(len(DOCUMENTS))))
    if rng.random() < 0.7:
        del objects[keys.MANIFEST]
        last = rng.randint(2, sum(name.startswith(keys.COMMITS) for name in objects))
        objects = {name: data for name, data in objects.items() if not (name > keys.commit(last) and name < "d")}
    for _ in range(rng.randint(1, 2)):
        name = rng.choice(list(objects))
        objects[name] = _hurt(objects[name], rng, IMAGE_TOKENS if name.endswith("png") else JSON_TOKENS)
    if rng.random() < 0.1:
        del objects[rng.choice(list(objects))]
    store = MemoryStore()
    for name, data in objects.items():
        store.put(f"{RUN}/{name}", data, content_type="")
    journal = Journal(store, "", RUN)
    return not refused(lambda: _go_on(journal), *DOCUMENTED)


def _hurt(data: bytes, rng: random.Random, tokens: tuple[bytes, ...]) -> bytes:
    if data.startswith(b"{") and rng.random() < 0.7:
        with contextlib.suppress(ValueError, RecursionError):  # it was hurt before
            return json.dumps(damaged_data(json.loads(data), rng)).encode("utf-8", "replace")
    return damaged(data, rng, tokens)


def _go_on(journal: Journal) -> None:
    """As a worker does that gets the message of this run."""
    manifest = journal.manifest()
    if manifest is None:
        job = restore(RUN, journal)
        if job is None:
            return
        manifest = run(
            job, model=ScriptedModel(), journal=journal, reporter=Silent(), claim=Unclaimed(), uploads=UPLOADS
        )
    json.dumps(result_of(manifest, journal))


HASH: Final = {
    "state": "running",
    "name": "test",
    "model": "scripted",
    "step": "3",
    "steps": "6",
    "fraction": "0.5",
    "eta_s": "1.5",
    "submitted_at": "1700000000.1",
    "started_at": "1700000000.1",
    "finished_at": "",
    "error": "",
}
EVENT: Final = {"type": "step", "at": 1.5, "step": 3, "kind": "write", "n": 4, "fraction": 0.5}


def redis_case(rng: random.Random) -> bool:
    """Of what Redis holds of a run, and of a model: it is read, or said to be broken."""
    match rng.randrange(4):
        case 0:
            fields = {name: _text(value, rng) if rng.random() < 0.2 else value for name, value in HASH.items()}
            return not refused(lambda: RunState.parse(RUN, fields), CorruptRecordError, naming=RUN)
        case 1:
            record = RunRecord(run_id=RUN, document={"name": "a", "context": [{"text": "x"}]}, submitted_at=1.0)
            text = _text(record.to_json(), rng)
            return not refused(lambda: RunRecord.from_json(RUN, text), CorruptRecordError, NewerRecordError, naming=RUN)
        case 2:
            text = _text(json.dumps(EVENT), rng)
            return not refused(lambda: parse("1-0", text), CorruptRecordError, naming="1-0")
        case _:
            text = _text(SPEC.to_json(), rng)
            return not refused(lambda: ModelSpec.from_json(text), ModelSpecError)


def _text(value: str, rng: random.Random) -> str:
    """Redis gives texts: what is no UTF-8 does not get here."""
    return _hurt(value.encode(), rng, JSON_TOKENS).decode("utf-8", "replace")
