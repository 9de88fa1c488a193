"""S3 answers with errors in the middle of a run: what may pass is waited out, what will not ends the work at once."""

from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest

from storage.objects.s3 import S3Store
from tests.faults.proxy import FaultProxy, Refusal
from tests.worker.serving import config_of, env_of, objects_of, request, undisturbed
from worker.errors import RunFailed, WorkerFaulty
from worker.jobs.request import RunRequest
from worker.local.services import LocalServices
from worker.serve.delivery import Delivery, Message
from worker.serve.runtime import WorkerRuntime

DATABASE = 6


@pytest.fixture
def proxy(services: LocalServices) -> Iterator[FaultProxy]:
    port = urlsplit(services.s3_settings.endpoint or "").port
    assert port is not None
    with FaultProxy(port) as started:
        yield started


@pytest.fixture
def runtime(services: LocalServices, proxy: FaultProxy) -> Iterator[WorkerRuntime]:
    opened = WorkerRuntime.connect(config_of(env_of(services, DATABASE, s3_endpoint=proxy.endpoint)))
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
    runtime: WorkerRuntime, proxy: FaultProxy, s3_store: S3Store, run_id: str, status: int, code: str, place: str
) -> None:
    proxy.refusal = Refusal(status=status, code=code, path=place, times=2)
    assert serve(runtime, request(run_id))["state"] == "succeeded"
    assert len(proxy.refused) == 2
    assert objects_of(s3_store, run_id) == undisturbed(request(run_id))


@pytest.mark.parametrize("code", ["InvalidAccessKeyId", "SignatureDoesNotMatch", "AccessDenied"])
def test_refused_credentials_give_the_run_back_at_once_and_another_worker_goes_on(
    runtime: WorkerRuntime, proxy: FaultProxy, s3_store: S3Store, run_id: str, code: str
) -> None:
    proxy.refusal = Refusal(status=403, code=code, path="/steps/003", times=10**9)
    with pytest.raises(
        WorkerFaulty, match=rf"s3://autosequence/served/{run_id}/steps/003-image.png .*{code} \(HTTP 403\)"
    ):
        serve(runtime, request(run_id))
    assert len(proxy.refused) == 1
    assert sorted(name for name in objects_of(s3_store, run_id) if name.startswith("commits/")) == [
        "commits/001.json",
        "commits/002.json",
    ]
    state = runtime.runs.state(run_id)
    assert state is not None
    assert (state.state, state.error) == ("queued", None)
    proxy.refusal = None
    assert serve(runtime, request(run_id))["state"] == "succeeded"
    assert objects_of(s3_store, run_id) == undisturbed(request(run_id))


def test_an_error_that_stays_ends_the_run_within_the_bound(
    services: LocalServices, proxy: FaultProxy, run_id: str
) -> None:
    config = config_of(env_of(services, DATABASE, s3_endpoint=proxy.endpoint, outage_timeout_s=0.5))
    impatient = WorkerRuntime.connect(config)
    proxy.refusal = Refusal(status=503, code="SlowDown", path="/commits/003", times=10**9)
    with pytest.raises(RunFailed, match=r"S3 was unavailable for more than 0\.5 s \(outage_timeout_s\): .*SlowDown"):
        serve(impatient, request(run_id))
    impatient.close()
