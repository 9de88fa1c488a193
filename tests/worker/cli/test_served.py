"""`autoseq` with services: runs are submitted, followed, cancelled and shown, workers started, and faults named."""

import json
import signal
import time
from dataclasses import asdict

from core.scripted import SPEC
from storage.redis.dead_letters import DeadLetters
from storage.redis.workers import WorkerInfo
from tests.worker.serving import DEADLINE_S, env_of
from tests.worker.shell import CLOSED, LONG, SHORT, Shell, end_of, lines_until, one_error, said
from worker.cli.doctor_checks import DAY_S
from worker.client import Client
from worker.local.fleet import command, environment
from worker.local.services import LocalServices
from worker.settings import settings


def test_submit_prints_the_run_id_alone(idle: Shell) -> None:
    idle.recipe(SHORT)
    result = idle("submit", "mine.yaml", "--run-id", "first", "--priority", "low")
    assert said(result) == "first\n"
    assert "No worker is running" in result.stderr
    assert json.loads(said(idle("submit", "mine.yaml", "--run-id", "second", "--json"))) == {"run_id": "second"}


def test_the_same_key_gives_the_same_run(idle: Shell) -> None:
    idle.recipe(SHORT)
    first = said(idle("submit", "mine.yaml", "--idempotency-key", "k"))
    assert said(idle("submit", "mine.yaml", "--idempotency-key", "k")) == first


def test_a_waiting_run_can_be_cancelled(idle: Shell) -> None:
    idle.recipe(SHORT)
    run_id = said(idle("submit", "mine.yaml")).strip()
    assert said(idle("cancel", run_id)) == f"Cancelled run {run_id}.\n"
    assert said(idle("cancel", run_id)) == f"Nothing to cancel: run {run_id} is already cancelled.\n"
    assert said(idle("resume", run_id)) == f"Queued run {run_id} again.\n"
    assert said(idle("resume", run_id)) == f"Nothing to resume: run {run_id} is already queued.\n"
    assert said(idle("cancel", run_id)) == f"Cancelled run {run_id}.\n"
    assert said(idle("watch", run_id), code=4).splitlines()[-1] == "cancelled"
    assert "state     cancelled" in said(idle("show", run_id))


def test_there_may_be_no_runs(idle: Shell) -> None:
    assert said(idle("list")) == "There are no runs.\n"
    assert json.loads(said(idle("list", "--json"))) == []
    for name in ("show", "watch"):
        assert one_error(idle(name), code=2) == "error: there are no runs yet; `autoseq submit` queues one"


def test_a_unique_prefix_of_an_id_names_a_run(idle: Shell) -> None:
    idle.recipe(SHORT)
    for run_id in ("alpha-1", "alpha-2", "beta"):
        idle("submit", "mine.yaml", "--run-id", run_id)
    result = idle("show", "be")
    assert "run       beta" in said(result)
    assert result.stderr == "run beta\n"
    ambiguous = one_error(idle("cancel", "alpha"), code=2)
    assert "alpha-1" in ambiguous
    assert "alpha-2" in ambiguous
    assert said(idle("cancel", "alpha-1")) == "Cancelled run alpha-1.\n"
    assert said(idle("cancel", "b")) == "Cancelled run beta.\n"
    assert said(idle("resume", "b")) == "Queued run beta again.\n"


def test_without_an_id_the_last_run_is_shown(idle: Shell) -> None:
    idle.recipe(SHORT)
    for run_id in ("first", "last"):
        idle("submit", "mine.yaml", "--run-id", run_id)
    assert "run       last" in said(idle("show"))
    idle("cancel", "last")
    assert said(idle("watch"), code=4).splitlines()[-1] == "cancelled"


def test_tables_in_a_pipe_have_tabs_and_no_padding(idle: Shell) -> None:
    idle.recipe(SHORT)
    for run_id in ("one", "a-much-longer-id"):
        idle("submit", "mine.yaml", "--run-id", run_id)
    head, *rows = (line.split("\t") for line in said(idle("list")).splitlines())
    assert head == ["run", "recipe", "state", "done", "submitted"]
    assert [row[:3] for row in rows] == [["a-much-longer-id", "short", "queued"], ["one", "short", "queued"]]


