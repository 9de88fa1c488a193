"""Scripts take their keys and arguments by name, and each one says what they are."""

import re
from pathlib import Path

import pytest
from redis import Redis, ResponseError

import storage.redis
from storage.redis.scripts import Script, ScriptSource, load_script

ROOM = Path(storage.redis.__file__).parent
SCRIPTS = sorted(path.stem for path in (ROOM / "lua").iterdir())
HASH = """-- Write fields into a hash.
-- keys: hash, marker
-- args: mark, *fields
-- returns: how many fields and values there were.
redis.call('SET', marker, mark)
if #fields > 0 then redis.call('HSET', hash, unpack(fields)) end
return #fields
"""


def hash_script(redis: Redis) -> Script:
    return Script(redis, ScriptSource("hash", HASH))


def test_keys_and_arguments_are_bound_by_name(redis_client: Redis, run_id: str) -> None:
    keys = {"marker": f"{run_id}:marker", "hash": run_id}
    assert hash_script(redis_client)(keys=keys, args={"fields": {"a": 1, "b": "x"}, "mark": "m"}) == 4
    assert redis_client.hgetall(run_id) == {"a": "1", "b": "x"}
    assert redis_client.get(f"{run_id}:marker") == "m"


def test_a_star_takes_an_empty_mapping(redis_client: Redis, run_id: str) -> None:
    keys = {"hash": run_id, "marker": f"{run_id}:marker"}
    assert hash_script(redis_client)(keys=keys, args={"mark": "m", "fields": {}}) == 0


def test_a_missing_or_unknown_name_is_an_error(redis_client: Redis) -> None:
    script = hash_script(redis_client)
    with pytest.raises(TypeError, match=r"script hash: keys: missing \['marker'\], unknown \['merker'\]"):
        script(keys={"hash": "h", "merker": "m"}, args={"mark": "m", "fields": {}})
    with pytest.raises(TypeError, match=r"script hash: args: missing \['fields', 'mark'\], unknown \[\]"):
        script(keys={"hash": "h", "marker": "m"})


@pytest.mark.parametrize("header", ["-- keys: a\n-- args: a", "-- keys: a, a", "-- args: *fields, b"])
def test_a_header_with_ambiguous_names_is_an_error(header: str) -> None:
    with pytest.raises(ValueError, match="script odd: names must be unique"):
        ScriptSource("odd", f"{header}\nreturn 1")


def test_an_error_names_the_line_of_the_file(redis_client: Redis, run_id: str) -> None:
    script = Script(redis_client, ScriptSource("odd", "-- keys: hash\n\nredis.call('HGET', hash)"))
    with pytest.raises(ResponseError, match=r":3:|line: 3"):
        script(keys={"hash": run_id})


@pytest.mark.parametrize("name", SCRIPTS)
def test_every_script_is_documented_and_used(redis_client: Redis, name: str) -> None:
    text = (ROOM / "lua" / f"{name}.lua").read_text()
    assert re.match(r"-- [A-Z].*\n(-- .*\n)*-- keys: .+\n(-- .*\n)*-- returns: .+\n", text)
    assert not re.search(r"\b(KEYS|ARGV)\b|autoseq:", text), "it uses names"
    assert any(re.search(rf'load_script\(\w+, "{name}"\)', path.read_text()) for path in ROOM.glob("*.py"))
    assert load_script(redis_client, name)
