"""One attempt at a run, in a thread of this process: it stops, continues, fails and dies where the test says."""

import json
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, NoReturn, TypeAlias, TypeVar

from redis import ConnectionError as RedisConnectionError
from redis import Redis
from redis.exceptions import RedisError

from core.scripted import ScriptedModel
from storage.errors import ObjectExistsError, StoreUnavailableError
from storage.objects import ObjectStore
from storage.redis.outage import OutageRetry
from storage.redis.runs import Runs
from worker.app import write_record
from worker.errors import ClaimLost, RunCancelled, RunFailed, RunHandedBack
from worker.jobs.request import RunRequest
from worker.serve.delivery import Delivery, Message
from worker.serve.drain import DrainFlag
from worker.serve.engine import Engine
from worker.serve.runtime import WorkerRuntime
from worker.settings import Settings

T = TypeVar("T")
TICK_S = 30.0
"""What a token, a denoising step or the start of a step takes, by the clock of the test."""
STUCK_S = 60.0
"""Far more than anything here takes: only what hangs meets it."""
FREELY = 10**9
HELD_S = 0.5
"""How long an attempt that holds its uploads may wait for them, until it holds them no more."""

Service: TypeAlias = Literal["S3", "Redis"]
Effect: TypeAlias = Literal["before", "after"]


class Killed(BaseException):
    """The process is no more: nothing catches this, and nothing that follows reaches a service."""


ENDS: Mapping[type[BaseException], str] = {
    Killed: "killed",
    ClaimLost: "lease lost",
    RunHandedBack: "handed back",
    RunCancelled: "cancelled",
    RunFailed: "failed",
    RedisError: "rejected",
}
"""How an attempt ends, other than well."""


