"""A device that runs out of memory: once costs time, twice costs that run alone."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import pytest
import torch

from core.protocol import Context, Denoising, Drawn
from core.scripted import ScriptedModel
from recipes.recipe import ImageSettings
from storage.objects.s3 import S3Store
from tests.worker.serving import config_of, env_of, objects_of, recipe, request, undisturbed
from worker.cores import available_cores
from worker.errors import RunFailed
from worker.jobs.request import RunRequest
from worker.local.services import LocalServices
from worker.serve.delivery import Delivery, Message
from worker.serve.engine import Engine
from worker.serve.runtime import WorkerRuntime
from worker.settings import Settings

DATABASE = 7


class Scarce(ScriptedModel):
    """Runs out of memory in the middle of an image, `times` times."""

    def __init__(self, times: int) -> None:
        super().__init__()
        self.times = times
        self.forgot = 0

    def draw(self, context: Context, settings: ImageSettings, *, seeds: Sequence[int]) -> Iterator[Denoising | Drawn]:
        for made in super().draw(context, settings, seeds=seeds):
            if isinstance(made, Denoising) and made.done == 3 and len(context.items) > 3 and self.times:
                self.times -= 1
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
            yield made

    def forget(self) -> None:
        self.forgot += 1
        super().forget()


def runtime_with(services: LocalServices, model: ScriptedModel) -> WorkerRuntime:
    config = config_of(env_of(services, DATABASE))
    return replace(WorkerRuntime.connect(config), engine=Engine(config, model))


def serve(runtime: WorkerRuntime, asked: RunRequest) -> dict[str, object]:
    return Delivery(asked, Message(), runtime).run_to_completion()


def test_memory_is_freed_and_the_step_made_again(services: LocalServices, s3_store: S3Store, run_id: str) -> None:
    model = Scarce(times=1)
    runtime = runtime_with(services, model)
    assert serve(runtime, request(run_id))["state"] == "succeeded"
    assert objects_of(s3_store, run_id) == undisturbed(request(run_id))
    assert model.forgot == 1
    runtime.close()


def test_a_run_that_is_too_large_fails_with_its_sizes_and_the_next_one_succeeds(
    services: LocalServices, s3_store: S3Store, run_id: str
) -> None:
    runtime = runtime_with(services, Scarce(times=2))
    with pytest.raises(RunFailed) as raised:
        serve(runtime, request(run_id))
    assert str(raised.value) == (
        "out of memory on the device, twice, at step 6 with 5 context items and 64 x 64 pixels; smaller image.width "
        "and image.height, fewer max_context_items or fewer images at once (AUTOSEQ_MAX_BATCH) take less: "
        "CUDA out of memory. Tried to allocate 2.00 GiB"
    )
    state = runtime.runs.state(run_id)
    assert state is not None
    assert (state.state, state.error) == ("failed", str(raised.value))
    assert serve(runtime, request(f"{run_id}-next"))["state"] == "succeeded"
    assert objects_of(s3_store, f"{run_id}-next") == undisturbed(request(f"{run_id}-next"))
    runtime.close()


def test_dropped_items_do_not_count(services: LocalServices, run_id: str) -> None:
    runtime = runtime_with(services, Scarce(times=2))
    with pytest.raises(RunFailed, match=r"at step 7 with 4 context items and 64 x 64 pixels"):
        serve(runtime, request(run_id, recipe(num_images=3, max_context_items=4)))
    runtime.close()


def test_other_errors_are_not_taken_for_it(services: LocalServices) -> None:
    engine = Engine(config_of(env_of(services, DATABASE)))
    calls: list[int] = []

    def broken() -> None:
        calls.append(1)
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    with pytest.raises(RuntimeError, match="mat1"):
        engine.with_memory_freed_once(broken, lambda: "")
    assert len(calls) == 1


@pytest.mark.model
def test_the_model_computes_with_the_threads_of_the_settings() -> None:
    before = torch.get_num_threads()
    try:
        Engine(Settings(threads=before + 1)).model()
        assert torch.get_num_threads() == before + 1
        torch.set_num_threads(available_cores() + 1)
        Engine(Settings()).model()
        assert torch.get_num_threads() == available_cores()
    finally:
        torch.set_num_threads(before)
