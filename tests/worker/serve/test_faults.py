"""A fault of the worker gives the run back uncharged; a fault of the run fails it."""

import errno
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from core.protocol import Context, Denoising, Drawn
from core.scripted import ScriptedModel
from recipes.recipe import ImageSettings
from storage import keys
from storage.errors import StoreAccessError, StoreRefusedError
from storage.objects.s3 import S3Store
from tests.worker.serving import config_of, env_of, objects_of, recipe, request, undisturbed
from worker.errors import ClaimLost, RunFailed, WorkerFaulty
from worker.jobs.inputs import InputError
from worker.jobs.request import RunRequest
from worker.local.services import LocalServices
from worker.serve.delivery import MAX_FAULTS, Delivery, Message
from worker.serve.engine import Engine
from worker.serve.faults import MAX_IN_A_ROW, FaultCount, fault_of, loading_model
from worker.serve.runtime import WorkerRuntime
from worker.settings import PROJECT

DATABASE = 10
STEPS = 6
"""Of `recipe`."""
ASSERT = "CUDA error: device-side assert triggered"
DEVICE_FAILED = [
    torch.AcceleratorError(ASSERT),
    RuntimeError(ASSERT),
    RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"),
    RuntimeError("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasGemmEx`"),
    torch.AcceleratorError("CUDA error: no kernel image is available for execution on the device"),
    torch.AcceleratorError("CUDA error: uncorrectable ECC error encountered"),
    RuntimeError("CUDA driver error: unknown error"),
    RuntimeError("No CUDA GPUs are available"),
    RuntimeError("The NVIDIA driver on your system is too old (found version 11040)."),
    RuntimeError("Found no NVIDIA driver on your system."),
    RuntimeError("NVML_SUCCESS == DriverAPI::get()->nvmlInit_v2_() INTERNAL ASSERT FAILED"),
    RuntimeError("Triton Error [CUDA]: an illegal memory access was encountered"),
    AssertionError("Torch not compiled with CUDA enabled"),
]
OF_WORKER = [
    *(OSError(number, "no") for number in (errno.ENOSPC, errno.EROFS, errno.EMFILE, errno.EIO)),
    *DEVICE_FAILED[:3],
    RuntimeError("can't start new thread"),
    StoreAccessError("s3://autosequence/…: AccessDenied (HTTP 403)"),
]
OF_RUN = [OSError(errno.ENOENT, "no"), RuntimeError("mat1 and mat2 shapes"), StoreRefusedError("EntityTooLarge")]