def test_a_run_no_one_knows_is_bad_input(idle: Shell) -> None:
    for arguments in (["show", "nope"], ["watch", "nope"], ["cancel", "nope"]):
        assert "there is no such run" in one_error(idle(*arguments), code=2)
    assert "run id 'a b'" in one_error(idle("show", "a b"), code=2)


def test_doctor_names_what_is_missing(idle: Shell) -> None:
    lines = said(idle("doctor"), code=1).splitlines()
    assert [line for line in lines if not line.startswith("ok ")] == [
        "problem  workers: no worker is running; start one with `autoseq worker`"
    ]


def test_a_worker_that_ended_as_unhealthy_is_listed_with_its_reason(idle: Shell, idle_client: Client) -> None:
    assert said(idle("workers")) == "No worker is running; start one with `autoseq worker`.\n"
    sick = WorkerInfo(name="celery@a", model="scripted", state="unhealthy", reason="no disk", since=time.time())
    idle_client.live_workers.announce(sick)
    _head, row = (line.split("\t") for line in said(idle("workers")).splitlines())
    assert row == ["celery@a", "scripted", "", "unhealthy", "", "", "just now", "no disk"]
    assert json.loads(said(idle("workers", "--json"))) == [asdict(sick)]
    assert "problem  workers: celery@a is unhealthy: no disk" in said(idle("doctor"), code=1)


def test_a_run_of_a_model_that_no_running_worker_serves_waits_with_a_note(idle: Shell, idle_client: Client) -> None:
    idle.recipe(SHORT)
    for model in ("scripted", "other"):
        idle_client.runs.announce(model, SPEC.to_json(), SPEC.to_json_0_1())
    idle_client.live_workers.announce(WorkerInfo(name="celery@a", model="other"))
    result = idle("submit", "mine.yaml")
    assert said(result)
    assert "No running worker serves scripted; other can be used" in result.stderr


def test_doctor_says_what_helps(idle: Shell, services: LocalServices) -> None:
    idle.use({**env_of(services, 1), "AUTOSEQ_S3_SECRET_KEY": "wrong", "AUTOSEQ_MODEL": "nowhere"})
    text = said(idle("doctor"), code=1)
    assert "AUTOSEQ_S3_" in text
    assert "AUTOSEQ_MODEL" in text
    idle.use({**env_of(services, 1), "AUTOSEQ_REDIS_URL": CLOSED})
    assert "problem  Redis answers: Redis at 127.0.0.1:1 can't be used" in said(idle("doctor"), code=1)


def test_a_model_folder_of_a_container_is_no_problem_while_a_worker_serves_it(serving: Shell) -> None:
    assert "model folder: scripted, fingerprint " in said(serving("doctor"))
    serving.patch.setenv("AUTOSEQ_MODEL", "/srv/models/scripted")
    settings.cache_clear()
    text = said(serving("doctor"))
    assert "model folder: /srv/models/scripted is not on this machine; workers serve scripted" in text
    serving.patch.setenv("AUTOSEQ_MODEL", "/srv/models/another")
    settings.cache_clear()
    assert "problem  model folder: /srv/models/another" in said(serving("doctor"), code=1)


def test_doctor_warns_of_a_redis_that_forgets(idle: Shell, idle_client: Client) -> None:
    try:
        idle_client.redis.config_set("maxmemory-policy", "allkeys-lru")
        idle_client.redis.config_set("appendonly", "no")
        text = said(idle("doctor"), code=1)
    finally:
        idle_client.redis.config_set("maxmemory-policy", "noeviction")
        idle_client.redis.config_set("appendonly", "yes")
    assert "set `maxmemory-policy noeviction`" in text
    assert "set `appendonly yes`" in text


def test_doctor_reports_the_messages_that_were_set_aside_today(idle: Shell, idle_client: Client) -> None:
    DeadLetters(idle_client.redis, clock=lambda: time.time() - 2 * DAY_S).add("not a message: no JSON")
    assert "ok       dead letters: 1 set aside" in said(idle("doctor"), code=1)
    DeadLetters(idle_client.redis).add("not a message: no id")
    text = said(idle("doctor"), code=1)
    assert "problem  dead letters: 2 set aside, the last within a day: not a message: no id; read" in text


