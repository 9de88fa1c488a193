"""The parent's connection to the broker: it waits while Redis refuses it, and sets broken messages aside."""

import logging
import math
import time
from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any

from celery.app import events
from celery.events.dispatcher import EventDispatcher
from celery.worker import state
from celery.worker.consumer.consumer import Consumer
from kombu.exceptions import KombuError
from kombu.transport import TRANSPORT_ALIASES, virtual
from kombu.transport import redis as kombu_redis
from kombu.utils.encoding import bytes_to_str
from kombu.utils.json import dumps, loads
from redis.exceptions import ResponseError

from storage.keys import check_run_id
from storage.redis.dead_letters import DeadLetters
from storage.retry import Backoff
from worker.connections import connect_redis
from worker.serve import child
from worker.settings import settings

# ruff: noqa: ANN401, D101, FBT001, FBT002 - the methods have the signatures and the docs of kombu and Celery

log = logging.getLogger(__name__)

SCHEME = "autoseq"
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 5.0
POLL_S = 0.1
MALFORMED = (ValueError, TypeError, LookupError, AttributeError, RecursionError, KombuError)
"""What kombu and Celery raise for a message that is none."""


@lru_cache(maxsize=1)
def dead_letters() -> DeadLetters:
    """Those of this process's Redis."""
    return DeadLetters(connect_redis(settings()))


class QoS(kombu_redis.QoS):
    """Takes no message before a child process is ready, and frees its place even if Redis refuses to acknowledge it.

    kombu would count the message as unfinished for ever and take no other. Redis still has it among the unacknowledged
    messages, so it is delivered again, which is harmless.
    """

    channel: Any
    pool: Any = None
    """Celery's TaskPool; None without a worker."""

    def can_consume(self) -> bool:
        return (self.pool is None or child.is_ready(self.pool)) and bool(super().can_consume())

    def ack(self, delivery_tag: str) -> None:
        try:
            super().ack(delivery_tag)
        finally:
            virtual.QoS.ack(self, delivery_tag)

    def reject(self, delivery_tag: str, requeue: bool = False) -> None:
        try:
            super().reject(delivery_tag, requeue)
        finally:
            virtual.QoS.ack(self, delivery_tag)

    def restore_by_tag(self, tag: str, client: Any = None, leftmost: bool = False) -> None:
        try:
            super().restore_by_tag(tag, client, leftmost)
        except MALFORMED as error:
            with self.channel.conn_or_acquire(client) as redis:
                dead_letters().add(
                    f"can't be delivered again: {_words(error)}", message=redis.hget(self.unacked_key, tag) or b""
                )
            super().reject(tag)  # deletes it


class CheckedRedis(kombu_redis.PrefixedStrictRedis):
    """A client that sets broken messages aside as it receives them.

    kombu would end the worker over them, after it has removed them from their list.
    """

    def __init__(self, *args: Any, channel: "Channel", **options: Any) -> None:
        super().__init__(*args, **options)
        self._channel = channel

    def parse_response(self, connection: Any, command_name: str, **options: Any) -> Any:
        reply = super().parse_response(connection, command_name, **options)
        if command_name == "BRPOP" and reply:
            queue, item = reply
            try:
                check_message(item, self._channel)
            except MALFORMED as error:
                name = bytes_to_str(queue).rsplit(self._channel.sep, 1)[0]
                dead_letters().add(f"not a message: {_words(error)}", message=item, queue=name, task_id=_task_id(item))
                return None  # as if the queue were empty
        return reply


class Channel(kombu_redis.Channel):
    QoS = QoS

    def _get_client(self) -> Any:
        return partial(CheckedRedis, channel=self, global_keyprefix=self.global_keyprefix)

    def basic_consume(self, queue: str, *args: Any, **options: Any) -> Any:
        """Raises ResponseError before a message is taken that could not be written down: for a damaged key."""
        with self.conn_or_acquire() as client:
            client.hlen(self.unacked_key)
            client.zrange(self.unacked_index_key, 0, 0)
        return super().basic_consume(queue, *args, **options)


class Transport(kombu_redis.Transport):
    """Counts a refusal by Redis among the errors after which the consumer connects again."""

    Channel = Channel
    connection_errors = (*kombu_redis.Transport.connection_errors, ResponseError)


TRANSPORT_ALIASES[SCHEME] = f"{__name__}:Transport"


