"""Damage to bytes and to JSON-like data, drawn from random numbers: the same seed does the same damage."""

import random
from collections.abc import Callable, Sequence
from typing import Any, Final

ODD_VALUES: Final[Sequence[Any]] = (
    *(
        None,
        True,
        False,
        0,
        -1,
        1,
        2**31,
        2**63,
        2**63 - 1,
        2**64,
        10**80,
        -(10**80),
        0.0,
        -0.0,
        0.5,
        1.5,
        1e308,
        5e-324,
    ),
    *(float("inf"), float("nan"), "", " ", "null", "0x10", "1e999", "a" * 9000, "\0", "\ud800", "é\u2028\u202e", "☃🎨"),
    *(
        [],
        {},
        [[]],
        [None],
        [1, 2, 3],
        {"": None},
        {"text": "x", "image": "y"},
        [{"text": "A"}],
        {"a": {"b": {"c": {}}}},
    ),
)
"""What stands in few recipes, and in nobody's tests."""


def damaged(data: bytes, rng: random.Random, tokens: Sequence[bytes] = (b"",), most: int = 4) -> bytes:
    """`data` with one to `most` wounds; `tokens` are what hurts its format."""
    for _ in range(rng.randint(1, most)):
        data = rng.choice(_WOUNDS)(data, rng, tokens)
    return data


def damaged_data(value: Any, rng: random.Random, most: int = 3) -> Any:
    """A copy of JSON-like data with some of its parts removed, renamed, moved or replaced."""
    for _ in range(rng.randint(1, most)):
        value = _damaged_once(value, rng)
    return value


def nested(rng: random.Random, depth: int) -> Any:
    """Lists and mappings in each other."""
    value: Any = rng.choice(ODD_VALUES)
    for _ in range(depth):
        value = [value] if rng.random() < 0.5 else {rng.choice(("a", "text", "context")): value}
    return value


def _damaged_once(value: Any, rng: random.Random) -> Any:
    inside = bool(value) and rng.random() < 0.8
    if inside and isinstance(value, dict):
        return _damaged_mapping(value, rng)
    if inside and isinstance(value, list):
        return _damaged_list(value, rng)
    return rng.choice(_REPLACEMENTS)(value, rng)


def _damaged_mapping(value: dict[str, Any], rng: random.Random) -> dict[str, Any]:
    key = rng.choice(list(value))
    others = {name: item for name, item in value.items() if name != key}
    match rng.randrange(8):
        case 0:
            return others
        case 1:
            return {**others, _bent(str(key), rng): value[key]}
        case 2:
            return {**value, _bent(str(key), rng): rng.choice(ODD_VALUES)}
        case _:
            return {**value, key: _damaged_once(value[key], rng)}


def _damaged_list(value: list[Any], rng: random.Random) -> list[Any]:
    index = rng.randrange(len(value))
    match rng.randrange(8):
        case 0:
            return [*value[:index], *value[index + 1 :]]
        case 1:
            return [*value, *value]
        case _:
            return [*value[:index], _damaged_once(value[index], rng), *value[index + 1 :]]


def _bent(name: str, rng: random.Random) -> str:
    return rng.choice(
        [name[:-1], name + "s", name.upper(), "", f"{name}.0", name.replace("_", "-"), "\ud800", "x" * 300]
    )


_REPLACEMENTS: Final[Sequence[Callable[[Any, random.Random], Any]]] = (
    lambda _value, rng: rng.choice(ODD_VALUES),
    lambda value, _rng: [value],
    lambda value, _rng: str(value),
    lambda value, _rng: {"text": value},
    lambda value, rng: value * rng.choice((0, 2, -1, 1000)) if isinstance(value, int | float) else value,
    lambda value, rng: rng.uniform(-3, 3) if isinstance(value, int | float) else rng.randint(-3, 3),
    lambda _value, rng: nested(rng, rng.choice((3, 15, 25, 400))),
)


def _flip_bits(data: bytes, rng: random.Random, _tokens: Sequence[bytes]) -> bytes:
    wounded = bytearray(data)
    for _ in range(rng.choice((1, 1, 4, 16)) if data else 0):
        wounded[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    return bytes(wounded)


def _set_bytes(data: bytes, rng: random.Random, _tokens: Sequence[bytes]) -> bytes:
    """To the least and the greatest that one to four bytes can say."""
    start, length = rng.randrange(len(data) + 1), rng.choice((1, 2, 4))
    return data[:start] + rng.choice((b"\0", b"\x7f", b"\x80", b"\xff")) * length + data[start + length :]


def _truncate(data: bytes, rng: random.Random, _tokens: Sequence[bytes]) -> bytes:
    return data[: rng.randrange(len(data) + 1)]


def _cut_out(data: bytes, rng: random.Random, _tokens: Sequence[bytes]) -> bytes:
    start = rng.randrange(len(data) + 1)
    return data[:start] + data[start + rng.choice((1, 2, 8, 64)) :]


def _repeat(data: bytes, rng: random.Random, _tokens: Sequence[bytes]) -> bytes:
    start = rng.randrange(len(data) + 1)
    part = data[start : start + rng.choice((1, 8, 64, 256))]
    return data[:start] + part * rng.choice((2, 2, 3, 50)) + data[start:]


def _insert(data: bytes, rng: random.Random, tokens: Sequence[bytes]) -> bytes:
    start = rng.randrange(len(data) + 1)
    return data[:start] + rng.choice(tokens) + data[start:]


def _insert_noise(data: bytes, rng: random.Random, _tokens: Sequence[bytes]) -> bytes:
    start = rng.randrange(len(data) + 1)
    return data[:start] + rng.randbytes(rng.choice((1, 2, 8, 32))) + data[start:]


_WOUNDS: Final = (_flip_bits, _set_bytes, _truncate, _cut_out, _repeat, _insert, _insert, _insert_noise)
