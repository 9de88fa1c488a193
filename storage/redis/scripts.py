"""Loads the Lua scripts in `lua/`, and binds their keys and arguments by name.

A script begins with a comment that states its effect, its keys, its arguments and its result:

    -- Take the lease of a run.
    -- keys: lease, leases
    -- args: token, ttl_ms, *fields
    -- returns: 1, or 0 when another worker has it.

Each name is a local variable of the script. If the last argument has a star, it takes a mapping, which is a table of
alternating fields and values in Lua.

`on_index` calls Redis on a key that many runs share. If that key has a wrong type, the call gives false instead of an
error, so that one damaged index does not stop every run.
"""

import re
from collections.abc import Iterable, Mapping
from functools import cache
from importlib import resources
from typing import TypeAlias

from redis import Redis

Argument: TypeAlias = str | int | float
Arguments: TypeAlias = Mapping[str, Argument | Mapping[str, Argument]]

_ON_INDEX = (
    "local function on_index(...) local reply = redis.pcall(...); "
    "if type(reply) ~= 'table' or not reply.err then return reply end; "
    "if string.find(reply.err, 'WRONGTYPE', 1, true) then return false end; error(reply.err) end"
)
_KEYS, _ARGS = (re.compile(rf"^-- {kind}: (.+)$", re.MULTILINE) for kind in ("keys", "args"))


class ScriptSource:
    """The text of a script with its variables bound, and the names in its header. Raises ValueError for a bad header.

    Args:
        name: the name in error messages.
        text: the content of the file.
    """

    def __init__(self, name: str, text: str) -> None:
        self.name = name
        self.keys = _names(_KEYS, text)
        args = _names(_ARGS, text)
        self.args = [arg.removeprefix("*") for arg in args]
        if any(arg.startswith("*") for arg in args[:-1]) or len({*self.keys, *self.args}) < len(self.keys + args):
            raise ValueError(f"script {name}: names must be unique, and only the last argument may have a star")
        bound = [f"local {key} = KEYS[{place}]" for place, key in enumerate(self.keys, 1)]
        for place, arg in enumerate(args, 1):
            value = f"{{unpack(ARGV, {place})}}" if arg.startswith("*") else f"ARGV[{place}]"
            bound.append(f"local {arg.removeprefix('*')} = {value}")
        # On the file's first line, so that line numbers in Redis's errors are those of the file.
        self.text = "; ".join([*bound, _ON_INDEX, text])


class Script:
    """A script, bound to a Redis client."""

    def __init__(self, redis: Redis, source: ScriptSource) -> None:
        self._source = source
        self._run = redis.register_script(source.text)

    def __call__(self, *, keys: Mapping[str, str], args: Arguments | None = None) -> object:
        """Run the script, atomically and in one round trip. Raises TypeError when a name is missing or unknown."""
        args = args or {}
        self._check("keys", self._source.keys, keys)
        self._check("args", self._source.args, args)
        return self._run(
            keys=[keys[name] for name in self._source.keys],
            args=[part for name in self._source.args for part in _flat(args[name])],
        )

    def _check(self, what: str, names: Iterable[str], given: Iterable[str]) -> None:
        missing, unknown = sorted(set(names) - set(given)), sorted(set(given) - set(names))
        if missing or unknown:
            raise TypeError(f"script {self._source.name}: {what}: missing {missing}, unknown {unknown}")


def load_script(redis: Redis, name: str) -> Script:
    """The script `lua/<name>.lua`, for this client."""
    return Script(redis, _source(name))


@cache
def _source(name: str) -> ScriptSource:
    return ScriptSource(name, resources.files("storage.redis").joinpath("lua", f"{name}.lua").read_text("utf-8"))


def _names(line: re.Pattern[str], text: str) -> list[str]:
    return [name.strip() for names in line.findall(text) for name in names.split(",")]


def _flat(value: Argument | Mapping[str, Argument]) -> list[Argument]:
    return [part for pair in value.items() for part in pair] if isinstance(value, Mapping) else [value]
