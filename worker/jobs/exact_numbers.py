"""JSON whose whole numbers survive readers that parse numbers as doubles, such as JavaScript and jq."""

from typing import Any

MAX_EXACT = 2**53


def exact_numbers(data: Any) -> Any:  # noqa: ANN401 - any JSON data
    """`data`, with each whole number that a double can't represent as a string."""
    if isinstance(data, dict):
        return {name: exact_numbers(value) for name, value in data.items()}
    if isinstance(data, list | tuple):
        return [exact_numbers(value) for value in data]
    return str(data) if isinstance(data, int) and abs(data) > MAX_EXACT else data
