"""The JSON Schema of a run's events, and their table in the documentation, generated from storage/events.py.

python -m tools.event_schema > storage/events.schema.json
python -m tools.event_schema --docs > docs/events.md
"""

import inspect
import json
import sys
from collections.abc import Mapping
from typing import Any

from pydantic import TypeAdapter

from storage.events import EVENTS, RunEvent, StepEvent

_NULL = {"type": "null"}
_NOT_SHOWN = {"title", "default", "anyOf"}
_INTRODUCTION = """\
# Events of a run

`Client.watch(run_id)` yields the events of a run as objects of `storage/events.py`; `autoseq watch --json` prints them
as JSON, one per line, and a web backend sends `event.to_json()` to browsers. Their JSON Schema is
[storage/events.schema.json](../storage/events.schema.json).

Fields without a value are left out of the JSON. A later release may add fields and types of events: ignore those you do
not know. In Python, an event of a type that this release does not know is an `UnknownEvent`.

If Redis loses its data while a worker runs the run, the worker publishes the run again, and a reader that follows it
gets the new stream from its start: `started`, each `artifact` in the order of its step, then what happens next. The
numbers `n` begin at 1 again, and `fraction` may be lower than before. An `artifact` whose `key` you have is the same.

This page is generated: `python -m tools.event_schema --docs > docs/events.md`.
"""


def json_schema() -> dict[str, Any]:
    """The schema (draft 2020-12) of an event's JSON."""
    kinds = [_schema_of(kind) for kind in EVENTS]
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Event",
        "description": "An event of a run.",
        "oneOf": [{"$ref": f"#/$defs/{kind['title']}"} for kind in kinds],
        "$defs": {kind["title"]: kind for kind in kinds},
    }


def schema_text() -> str:
    """The schema as events.schema.json holds it."""
    return json.dumps(json_schema(), indent=2, ensure_ascii=False) + "\n"


def docs_text() -> str:
    """The page docs/events.md."""
    envelope = _schema_of(RunEvent)["properties"]
    parts = [_INTRODUCTION, "## Every event\n\n" + _table(envelope)]
    for kind in EVENTS:
        own = {name: field for name, field in _schema_of(kind)["properties"].items() if name not in envelope}
        parts += [
            f"## `{kind.type}`\n\n`{kind.__name__}`: {inspect.getdoc(kind)}\n" + ("\n" + _table(own) if own else "")
        ]
    return "\n".join(parts)


def _schema_of(kind: type[RunEvent]) -> dict[str, Any]:
    """The schema of what this release writes: every field except those that are None."""
    schema = TypeAdapter(kind).json_schema()
    fields = schema["properties"]
    for base in (StepEvent, RunEvent):  # pydantic finds only the docstrings of a class's own fields
        inherited = TypeAdapter(base).json_schema()["properties"]
        for name in fields.keys() & inherited.keys():
            fields[name] = {**inherited[name], **fields[name]}
    required = []
    for name, field in fields.items():
        options = field.get("anyOf", [])
        value: dict[str, Any] = next((option for option in options if option != _NULL), {})
        fields[name] = {**{key: what for key, what in field.items() if key not in _NOT_SHOWN}, **value}
        if not options:
            required.append(name)
    return {**schema, "required": required}


def _table(fields: Mapping[str, Any]) -> str:
    lines = ["| field | type | meaning |", "|---|---|---|"]
    lines += [f"| `{name}` | {_type_of(field)} | {field['description']} |" for name, field in fields.items()]
    return "\n".join(lines) + "\n"


def _type_of(field: Mapping[str, Any]) -> str:
    items = field.get("items", {}).get("type")
    return f"array of {items}s" if items else str(field["type"])


if __name__ == "__main__":
    sys.stdout.write(docs_text() if "--docs" in sys.argv[1:] else schema_text())