class BriefDispatcher(EventDispatcher):
    """Tries once to send an event, and keeps it for the next connection.

    Celery would try a heartbeat again until Redis is back, in the main loop, which then sees no shutdown.
    """

    def send(self, *args: Any, **fields: Any) -> Any:
        return super().send(*args, **{**fields, "retry": False})


class Events(events.Events):
    dispatcher_cls = f"{__name__}:{BriefDispatcher.__name__}"


class ReconnectingConsumer(Consumer):
    """Celery's consumer on the transport above: it pauses before it connects again, and loses no message silently."""

    controller: Any
    pool: Any
    task_consumer: Any

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.connection_errors = Transport.connection_errors
        self._backoff = _new_backoff()
        self._paused_at = time.monotonic()

    def ensure_connected(self, conn: Any) -> Any:
        conn.transport_cls = SCHEME
        return super().ensure_connected(conn)

    def on_connection_error_before_connected(self, exc: Exception) -> None:
        super().on_connection_error_before_connected(exc)
        self._pause()

    def on_connection_error_after_connected(self, exc: Exception) -> None:
        super().on_connection_error_after_connected(exc)
        self._pause()

    def _pause(self) -> None:
        """Wait, longer each time while the errors continue; a shutdown ends it."""
        if time.monotonic() - self._paused_at > 2 * LONGEST_PAUSE_S:
            self._backoff = _new_backoff()
        until = time.monotonic() + (self._backoff.next_pause_s() or LONGEST_PAUSE_S)
        while time.monotonic() < until:
            state.maybe_shutdown()
            time.sleep(POLL_S)
        self._paused_at = time.monotonic()

    def on_decode_error(self, message: Any, exc: Exception) -> None:
        self._set_aside(message, f"can't be decoded: {exc}")

    def on_unknown_message(self, body: object, message: Any) -> None:
        del body
        self._set_aside(message, "not a message of Celery")

    def on_unknown_task(self, body: object, message: Any, exc: Exception) -> None:
        del body
        self._set_aside(message, f"no task is named {exc}")

    def on_invalid_task(self, body: object, message: Any, exc: Exception) -> None:
        del body
        self._set_aside(message, f"not a valid task: {exc}")

    def create_task_handler(self, *args: Any, **options: Any) -> Callable[[Any], None]:
        """Celery's handler of a message. A header that it can't use costs this message only."""
        handle = super().create_task_handler(*args, **options)
        self.task_consumer.channel.qos.pool = self.pool

        def on_task_received(message: Any) -> None:
            try:
                handle(message)
            except MALFORMED as error:
                request = state.requests.get(message.headers["id"])
                if request:  # it has the place of the child already
                    state.task_ready(request)
                    self.controller.semaphore.release()
                self._set_aside(message, f"can't be executed: {_words(error)}")

        return on_task_received

    def _set_aside(self, message: Any, reason: str) -> None:
        queue, whole = message.delivery_info["routing_key"], dumps(message.serializable())
        dead_letters().add(reason, message=whole, queue=queue, task_id=message.headers["id"])
        message.reject_log_error(log, self.connection_errors)


def check_message(item: bytes, channel: Channel) -> None:
    """Raises one of MALFORMED for a message that kombu, Celery or its child process could not read."""
    message = channel.Message(loads(bytes_to_str(item)), channel=channel)
    for _kind, error, _trace in message.errors or ():
        raise ValueError(f"its body can't be read: {error}")
    place = message.delivery_info
    texts = (message.delivery_tag, place["exchange"], place["routing_key"], message.headers["task"])
    limits = message.headers.get("timelimit") or (None, None)
    if not all(isinstance(text, str) for text in texts):
        raise TypeError("its tag, its exchange, its routing key and its task must be strings")
    if len(limits) != len(("hard", "soft")) or not all(isinstance(limit, int | float | None) for limit in limits):
        raise TypeError("its time limits must be two numbers")
    check_run_id(message.headers["id"])
    message.accept = {"application/json"}
    args, kwargs, embedded = message.decode()
    if not (isinstance(args, list) and isinstance(kwargs, dict) and isinstance(embedded, dict)):
        raise TypeError("its body must be a list of a list, an object and an object")


def _task_id(item: bytes) -> str | None:
    """The id in a broken message, as far as there is one."""
    try:
        return check_run_id(loads(bytes_to_str(item))["headers"]["id"])
    except MALFORMED:
        return None


def _words(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


def _new_backoff() -> Backoff:
    return Backoff(math.inf, first_s=FIRST_PAUSE_S, longest_s=LONGEST_PAUSE_S)
