"""A snapshot comes back as it was written, but for what expires while it lies on disk."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from storage.objects.memory import MemoryStore
from tests.releases.restore import (
    BUCKET,
    CLAIMS,
    REDIS,
    SHORT_TTL_MS,
    dump_bucket,
    dump_redis,
    restore_bucket,
    restore_redis,
)
from worker.local.services import LocalServices

DATABASE = 14
RELEASES = sorted(folder for folder in Path(__file__).parent.iterdir() if (folder / REDIS).exists())


@pytest.fixture
def redis(services: LocalServices) -> Iterator[Redis]:
    """An empty database."""
    with Redis.from_url(f"{services.redis_url.rpartition('/')[0]}/{DATABASE}") as client:
        client.flushdb()
        yield client
        client.flushdb()


def entries_of(folder: Path) -> dict[str, dict[str, Any]]:
    return {entry["key"]: entry for entry in json.loads((folder / REDIS).read_text())}


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


@pytest.mark.parametrize("release", RELEASES, ids=lambda folder: folder.name)
def test_redis_holds_the_same_again(release: Path, redis: Redis, tmp_path: Path) -> None:
    restore_redis(release, redis)
    dump_redis(tmp_path, redis)
    before, after = entries_of(release), entries_of(tmp_path)
    lasting = {key for key, entry in before.items() if (entry["ttl_ms"] or SHORT_TTL_MS) >= SHORT_TTL_MS}
    assert len(lasting) > 50
    assert set(after) == lasting
    for key in lasting.difference(CLAIMS):
        assert (after[key]["type"], after[key]["value"]) == (before[key]["type"], before[key]["value"])
        assert (after[key]["ttl_ms"] is None) == (before[key]["ttl_ms"] is None)
        assert (after[key]["ttl_ms"] or 0) <= (before[key]["ttl_ms"] or 0)


@pytest.mark.parametrize("release", RELEASES, ids=lambda folder: folder.name)
def test_whoever_had_a_run_or_its_message_has_it_no_longer(release: Path, redis: Redis, tmp_path: Path) -> None:
    restore_redis(release, redis)
    dump_redis(tmp_path, redis)
    before, after = entries_of(release), entries_of(tmp_path)
    assert [key for key in before if key.endswith(":lease")]
    assert not [key for key in after if key.endswith(":lease")]
    for key in CLAIMS:
        assert before[key]["value"]
        assert sorted(after[key]["value"]) == sorted([claim, 0] for claim, _ in before[key]["value"])


@pytest.mark.parametrize("release", RELEASES, ids=lambda folder: folder.name)
def test_the_bucket_holds_the_same_again(release: Path, tmp_path: Path) -> None:
    store = MemoryStore()
    restore_bucket(release, store, "some/where")
    dump_bucket(tmp_path, store, "some/where")
    assert len(files_of(release / BUCKET)) > 100
    assert files_of(tmp_path / BUCKET) == files_of(release / BUCKET)


def test_every_type_comes_back_to_the_byte(redis: Redis, tmp_path: Path) -> None:
    odd = b"\xff\x00\x06"
    redis.set("string", odd, px=2 * SHORT_TTL_MS)
    redis.hset("hash", mapping={odd: b"1", b"two": odd})
    redis.sadd("set", odd, "\u00e9")
    redis.zadd("zset", {odd: 1795518503.1284044, b"low": -1e-9})
    redis.rpush(b"list" + odd, odd, "b", "a")
    redis.xadd("stream", {odd: odd, b"b": b"2"}, id="5-1")
    redis.xadd("stream", {b"c": b"3"}, id="5-2")
    dump_redis(tmp_path, redis)
    redis.flushdb()
    restore_redis(tmp_path, redis)
    assert redis.dbsize() == 6
    assert redis.get("string") == odd
    assert SHORT_TTL_MS < redis.pttl("string") <= 2 * SHORT_TTL_MS
    assert redis.hgetall("hash") == {odd: b"1", b"two": odd}
    assert redis.smembers("set") == {odd, "\u00e9".encode()}
    assert redis.zrange("zset", 0, -1, withscores=True) == [(b"low", -1e-9), (odd, 1795518503.1284044)]
    assert redis.lrange(b"list" + odd, 0, -1) == [odd, b"b", b"a"]
    assert redis.xrange("stream") == [(b"5-1", {odd: odd, b"b": b"2"}), (b"5-2", {b"c": b"3"})]
