"""Text that is safe to display: without control characters and without those that reorder the text around them."""

import re

_HIDDEN = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
"""C0 except tab and line breaks, DEL, C1, and the bidirectional embeddings, overrides and isolates."""


def printable(text: str) -> str:
    """`text` without these characters. Right-to-left text and the marks U+200E and U+200F are kept."""
    return _HIDDEN.sub("", text)


def printable_json(text: str) -> str:
    """A JSON document with these characters escaped, so that its meaning is the same."""
    return _HIDDEN.sub(lambda found: f"\\u{ord(found[0]):04x}", text)
