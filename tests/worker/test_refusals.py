"""S3 answers with errors in the middle of a run: what may pass is waited out, what will not ends the run at once."""

from collections.abc import Iterator

import pytest

from storage.objects.s3 import S3Store
from tests.worker.serving import config_of, env_of, objects_of, request, undisturbed
from tests.worker.trouble import Trouble, troubled
from worker.errors import RunFailed
from worker.jobs.request import RunRequest
from worker.local.services import LocalServices
from worker.serve.delivery import Delivery, Message
from worker.serve.runtime import WorkerRuntime

DATABASE = 6


@pytest.fixture
def trouble(services: LocalServices) -> Iterator[Trouble]:
    with troubled(services.s3_settings.endpoint or "") as server:
        yield server


@pytest.fixture
def runtime(services: LocalServices, trouble: Trouble) -> Iterator[WorkerRuntime]:
    opened = WorkerRuntime.connect(config_of(env_of(services, DATABASE, s3_endpoint=trouble.endpoint)))
    yield opened
    opened.close()


def serve(runtime: WorkerRuntime, asked: RunRequest) -> dict[str, object]:
    return Delivery(asked, Message(), runtime).run_to_completion()


@pytest.mark.parametrize(
    ("status", "code", "place"),
    [
        (500, "InternalError", "/recipe.json"),
        (503, "SlowDown", "/steps/003"),
        (400, "RequestTimeout", "/commits/004"),
        (400, "BadDigest", "/steps/003"),
        (400, "XAmzContentSHA256Mismatch", "/index.html"),
        (400, "IncompleteBody", "/manifest.json"),
    ],
)
def test_an_error_that_may_pass_changes_nothing(
    runtime: WorkerRuntime, trouble: Trouble, s3_store: S3Store, run_id: str, status: int, code: str, place: str
) -> None:
    trouble.status, trouble.code, trouble.place, trouble.times = status, code, place, 2
    assert serve(runtime, request(run_id))["state"] == "succeeded"
    assert len(trouble.answered) == 2
    assert objects_of(s3_store, run_id) == undisturbed(request(run_id))


@pytest.mark.parametrize("code", ["InvalidAccessKeyId", "SignatureDoesNotMatch", "AccessDenied"])
def test_refused_credentials_end_the_run_at_once_and_it_can_go_on_later(
    runtime: WorkerRuntime, trouble: Trouble, s3_store: S3Store, run_id: str, code: str
) -> None:
    trouble.status, trouble.code, trouble.place, trouble.times = 403, code, "/steps/003", 10**9
    with pytest.raises(
        RunFailed, match=rf"s3://autosequence/served/{run_id}/steps/003-image.png .*{code} \(HTTP 403\)"
    ):
        serve(runtime, request(run_id))
    assert len(trouble.answered) == 1
    assert sorted(name for name in objects_of(s3_store, run_id) if name.startswith("commits/")) == [
        "commits/001.json",
        "commits/002.json",
    ]
    state = runtime.runs.state(run_id)
    assert state is not None
    assert (state.state, code in (state.error or "")) == ("failed", True)
    trouble.times = 0
    runtime.redis.hset(f"autoseq:run:{run_id}", "state", "queued")  # what `client.resume` does, without a message
    assert serve(runtime, request(run_id))["state"] == "succeeded"
    assert objects_of(s3_store, run_id) == undisturbed(request(run_id))


def test_an_error_that_stays_ends_the_run_within_the_bound(
    services: LocalServices, trouble: Trouble, run_id: str
) -> None:
    config = config_of(env_of(services, DATABASE, s3_endpoint=trouble.endpoint, outage_timeout_s=0.5))
    impatient = WorkerRuntime.connect(config)
    trouble.place, trouble.times = "/commits/003", 10**9
    with pytest.raises(RunFailed, match=r"S3 was away for more than 0\.5 s \(outage_timeout_s\): .*SlowDown"):
        serve(impatient, request(run_id))
    impatient.close()
