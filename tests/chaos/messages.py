"""What comes to a fleet through its broker and is no message of a client: duplicates, garbage, remote control."""

import random

from storage import keys
from tests.chaos.load import recipe_of
from tests.worker.serving import request
from worker.app import PRIORITIES, TASK, make_app, publish
from worker.client import Client
from worker.settings import queue_of

GARBAGE = (
    "not JSON",
    "[]",
    '{"body": "bm90IEpTT04=", "headers": {}, "properties": {}}',
    '{"body": "!", "content-encoding": "utf-8", "content-type": "application/json", "headers": {"task": "worker.run"},'
    ' "properties": {"body_encoding": "base64", "delivery_info": {}, "delivery_tag": "garbage"}}',
    "\ufffd" * 100_000,
)
"""None of these has the id of a run."""


class Messages:
    """Sends them, each on a connection of its own; raises OperationalError and RedisError while Redis is away."""

    def __init__(self, client: Client, rng: random.Random) -> None:
        self._client = client
        self._rng = rng
        self._queue = queue_of(client.config.served_model)

    def duplicate(self, run_id: str) -> None:
        """Publish the message of a run once more: of one that waits, runs, or has ended."""
        app = make_app(self._client.config, reads_results=False)
        with app.connection_for_write() as connection:
            publish(app, request(run_id, recipe_of(run_id)), self._queue, connection)

    def wrong_arguments(self, run_id: str) -> None:
        """Publish a message under a run's id that a worker has to refuse."""
        app = make_app(self._client.config, reads_results=False)
        with app.connection_for_write() as connection:
            kwargs = {"recipe": recipe_of(run_id), "prio": "high"}
            app.send_task(TASK, kwargs=kwargs, task_id=run_id, queue=self._queue, connection=connection)

    def garbage(self) -> None:
        """Put something into the broker's list, or a message of another task."""
        if self._rng.random() < 1 / (len(GARBAGE) + 1):
            app = make_app(self._client.config, reads_results=False)
            with app.connection_for_write() as connection:
                app.send_task("worker.walk", queue=self._queue, connection=connection)
        else:
            line = keys.broker_list(keys.queue_slot(self._queue, PRIORITIES["normal"]))
            self._client.redis.lpush(line, self._rng.choice(GARBAGE))

    def revoke(self, run_id: str) -> None:
        self._control("revoke", task_id=run_id)

    def shut_down(self, worker: str) -> None:
        """Ask one worker to drain, by its name in Celery."""
        self._control("shutdown", [worker])

    def _control(self, command: str, workers: list[str] | None = None, **arguments: str) -> None:
        app = make_app(self._client.config, reads_results=False)
        with app.connection_for_write() as connection:
            app.control.broadcast(command, arguments=arguments, destination=workers, connection=connection)
