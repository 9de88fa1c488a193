"""Snapshots of Redis and of a bucket as files: written for a release once, restored by tests of later releases.

`redis.json` lists every key with its type, value and time to live. `bucket/` holds each object in a file of its name.
"""

import base64
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from redis import Redis

from storage.objects import ObjectStore

REDIS = "redis.json"
BUCKET = "bucket"
PREFIX = "runs"
"""The prefix in the bucket under which the snapshots were taken: the default of AUTOSEQ_S3_PREFIX."""
SHORT_TTL_MS = 3_600_000
"""Keys with less time to live are not restored, as if the snapshot were an hour old."""
CLAIMS = ("autoseq:leases", "autoseq:unacked_index")
"""Sorted sets of leases and of unacknowledged messages by time. Score 0 restores them as expired on any clock."""
CONTENT_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".json": "application/json",
    ".png": "image/png",
    ".txt": "text/plain; charset=utf-8",
}


def dump_redis(folder: Path, redis: Redis) -> None:
    """Write every key of the database of `redis`, a client without decode_responses, to `folder`/redis.json."""
    found: Any = redis.scan_iter(count=1000)
    entries = [_entry(redis, key) for key in sorted(found)]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / REDIS).write_text(json.dumps(entries, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


def restore_redis(folder: Path, redis: Redis) -> None:
    """Load `folder`/redis.json into the database of `redis`, a client without decode_responses.

    Runs in flight are restored as if their workers had died long ago: keys with a time to live below SHORT_TTL_MS
    (leases, locks of the broker and the reconciler) are left out, and the CLAIMS are expired.
    """
    for entry in json.loads((folder / REDIS).read_text(encoding="utf-8")):
        name, ttl_ms, value = entry["key"], entry["ttl_ms"], entry["value"]
        if ttl_ms is not None and ttl_ms < SHORT_TTL_MS:
            continue
        key = _bytes(name)
        _write(redis, key, entry["type"], [[claim, 0] for claim, _ in value] if name in CLAIMS else value)
        if ttl_ms is not None:
            redis.pexpire(key, ttl_ms)


def dump_bucket(folder: Path, store: ObjectStore, prefix: str = PREFIX) -> None:
    """Write every object below `prefix` to a file in `folder`/bucket, named as its key."""
    for key in store.list(f"{prefix}/"):
        file = folder / BUCKET / PREFIX / key.removeprefix(f"{prefix}/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(store.get(key))


def restore_bucket(folder: Path, store: ObjectStore, prefix: str = PREFIX) -> None:
    """Put every object of `folder`/bucket below `prefix`.

    Messages of runs refer to input images as s3://autosequence/runs/…: use that bucket and prefix to serve them.
    """
    root = folder / BUCKET / PREFIX
    for file in sorted(path for path in root.rglob("*") if path.is_file()):
        key = f"{prefix}/{file.relative_to(root).as_posix()}"
        store.put(key, file.read_bytes(), content_type=CONTENT_TYPES[file.suffix])


def _entry(redis: Redis, key: bytes) -> dict[str, Any]:
    client: Any = redis
    kind, ttl_ms = client.type(key).decode(), client.pttl(key)
    return {
        "key": _text(key),
        "type": kind,
        "ttl_ms": ttl_ms if ttl_ms >= 0 else None,
        "value": _read(redis, key, kind),
    }


def _read(redis: Redis, key: bytes, kind: str) -> Any:
    """The value of a key as JSON; fields and members in a fixed order where Redis has none."""
    client: Any = redis
    match kind:
        case "string":
            return _text(client.get(key))
        case "hash":
            return _pairs(sorted(client.hgetall(key).items()))
        case "set":
            return [_text(member) for member in sorted(client.smembers(key))]
        case "zset":
            return [[_text(member), score] for member, score in client.zrange(key, 0, -1, withscores=True)]
        case "list":
            return [_text(item) for item in client.lrange(key, 0, -1)]
        case "stream":
            return [[_text(entry), _pairs(fields.items())] for entry, fields in client.xrange(key)]
        case _:
            raise ValueError(f"{key!r}: no snapshot of the type {kind}")


def _write(redis: Redis, key: bytes, kind: str, value: Any) -> None:
    client: Any = redis
    match kind:
        case "string":
            client.set(key, _bytes(value))
        case "hash":
            client.hset(key, mapping=_mapping(value))
        case "set":
            client.sadd(key, *map(_bytes, value))
        case "zset":
            client.zadd(key, {_bytes(member): score for member, score in value})
        case "list":
            client.rpush(key, *map(_bytes, value))
        case "stream":
            for entry, fields in value:
                client.xadd(key, _mapping(fields), id=_bytes(entry))
        case _:
            raise ValueError(f"{key!r}: no snapshot of the type {kind}")


def _pairs(fields: Iterable[tuple[bytes, bytes]]) -> list[list[Any]]:
    return [[_text(name), _text(value)] for name, value in fields]


def _mapping(pairs: Iterable[tuple[Any, Any]]) -> dict[bytes, bytes]:
    return {_bytes(name): _bytes(value) for name, value in pairs}


def _text(data: bytes) -> str | dict[str, str]:
    """Bytes as JSON: text where they are UTF-8, else base64."""
    try:
        return data.decode()
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(data).decode()}


def _bytes(value: str | dict[str, str]) -> bytes:
    return value.encode() if isinstance(value, str) else base64.b64decode(value["base64"])
