"""A value -> YAML that this reader and others read as the same value."""

import json
import re
from typing import Any

import yaml

from recipes.yaml_core import UnreadableError, YamlReader, scalar

_PLAIN = re.compile(r"[^\W_](?:[\w .,;/()'!?*+=-]|:(?=\S))*")
"""Texts that need no quotes, unless they look like a value of another type."""
_ESCAPED = re.compile("[^ -~\xa1-\u2027\u202a-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff]")
"""Characters that some YAML reader takes for a line break, or rejects."""
STEP = 2
"""Spaces of one level of indentation."""
_TEXT_TAG = "tag:yaml.org,2002:str"
_OTHERS = yaml.SafeLoader("")


def scalar_lines(value: Any, indent: int) -> list[str]:  # noqa: ANN401 - any scalar
    """The lines of a scalar or a list of scalars after `key:`; further lines are indented deeper than `indent`."""
    match value:
        case list():
            return [f"[{', '.join(in_line(item) for item in value)}]"]
        case str() if "\n" in value:
            return _block(value, indent) or [in_line(value)]
        case _:
            return [in_line(value, block=True)]


def in_line(value: Any, *, block: bool = False) -> str:  # noqa: ANN401 - any scalar
    """A scalar on one line; in `block` context, a text has no quotes if possible."""
    if not isinstance(value, str):
        return json.dumps(value)
    if block and _PLAIN.fullmatch(value) and not value.endswith(" ") and _is_text_everywhere(value):
        return value
    return _ESCAPED.sub(_escape, json.dumps(value, ensure_ascii=False))


def comment(text: str) -> str:
    """A text as a one-line comment."""
    return f"# {_ESCAPED.sub(_escape, text)}"


def _is_text_everywhere(text: str) -> bool:
    """Whether a plain text is a text in YAML 1.2 and 1.1, not a number, a date, a boolean or null."""
    tag = _OTHERS.resolve(yaml.ScalarNode, text, (True, False))  # type: ignore[no-untyped-call]  # not in the stubs
    return isinstance(scalar(text), str) and bool(tag == _TEXT_TAG)


def _escape(found: re.Match[str]) -> str:
    code = ord(found.group())
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"  # noqa: PLR2004 - the limit of two digits


def _block(text: str, indent: int) -> list[str]:
    """A multi-line text as a block scalar if it is read back exactly; else empty."""
    header = "|-" if not text.endswith("\n") else "|" if not text.endswith("\n\n") else "|+"
    if _ESCAPED.sub("", text) != text.replace("\n", ""):
        return []
    body = [f"{' ' * (indent + STEP)}{line}" if line else "" for line in text.removesuffix("\n").split("\n")]
    lines = [header, *body]
    try:
        # Between two fields, as in the output.
        read = YamlReader("\n".join([f"{' ' * indent}a: {lines[0]}", *body, f"{' ' * indent}b: 1"])).read()
    except UnreadableError:
        return []
    return lines if read == {"a": text, "b": 1} else []
