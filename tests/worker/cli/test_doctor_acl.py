"""Users of Redis with an access control list: the guide's rules suffice, less is named by doctor and by the worker."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from storage.redis.probe import acl_rules
from tests.worker.serving import (
    DEADLINE_S,
    WorkerProcess,
    celery_call,
    celery_result,
    config_of,
    env_of,
    ready_worker,
    recipe,
    start_long_run,
)
from tests.worker.shell import Shell, said
from worker.client import Client
from worker.local.services import LocalServices
from worker.settings import PROJECT

DATABASE = 5
USER, PASSWORD = "limited", "of-a-test"
ENOUGH = acl_rules(DATABASE)
CONTROL, RESULTS = f"&autoseq:/{DATABASE}.celery.pidbox", "&autoseq:*"


@pytest.fixture(scope="module")
def admin(services: LocalServices) -> Iterator[Client]:
    with Client(config_of(env_of(services, DATABASE))) as opened:
        opened.redis.flushdb()
        yield opened
        opened.redis.acl_deluser(USER)


@pytest.fixture
def limited(services: LocalServices, admin: Client) -> Callable[[str], dict[str, str]]:
    """Gives the environment of a user with these rules."""

    def env(rules: str) -> dict[str, str]:
        untyped: Any = admin.redis
        untyped.execute_command("ACL", "SETUSER", USER, "reset", "on", f">{PASSWORD}", *rules.split())
        place = env_of(services, DATABASE, scripted_delay_s=0.002, visibility_timeout_s=5, lease_s=3)
        return place | {
            "AUTOSEQ_REDIS_URL": f"redis://{USER}:{PASSWORD}@{place['AUTOSEQ_REDIS_URL'].partition('@')[2]}"
        }

    return env


def test_the_guide_has_the_rules() -> None:
    assert acl_rules(0) in (PROJECT / "docs" / "guide.md").read_text().replace("\n", " ")


def test_a_user_with_the_rules_of_the_guide_can_do_all_that_runs_need(
    limited: Callable[[str], dict[str, str]], admin: Client, shell: Shell, tmp_path: Path
) -> None:
    env = limited(f"resetchannels {ENOUGH}")
    admin.redis.acl_log_reset()
    with ready_worker(env, tmp_path / "log") as worker, Client(worker.config) as client:
        assert client.result(client.submit(recipe()), timeout_s=DEADLINE_S)["state"] == "succeeded"
        assert celery_result(worker, celery_call(env, recipe=recipe())).state == "SUCCESS"
        run_id = start_long_run(client)
        client.app.control.revoke("no-such-run")
        assert client.app.control.ping(timeout=DEADLINE_S, limit=1)
        assert client.cancel(run_id)
        assert [event.type for event in client.watch(run_id, timeout_s=DEADLINE_S)][-1] == "cancelled"
        assert client.list()[0].run_id == run_id
        shell.use(env)
        report = said(shell("doctor"))
        assert "Redis permissions: keys, scripts and channels can be used" in report
        assert report.count("unknown: Redis does not report it") == 3
    refused = {entry["object"] for entry in admin.redis.acl_log() if entry["reason"] != "auth"}
    assert refused <= {"client", "info"}, "names of connections, and what doctor reads"


@pytest.mark.parametrize(
    ("missing", "named"),
    [
        (CONTROL, f"PSUBSCRIBE {CONTROL[1:]}"),
        (RESULTS, "PUBLISH"),
        ("~autoseq:*", "SET"),
        ("+@all", "EVAL"),
    ],
)
def test_doctor_names_what_a_user_may_not_do(
    limited: Callable[[str], dict[str, str]], shell: Shell, missing: str, named: str
) -> None:
    rules = ENOUGH.replace(missing, "+@all -@scripting" if missing == "+@all" else "")
    shell.use(limited(f"resetchannels {rules}"))
    (problem,) = [line for line in said(shell("doctor"), code=1).splitlines() if "Redis permissions" in line]
    assert problem.startswith("problem  Redis permissions: Redis at 127.0.0.1:")
    assert f" {named}" in problem
    assert problem.endswith(f"needs at least the rules {ENOUGH}")


def test_a_worker_whose_user_has_no_channels_says_so_and_does_not_start(
    limited: Callable[[str], dict[str, str]], tmp_path: Path
) -> None:
    with WorkerProcess(limited(f"resetchannels {ENOUGH.partition(' &')[0]}"), tmp_path / "log") as worker:
        assert worker.process.wait(DEADLINE_S) != 0
    assert "Traceback" not in worker.output
    assert "this worker can't start: Redis at 127.0.0.1:" in worker.output
    assert f"PSUBSCRIBE {CONTROL[1:]}" in worker.output
    assert worker.output.rstrip().endswith(ENOUGH)