class Broken(ScriptedModel):
    """Raises `error` in the middle of its second image."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error = error

    def draw(self, context: Context, settings: ImageSettings, *, seeds: Sequence[int]) -> Iterator[Denoising | Drawn]:
        for made in super().draw(context, settings, seeds=seeds):
            if isinstance(made, Denoising) and made.done == 3 and len(context.items) > 3:
                raise self.error
            yield made


@pytest.fixture
def runtime(services: LocalServices) -> Iterator[WorkerRuntime]:
    opened = WorkerRuntime.connect(config_of(env_of(services, DATABASE)))
    yield opened
    opened.redis.flushdb()
    opened.close()


def serve(runtime: WorkerRuntime, asked: RunRequest) -> dict[str, object]:
    return Delivery(asked, Message(), runtime).run_to_completion()


def state_of(runtime: WorkerRuntime, run_id: str) -> str:
    state = runtime.runs.state(run_id)
    assert state is not None
    return state.state


@pytest.mark.parametrize("error", OF_WORKER, ids=repr)
def test_a_fault_of_the_worker_charges_the_run_nothing(
    runtime: WorkerRuntime, s3_store: S3Store, run_id: str, error: Exception
) -> None:
    broken = replace(runtime, engine=Engine(runtime.config, Broken(error)))
    with pytest.raises(WorkerFaulty) as fault:
        serve(broken, request(run_id))
    assert fault.value.is_lasting == (error in DEVICE_FAILED), "a process can't use a device again that failed"
    assert state_of(runtime, run_id) == "queued"
    assert runtime.redis.hget(keys.run_state(run_id), "attempts") == "0"
    assert runtime.redis.zscore(keys.LEASES, run_id) == 0, "it is queued again at once"
    assert serve(runtime, request(run_id))["state"] == "succeeded"
    assert objects_of(s3_store, run_id) == undisturbed(request(run_id))


@pytest.mark.parametrize("error", OF_RUN, ids=repr)
def test_a_fault_of_the_run_fails_it(runtime: WorkerRuntime, run_id: str, error: Exception) -> None:
    broken = replace(runtime, engine=Engine(runtime.config, Broken(error)))
    with pytest.raises((type(error), RunFailed)) as raised:
        serve(broken, request(run_id))
    assert not isinstance(raised.value, WorkerFaulty)
    assert state_of(runtime, run_id) == "failed"


def test_an_input_that_the_run_may_not_read_is_its_own_fault(runtime: WorkerRuntime, run_id: str) -> None:
    asked = request(run_id, recipe(context=[{"image": "s3://autosequence/no-such-image.png"}]))
    with pytest.raises(RunFailed, match="no-such-image"):
        serve(runtime, asked)
    error = InputError("context[0].image: s3://theirs/a.png can't be read: AccessDenied")
    error.__cause__ = StoreAccessError("AccessDenied (HTTP 403)")
    assert fault_of(error) is None
    error.__cause__ = OSError(errno.EMFILE, "too many open files")
    assert isinstance(fault_of(error), WorkerFaulty)


def test_a_model_that_cannot_be_loaded_is_a_fault_of_the_worker(runtime: WorkerRuntime, run_id: str) -> None:
    config = config_of({"AUTOSEQ_MODEL": str(PROJECT / "models" / "tiny-bagel"), "AUTOSEQ_DEVICE": "cuda:63"})
    broken = replace(runtime, engine=Engine(config))
    with pytest.raises(WorkerFaulty, match=r"this worker can't load its model: \w+: there is no device 'cuda:63'"):
        serve(broken, request(run_id))
    assert state_of(runtime, run_id) == "queued"


def test_an_attempt_that_was_not_counted_is_not_refunded(runtime: WorkerRuntime, run_id: str) -> None:
    stale = replace(runtime, objects=S3Store(replace(runtime.objects.settings, secret_key="wrong")))
    with pytest.raises(WorkerFaulty, match="no access to the bucket of the runs"):
        serve(stale, request(run_id))
    assert runtime.redis.hget(keys.run_state(run_id), "attempts") is None
    stale.objects.close()


def test_a_run_that_makes_every_worker_faulty_fails_in_the_end(runtime: WorkerRuntime, run_id: str) -> None:
    broken = replace(runtime, engine=Engine(runtime.config, Broken(OSError(errno.ENOSPC, "no space left"))))
    ends: list[BaseException] = []
    while not ends or isinstance(ends[-1], WorkerFaulty):
        with pytest.raises((WorkerFaulty, RunFailed)) as ended:
            serve(broken, request(run_id))
        ends.append(ended.value)
        assert len(ends) <= STEPS * (MAX_FAULTS + 1)
    assert len(ends) > MAX_FAULTS, "an attempt that completed a step does not count"
    assert re.match(f"giving up after {MAX_FAULTS} faults of workers .*no space left", str(ends[-1]))
    assert state_of(runtime, run_id) == "failed"


def test_a_run_that_outlasts_its_lease_each_time_fails_in_the_end(runtime: WorkerRuntime, run_id: str) -> None:
    slow = replace(runtime, engine=Engine(runtime.config, Broken(ClaimLost("another worker has it"))))
    ends: list[BaseException] = []
    while not ends or isinstance(ends[-1], ClaimLost):
        with pytest.raises((ClaimLost, RunFailed)) as ended:
            serve(slow, request(run_id))
        ends.append(ended.value)
        assert len(ends) <= STEPS * (MAX_FAULTS + runtime.config.max_attempts + 1)
    assert len(ends) > MAX_FAULTS + runtime.config.max_attempts, "a claim that is lost now and then costs nothing"
    assert str(ends[-1]).startswith(f"giving up after {runtime.config.max_attempts} attempts without progress")


OF_LOADING = [*DEVICE_FAILED, torch.OutOfMemoryError("CUDA out of memory."), MemoryError(), OSError(errno.EIO, "no")]


@pytest.mark.parametrize("error", DEVICE_FAILED, ids=repr)
def test_each_error_of_a_failed_device_is_recognized(error: Exception) -> None:
    fault = fault_of(error)
    assert fault is not None
    assert fault.is_lasting
    assert str(error) in str(fault)


@pytest.mark.parametrize("error", OF_LOADING, ids=repr)
def test_any_error_of_loading_is_a_fault_that_needs_a_new_process(error: Exception) -> None:
    with pytest.raises(WorkerFaulty, match="this worker can't load its model") as fault, loading_model():
        raise error
    assert fault.value.is_lasting


def test_a_worker_is_unhealthy_after_several_faults_in_a_row(tmp_path: Path) -> None:
    count, fault = FaultCount(tmp_path), WorkerFaulty("the disk is full")
    assert [count.add(fault) for _ in range(MAX_IN_A_ROW - 1)] == [False] * (MAX_IN_A_ROW - 1)
    assert count.pause_s(1.0) == 2.0 ** (MAX_IN_A_ROW - 2)
    count.clear()
    assert not count.add(fault)
    assert count.pause_s(1.0) == 1.0


def test_a_new_child_process_continues_the_count_of_faults(tmp_path: Path) -> None:
    ends = [FaultCount(tmp_path).add(WorkerFaulty(f"number {number}")) for number in range(MAX_IN_A_ROW)]
    assert ends == [False] * (MAX_IN_A_ROW - 1) + [True]
    assert FaultCount(tmp_path).reasons() == [f"number {number}" for number in range(MAX_IN_A_ROW)]
    FaultCount(tmp_path).clear()
    assert FaultCount(tmp_path).reasons() == []


def test_faults_are_counted_on_a_disk_that_is_full(tmp_path: Path) -> None:
    count = FaultCount(tmp_path / "missing")
    assert [count.add(WorkerFaulty("no space left")) for _ in range(MAX_IN_A_ROW)][-1]