def test_a_run_is_followed_listed_and_shown(serving: Shell) -> None:
    serving.recipe(SHORT)
    result = serving("submit", "mine.yaml", "--watch", "--set", "name=followed")
    run_id = said(result).strip()
    assert "[2/6] thinking: " in result.stderr
    assert "succeeded in" in result.stderr
    assert run_id in said(serving("list", "--limit", "1"))
    shown = said(serving("show", run_id))
    assert "recipe    followed" in shown
    assert "  3  image 1    http://" in shown
    data = json.loads(said(serving("show", run_id, "--json")))
    assert [made["role"] for made in data["artifacts"]] == ["thinking", "image", "refinement", "thinking", "image"]
    assert said(serving("doctor")).count("ok ") == 11


def test_events_come_as_json_from_where_they_are_wanted(serving: Shell) -> None:
    serving.recipe(SHORT)
    lines = said(serving("submit", "mine.yaml", "--watch", "--json")).splitlines()
    run_id = json.loads(lines[0])["run_id"]
    events = [json.loads(line) for line in lines[1:]]
    assert (events[0]["type"], events[-1]["type"]) == ("queued", "succeeded")
    again = said(serving("watch", run_id, "--json", "--after", events[3]["id"])).splitlines()
    assert [json.loads(line) for line in again] == events[4:]


def test_what_redis_forgot_is_shown_from_the_bucket(serving: Shell, client: Client) -> None:
    serving.recipe(SHORT)
    run_id = said(serving("submit", "mine.yaml", "--watch")).strip()
    client.redis.delete(f"autoseq:run:{run_id}")
    assert "state     succeeded" in said(serving("show", run_id))


def test_a_run_that_fails_says_why(serving: Shell) -> None:
    serving.recipe("name: mine\ncontext:\n  - image: s3://elsewhere/photo.png\n  - text: Bigger\n")
    assert "elsewhere" in one_error(serving("submit", "mine.yaml", "--watch"), code=2)


def test_ctrl_c_stops_watching_but_not_the_run(serving: Shell, client: Client) -> None:
    serving.recipe(LONG)
    run_id = said(serving("submit", "mine.yaml")).strip()
    process = serving.start("watch", run_id)
    lines_until(process, "thinking")
    process.send_signal(signal.SIGINT)
    code, output = end_of(process)
    assert code == 130
    assert f"autoseq watch {run_id}" in output
    assert client.state(run_id).state == "running"
    assert said(serving("cancel", run_id)) == f"Cancelled run {run_id}.\n"
    assert said(serving("watch", run_id), code=4).splitlines()[-1] == "cancelled"


# autoseq worker


def test_a_worker_for_each_gpu_is_pinned_to_it(shell: Shell, services: LocalServices) -> None:
    shell.use(env_of(services, 4))
    process = shell.start("worker", "--gpus", "0,1")
    lines_until(process, " ready.")
    lines_until(process, " ready.")
    with Client(settings()) as client:
        # Celery can't be stopped well before its event loop runs, which an answer shows.
        answers = client.app.control.ping(timeout=DEADLINE_S, limit=2)
    assert {name.partition("@")[0] for answer in answers or () for name in answer} == {"gpu0", "gpu1"}
    process.send_signal(signal.SIGTERM)
    code, output = end_of(process)
    assert code == 0, output
    assert environment({"A": "b"}, 1) == {"A": "b", "CUDA_VISIBLE_DEVICES": "1", "AUTOSEQ_DEVICE": "cuda"}


def test_options_of_celery_win(shell: Shell) -> None:
    assert command(0, ["-l", "DEBUG", "--hostname=mine@%h"])[-4:] == ["worker", "-l", "DEBUG", "--hostname=mine@%h"]
    assert command(None, [])[-2:] == ["--loglevel", "INFO"]
    assert shell("worker", "--", "--no-such-option").exit_code == 2


def test_a_worker_that_can_not_start_says_why(shell: Shell, services: LocalServices) -> None:
    shell.use(env_of(services, 4))
    code, output = end_of(shell.start("worker", "--model", "nowhere"))
    assert code == 2
    assert "this worker can't start: nowhere/llm_config.json: no such file" in output
