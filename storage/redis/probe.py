"""Checks that a user of Redis may do what workers and clients do, which an access control list can restrict."""

import secrets
from typing import Any

from redis import Redis
from redis.exceptions import NoPermissionError

from storage import keys

ANSWER_TIMEOUT_S = 5.0
EXPIRES_S = 60


def acl_rules(database: int) -> str:
    """The least that a user of Redis needs, as rules of `ACL SETUSER`.

    The control channel has a rule of its own because workers subscribe to it as a pattern, and Redis compares patterns
    with the rules as text.
    """
    prefix = keys.BROKER_PREFIX
    return f"+@all -@admin -@dangerous ~{prefix}* &{prefix}* &{keys.control_channel(database)}"


def find_refusals(redis: Redis, database: int) -> list[str]:
    """Try each kind of command, on keys and a channel that nothing else uses. Returns what Redis refused, and why."""
    name = f"probe-{secrets.token_hex(8)}"
    result = keys.result_channel(name)
    key = f"{keys.BROKER_PREFIX}{name}"
    commands: list[tuple[str | int, ...]] = [
        ("SET", key, "", "EX", EXPIRES_S),
        ("EVAL", "return #KEYS", 1, key),
        ("SCRIPT", "LOAD", "return 1"),
        ("LPUSH", f"{key}:list", ""),
        ("BRPOP", f"{key}:list", 1),
        ("HSET", f"{key}:hash", "field", ""),
        ("ZADD", f"{key}:zset", 0, ""),
        ("XADD", f"{key}:stream", "*", "field", ""),
        ("XREAD", "STREAMS", f"{key}:stream", 0),
        ("MULTI",),
        ("EXEC",),
        ("PUBLISH", result, ""),
        ("DEL", key, f"{key}:hash", f"{key}:zset", f"{key}:stream"),
    ]
    untyped: Any = redis  # execute_command and pubsub have no types
    with untyped.pipeline(transaction=False) as together:
        for command in commands:
            together.execute_command(*command)
        answers = together.execute(raise_on_error=False)
    refused = [
        f"{command[0]} ({answer})"
        for command, answer in zip(commands, answers, strict=True)
        if isinstance(answer, NoPermissionError)
    ]
    for subscribe, channel in (("SUBSCRIBE", result), ("PSUBSCRIBE", keys.control_channel(database))):
        with untyped.pubsub() as subscription:
            try:
                subscription.execute_command(subscribe, channel)
                subscription.parse_response(timeout=ANSWER_TIMEOUT_S)
            except NoPermissionError as error:
                refused.append(f"{subscribe} {channel} ({error})")
    return refused
