"""Text as it may be shown: without control characters, and without those that reorder what stands around it."""

import re

_HIDDEN = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
"""C0 but tab and line breaks, DEL, C1, and the bidirectional embeddings, overrides and isolates."""


def printable(text: str) -> str:
    """`text` without hidden control characters. Right-to-left text and the marks U+200E and U+200F stay."""
    return _HIDDEN.sub("", text)


def printable_json(text: str) -> str:
    """A JSON document with such characters as escapes, so that it still means the same."""
    return _HIDDEN.sub(lambda found: f"\\u{ord(found[0]):04x}", text)
