"""The Celery app: where a run's message goes, what is known of it before, and who is served first."""

import ssl
from collections.abc import Collection, Iterator
from typing import Any

import celery
import pytest

from core.scripted import SPEC
from storage.redis.runs import Runs
from tests.worker.serving import DEADLINE_S, config_of, env_of, eventually, long_recipe, recipe
from worker.app import PRIORITIES, TASK, app, choose_model, make_app, record_run, route
from worker.client import Client
from worker.connections import connect_redis
from worker.local.services import LocalServices
from worker.settings import settings

DATABASE = 6


@pytest.fixture
def runs(services: LocalServices, monkeypatch: pytest.MonkeyPatch) -> Iterator[Runs]:
    """Of an empty Redis, which this process's settings name."""
    env = env_of(services, DATABASE)
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    settings.cache_clear()
    with connect_redis(config_of(env)) as redis:
        redis.flushdb()
        yield Runs(redis)
    settings.cache_clear()


def queue_of_call(**kwargs: object) -> dict[str, object] | None:
    return route(TASK, (), kwargs, {})


def test_a_run_goes_to_the_queue_of_the_model_it_names(runs: Runs) -> None:
    assert queue_of_call(recipe=recipe(model="bagel")) == {"queue": "model.bagel", "priority": PRIORITIES["normal"]}
    runs.announce("bagel", SPEC.to_json(), SPEC.to_json_0_1())
    runs.announce("scripted", SPEC.to_json(), SPEC.to_json_0_1())
    assert queue_of_call(recipe=recipe(model="bagel"), priority="high") == {"queue": "model.bagel", "priority": 0}
    assert queue_of_call(recipe=recipe(), overrides={"model": "bagel"}) == {"queue": "model.bagel", "priority": 3}
    assert queue_of_call(recipe=recipe(model="${m}"), variables={"m": "bagel"}) == {
        "queue": "model.bagel",
        "priority": 3,
    }
    assert queue_of_call(recipe=recipe()) == {"queue": "model.scripted", "priority": 3}


def test_what_no_worker_could_take_goes_to_one_that_says_why(runs: Runs) -> None:
    runs.announce("scripted", SPEC.to_json(), SPEC.to_json_0_1())
    for wrong in ({"recipe": recipe(model="other")}, {"recipe": "no-such-recipe"}, {"recipe": 7}, {}):
        found = queue_of_call(**wrong)
        assert found is not None
        assert found["queue"] == "model.scripted"


@pytest.mark.usefixtures("runs")
def test_other_tasks_and_chosen_queues_are_left_alone() -> None:
    assert route("celery.backend_cleanup", (), {}, {}) is None
    assert route(TASK, (), {"recipe": recipe()}, {"queue": "mine"}) is None


def test_the_model_of_a_run_is_the_named_the_default_or_the_only_one() -> None:
    assert chosen("bagel", known={"scripted"}) == "bagel"
    assert chosen(None, known={"scripted", "bagel"}) == "scripted"
    assert chosen(None, known={"bagel"}) == "bagel"
    assert chosen(None, known={"bagel", "other"}) == "scripted"
    assert chosen(None, known=set()) == "scripted"


def test_the_only_model_is_the_only_one_that_is_served_now() -> None:
    assert chosen(None, known={"bagel", "old"}, served={"bagel"}) == "bagel"
    assert chosen(None, known={"scripted", "bagel"}, served={"bagel"}) == "scripted", "its workers restart"


def chosen(wanted: str | None, *, known: set[str], served: Collection[str] = ()) -> str:
    """The model of a run, for a client whose default is `scripted`."""
    return choose_model(wanted, config_of({"AUTOSEQ_MODEL": "scripted"}), known, lambda: served)


def publish(**kwargs: object) -> None:
    record_run(TASK, {"id": "run-1"}, ((), kwargs, {}), "model.scripted")


def test_a_record_is_written_as_a_message_is_published(runs: Runs) -> None:
    publish(recipe=recipe(), priority="low", idempotency_key="key-1")
    record = runs.record("run-1")
    assert (record.document, record.priority, record.queue, record.model) == (
        recipe(),
        "low",
        "model.scripted",
        "scripted",
    )
    assert runs.claim_key("key-1", "run-2") == "run-1"


def test_no_record_is_written_twice_or_for_what_is_no_run(runs: Runs) -> None:
    publish(recipe=7)
    record_run("other.task", {"id": "run-1"}, ((), {"recipe": recipe()}, {}), "model.scripted")
    record_run(TASK, {"id": "run-1", "autoseq_recorded": True}, ((), {"recipe": recipe()}, {}), "model.scripted")
    assert runs.state("run-1") is None
    runs.claim_key("key-2", "another-run")
    publish(recipe=recipe(), idempotency_key="key-2")
    assert runs.state("run-1") is None


def test_our_app_leaves_the_current_app_of_others_alone() -> None:
    assert app.main == "autosequence"
    assert celery.current_app.main != "autosequence"


@pytest.mark.parametrize("query", ["", "?ssl_ca_certs=/etc/ca.pem", "?ssl_cert_reqs=none"])
def test_redis_over_tls_checks_certificates_unless_told_otherwise(query: str) -> None:
    made: Any = make_app(config_of({"AUTOSEQ_REDIS_URL": f"rediss://:secret@redis.example:6379/0{query}"}))
    parameters = made.backend.connparams
    wanted = ssl.CERT_NONE if "none" in query else ssl.CERT_REQUIRED
    assert parameters["ssl_cert_reqs"] == wanted
    assert parameters.get("ssl_ca_certs") == ("/etc/ca.pem" if "ca.pem" in query else None)


def test_the_visibility_timeout_is_the_same_wherever_it_is_read() -> None:
    made = make_app(config_of({"AUTOSEQ_MODEL": "scripted", "AUTOSEQ_VISIBILITY_TIMEOUT_S": "33"}))
    options = made.conf.broker_transport_options, made.conf.result_backend_transport_options
    assert {made.conf.visibility_timeout, *(option["visibility_timeout"] for option in options)} == {33}


def test_the_more_urgent_run_is_served_first(client: Client) -> None:
    blocking = client.submit(long_recipe())
    eventually(lambda: client.state(blocking).state == "running", "a run under way")
    waiting = [client.submit(recipe(), priority=priority) for priority in ("low", "normal", "high")]
    client.cancel(blocking)
    for run_id in waiting:
        client.result(run_id, timeout_s=DEADLINE_S)
    started = [client.state(run_id).started_at for run_id in waiting]
    assert None not in started
    assert sorted(started, key=lambda at: at or 0) == started[::-1]