class Clock:
    """Seconds that pass when something happens."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@dataclass(kw_only=True)
class Trouble:
    """What befalls one of the next calls of a service."""

    service: Service
    calls: int
    """How many calls go well before it."""
    effect: Effect
    """Whether the call that it meets has its effect."""
    kills: bool
    """The process, or else the call alone."""


class Line:
    """The line from an attempt to one service."""

    def __init__(self, attempt: "Attempt", service: Service) -> None:
        self.attempt = attempt
        self.service = service

    def call(self, call: Callable[[], T], failure: type[Exception]) -> T:
        """`call()`, unless the process is dead or trouble is due; `failure` is how the service is away."""
        met = self.attempt.meet(self.service)
        if met and met.effect == "before":
            self._strike(met, failure)
        answer = call()
        if met:
            self._strike(met, failure)
        self.attempt.answered(self.service)
        return answer

    def _strike(self, met: Trouble, failure: type[Exception]) -> NoReturn:
        if met.kills:
            self.attempt.die()
        self.attempt.raise_if_dead()
        raise failure(f"{self.service} is away, for this call")


class MortalRetry(OutageRetry):
    """Repeats a command as the worker does; each try goes over the line."""

    def __init__(self, line: Line, timeout_s: float) -> None:
        super().__init__(timeout_s)
        self._line = line

    def __deepcopy__(self, _memo: object) -> "MortalRetry":
        return self  # a connection copies what it is given

    def call_with_retry(self, do: Callable[[], T], *args: Any, **kwargs: Any) -> T:
        return super().call_with_retry(lambda: self._line.call(do, RedisConnectionError), *args, **kwargs)


class MortalStore:
    """An ObjectStore over the line, which notes what must never be: a record that is put over another."""

    def __init__(self, store: ObjectStore, line: Line) -> None:
        self._store = store
        self._line = line
        self.overwritten: list[str] = []

    def put(self, key: str, data: bytes, *, content_type: str, only_if_absent: bool = False) -> None:
        if not only_if_absent and ("/commits/" in key or key.endswith(("manifest.json", "recipe.json"))):
            self.overwritten.append(key)
        self._line.attempt.wait_for_uploads_to_go_on()
        try:
            self._do(lambda: self._store.put(key, data, content_type=content_type, only_if_absent=only_if_absent))
        except ObjectExistsError:
            self._note(key, data)  # it counts, too: another made the same
            raise
        self._note(key, data)

    def _note(self, key: str, data: bytes) -> None:
        if "/commits/" in key:
            self._line.attempt.committed(json.loads(data))
        if key.endswith("recipe.json"):
            self._line.attempt.has_job()

    def get(self, key: str) -> bytes:
        data = self._do(lambda: self._store.get(key))
        if key.endswith("recipe.json"):
            self._line.attempt.has_job()
        return data

    def exists(self, key: str) -> bool:
        return self._do(lambda: self._store.exists(key))

    def list(self, prefix: str) -> Iterator[str]:
        return iter(self._do(lambda: [*self._store.list(prefix)]))

    def delete(self, key: str) -> None:
        self._do(lambda: self._store.delete(key))

    def url(self, key: str) -> str:
        return self._store.url(key)

    def address(self, key: str) -> str:
        return self._store.address(key)

    def get_address(self, address: str, *, max_bytes: int | None = None) -> bytes:
        return self._do(lambda: self._store.get_address(address, max_bytes=max_bytes))

    def _do(self, call: Callable[[], T]) -> T:
        return self._line.call(call, StoreUnavailableError)


def mortal_runtime(config: Settings, attempt: "Attempt", store: ObjectStore, clock: Clock, flag: Path) -> WorkerRuntime:
    """A worker process as far as a run sees it, on lines that can be cut."""
    retry = MortalRetry(Line(attempt, "Redis"), config.outage_timeout_s)
    redis = Redis.from_url(config.redis_url.get_secret_value(), decode_responses=True, retry=retry)
    return WorkerRuntime(
        config=config,
        redis=redis,
        runs=Runs(redis, ttl_s=config.keep_progress_s),
        objects=store,  # type: ignore[arg-type]  # any store serves a run
        engine=Engine(config, ScriptedModel(delay_s=TICK_S, sleep=lambda _seconds: attempt.tick())),
        drain=DrainFlag(flag),
        clock=clock,
    )


class Attempt:
    """What the task does with one message, stopping at each token, each denoising step and the start of each step.

    While it stands there, all that it made is uploaded, unless its uploads are held: so what it has done so far
    depends on how often it was let go on, not on threads.
    """

    def __init__(
        self,
        request: RunRequest,
        *,
        config: Settings,
        store: ObjectStore,
        clock: Clock,
        flag: Path,
        troubles: Sequence[Trouble] = (),
    ) -> None:
        self.request = request
        self.ended: str | None = None
        """How: the name of an outcome, or what was not foreseen."""
        self.began = False
        """Whether a step was begun."""
        self.unforeseen: BaseException | None = None
        self.is_dead = False
        self._clock = clock
        self._turn = threading.Condition()
        self._allowed = 0
        self._parked = False
        self._holds_uploads = self._has_job = False
        self._step = self._done = 0
        self._to_be_reported = self._reported = 0
        self._troubles = [*troubles]
        self.store = MortalStore(store, Line(self, "S3"))
        self.runtime = mortal_runtime(config, self, self.store, clock, flag)
        self._thread = threading.Thread(target=self._live, name=f"attempt at {request.run_id}", daemon=True)
        self._thread.start()
        self.settle()

    @property
    def is_over(self) -> bool:
        return self.ended is not None

    # For the test: what it lets happen.

    def go_on(self, ticks: int) -> None:
        """Let it take so many steps of its own, and wait until it stands again or is over."""
        with self._turn:
            self._allowed += ticks
            self._parked = False
            self._turn.notify_all()
        self.settle()

    def go_on_freely(self) -> None:
        self.hold_uploads(held=False)
        self.go_on(FREELY)

    def hold_uploads(self, *, held: bool) -> None:
        with self._turn:
            self._holds_uploads = held
            self._turn.notify_all()

    def kill(self) -> None:
        with self._turn:
            self.die()
        self.settle()

    def expect(self, trouble: Trouble) -> None:
        self._troubles.append(trouble)

    def settle(self) -> None:
        """Wait until it can't go on by itself. Raises TimeoutError."""
        with self._turn:
            if not self._turn.wait_for(lambda: self._parked or self.is_over, HELD_S if self._holds_uploads else 0):
                self.hold_uploads(held=False)  # it is at its end, and waits for nothing else
            if not self._turn.wait_for(lambda: self._parked or self.is_over, STUCK_S):
                raise TimeoutError(f"{self._thread.name} neither stands nor ends")
        if self.is_over:
            self._thread.join()

    # For its own threads.

    def tick(self) -> None:
        """A token, a denoising step, or the start of a step."""
        self._clock.now += TICK_S
        with self._turn:
            if not self._turn.wait_for(lambda: self._uploads_stand() or self.is_dead, STUCK_S):
                raise TimeoutError(f"step {self._step} is under way, and {self._done} are committed")
            self._parked = self._allowed == 0
            self._turn.notify_all()
            self._turn.wait_for(lambda: self._allowed > 0 or self.is_dead)
            self._parked = False
            self._allowed -= 1
        self.raise_if_dead()

    def begin_step(self, step: int, _steps: int) -> None:
        if not self.began:
            self.began, self._done = True, step - 1
        self._step = step
        self.tick()

    def has_job(self) -> None:
        """The run's recipe is stored."""
        with self._turn:
            self._has_job = True
            self._turn.notify_all()

    def committed(self, commit: Mapping[str, Any]) -> None:
        """A record is stored; the same thread then reports its artifacts."""
        with self._turn:
            if commit["step"] > self._done:
                self._done = commit["step"]
                self._to_be_reported += len(commit["artifacts"])
            self._turn.notify_all()

    def answered(self, service: Service) -> None:
        """A call went well."""
        self.raise_if_dead()
        if service == "Redis" and threading.current_thread().name.startswith("committer"):
            with self._turn:
                self._reported += 1
                self._turn.notify_all()

    def wait_for_uploads_to_go_on(self) -> None:
        with self._turn:
            self._turn.wait_for(lambda: not self._holds_uploads or self.is_dead or not self.began)

    def meet(self, service: Service) -> Trouble | None:
        """The trouble that is due at this call."""
        with self._turn:
            self.raise_if_dead()
            for trouble in [one for one in self._troubles if one.service == service]:
                trouble.calls -= 1
                if trouble.calls < 0:
                    self._troubles.remove(trouble)
                    return trouble
        return None

    def die(self) -> None:
        with self._turn:
            self.is_dead = True
            self._turn.notify_all()

    def raise_if_dead(self) -> None:
        if self.is_dead:
            raise Killed

    def _uploads_stand(self) -> bool:
        are_reported = self._reported >= self._to_be_reported
        return self._holds_uploads or (self._has_job and self._done >= self._step - 1 and are_reported)

    def _live(self) -> None:
        ended = "unforeseen"
        try:
            ended = self._serve()
        except tuple(ENDS) as error:
            ended = next(word for kind, word in ENDS.items() if isinstance(error, kind))
        except BaseException as error:  # noqa: BLE001 - the machine fails with it
            self.unforeseen = error
        finally:
            self.runtime.redis.close()
            with self._turn:
                self.ended = ended
                self._turn.notify_all()

    def _serve(self) -> str:
        """As worker.tasks does."""
        here, request = self.runtime, self.request

        served = here.config.served_model
        record = partial(write_record, here.runs, request, queue=f"model.{served}", model=served)
        record()
        if here.runs.resolve_alias(request.run_id) != request.run_id:
            return "duplicate"
        message = Message(update_state=self.begin_step, write_record=partial(record, claimed=True))
        Delivery(request, message, here).run_to_completion()
        return "succeeded"
