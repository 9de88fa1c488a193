"""A value -> YAML that is read back as that very value, by our own reader and by others."""

import json
import re
from typing import Any

import yaml

from recipes.yaml_core import UnreadableError, YamlReader, scalar

_PLAIN = re.compile(r"[^\W_](?:[\w .,;/()'!?*+=-]|:(?=\S))*")
"""What needs no quotes at the beginning of a line's value, unless it looks like something else than a text."""
_ESCAPED = re.compile("[^ -~\xa1-\u2027\u202a-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff]")
"""Characters that some reader of YAML takes for the end of a line, or refuses."""
_STEP = 2
_TEXT_TAG = "tag:yaml.org,2002:str"
_OTHERS = yaml.SafeLoader("")


def scalar_lines(value: Any, indent: int) -> list[str]:  # noqa: ANN401 - any scalar
    """A scalar, or a list of them, as it stands behind `key:`; further lines are indented deeper than `indent`."""
    match value:
        case list():
            return [f"[{', '.join(in_line(item) for item in value)}]"]
        case str() if "\n" in value:
            return _block(value, indent) or [in_line(value)]
        case _:
            return [in_line(value, block=True)]


def in_line(value: Any, *, block: bool = False) -> str:  # noqa: ANN401 - any scalar
    """A scalar on one line; a text goes without quotes in `block` context where it can."""
    if not isinstance(value, str):
        return json.dumps(value)
    if block and _PLAIN.fullmatch(value) and not value.endswith(" ") and _is_text_everywhere(value):
        return value
    return _ESCAPED.sub(_escape, json.dumps(value, ensure_ascii=False))


def comment(text: str) -> str:
    """A text as a comment, on one line."""
    return f"# {_ESCAPED.sub(_escape, text)}"


def _is_text_everywhere(text: str) -> bool:
    """Whether neither YAML 1.2 nor 1.1 takes a plain text for a number, a date, a truth value or null."""
    tag = _OTHERS.resolve(yaml.ScalarNode, text, (True, False))  # type: ignore[no-untyped-call]  # not in the stubs
    return isinstance(scalar(text), str) and bool(tag == _TEXT_TAG)


def _escape(found: re.Match[str]) -> str:
    code = ord(found.group())
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"  # noqa: PLR2004 - what two digits hold


def _block(text: str, indent: int) -> list[str]:
    """A text of several lines as a block, if it is read back exactly; else nothing."""
    header = "|-" if not text.endswith("\n") else "|" if not text.endswith("\n\n") else "|+"
    if _ESCAPED.sub("", text) != text.replace("\n", ""):
        return []
    body = [f"{' ' * (indent + _STEP)}{line}" if line else "" for line in text.removesuffix("\n").split("\n")]
    lines = [header, *body]
    try:
        # Between two fields, as it will stand.
        read = YamlReader("\n".join([f"{' ' * indent}a: {lines[0]}", *body, f"{' ' * indent}b: 1"])).read()
    except UnreadableError:
        return []
    return lines if read == {"a": text, "b": 1} else []
