"""A device that runs out of memory: once costs time, twice costs that run alone."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import Tensor

from core.bagel import Bagel
from core.bagel.flow import FlowStep
from core.protocol import Context, Denoising, Drawn, Text
from core.scripted import SPEC, ScriptedModel
from recipes.recipe import ImageSettings
from storage.objects.s3 import S3Store
from tests.core.bagel.golden import MODELS, load
from tests.worker.serving import config_of, env_of, objects_of, recipe, request, undisturbed
from worker.cores import available_cores
from worker.errors import RunFailed
from worker.jobs.inputs import Sources
from worker.jobs.job import resolve
from worker.jobs.request import RunRequest
from worker.local.services import LocalServices
from worker.serve.delivery import Delivery, Message
from worker.serve.device_errors import is_device_fault
from worker.serve.engine import Engine
from worker.serve.runtime import WorkerRuntime
from worker.settings import Settings

DATABASE = 7


ALLOCATIONS = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    torch.AcceleratorError("CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported"),
    RuntimeError("CUDA driver error: out of memory"),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
    RuntimeError("GET was unable to find an engine to execute this computation"),
    RuntimeError("Triton Error [CUDA]: out of memory"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:117] err == 0. DefaultCPUAllocator: can't allocate memory: 12"),
]


class Scarce(ScriptedModel):
    """Runs out of memory when it draws more than `room` images at once in a longer context, `times` times."""

    def __init__(self, times: int = 1000, *, room: int = 0, error: RuntimeError = ALLOCATIONS[0]) -> None:
        super().__init__()
        self.times, self.room, self.error = times, room, error
        self.forgot = 0
        self.batches: list[int] = []
        """The sizes of the batches that were tried in a longer context."""

    def draw(self, context: Context, settings: ImageSettings, *, seeds: Sequence[int]) -> Iterator[Denoising | Drawn]:
        together = min(len(seeds), self.max_batch)
        if is_long := len(context.items) > 3:
            self.batches.append(together)
        for made in super().draw(context, settings, seeds=seeds):
            if isinstance(made, Denoising) and made.done == 3 and is_long and together > self.room and self.times:
                self.times -= 1
                raise self.error
            yield made

    def forget(self) -> None:
        self.forgot += 1
        super().forget()


def runtime_with(services: LocalServices, model: ScriptedModel) -> WorkerRuntime:
    config = config_of(env_of(services, DATABASE))
    return replace(WorkerRuntime.connect(config), engine=Engine(config, model))


def serve(runtime: WorkerRuntime, asked: RunRequest) -> dict[str, object]:
    return Delivery(asked, Message(), runtime).run_to_completion()


@pytest.mark.parametrize("error", ALLOCATIONS, ids=repr)
def test_each_failed_allocation_is_recognized(error: RuntimeError) -> None:
    config, errors = config_of({"AUTOSEQ_MODEL": "scripted"}), [error]

    def call() -> str:
        if errors:
            raise errors.pop()
        return "succeeded"

    job = resolve(request("some-run"), SPEC, recipes=config.recipes, sources=Sources())
    assert Engine(config).with_smaller_batches(call, job, lambda: 1) == "succeeded"
    assert not is_device_fault(error)


def test_memory_is_freed_and_the_step_made_again(services: LocalServices, s3_store: S3Store, run_id: str) -> None:
    model = Scarce(times=1)
    runtime = runtime_with(services, model)
    assert serve(runtime, request(run_id))["state"] == "succeeded"
    assert objects_of(s3_store, run_id) == undisturbed(request(run_id))
    assert model.forgot == 1
    runtime.close()


def test_the_batch_is_halved_within_the_step_until_it_fits(
    services: LocalServices, s3_store: S3Store, run_id: str, caplog: pytest.LogCaptureFixture
) -> None:
    model = Scarce(room=2)
    runtime = runtime_with(services, model)
    asked = request(run_id, recipe(variations_per_image=8))
    assert serve(runtime, asked)["state"] == "succeeded"
    assert model.batches == [8, 4, 2]
    assert objects_of(s3_store, run_id) == undisturbed(asked)
    assert [line.split("; ")[1].partition(":")[0] for line in caplog.messages if "out of memory" in line] == [
        f"trying the step again with {images} images at once" for images in (4, 2)
    ]
    assert model.max_batch == ScriptedModel().max_batch, "the next run may be smaller"
    runtime.close()


class ScarceBagel(Bagel):
    """Runs out of memory when it denoises more than two images at once."""

    tried: list[int]

    def denoise(self, context: Context, settings: ImageSettings, noise: Tensor, rows: int) -> Iterator[FlowStep]:
        self.tried.append(noise.shape[0])
        if noise.shape[0] > 2:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return super().denoise(context, settings, noise, rows)


def drawn_by(model: Bagel) -> Tensor:
    """The levels of four images."""
    context, settings = Context(items=(Text("A cat"),)), ImageSettings(width=64, height=48, num_timesteps=4)
    *_, drawn = model.draw(context, settings, seeds=(3, 1, 4, 5))
    assert isinstance(drawn, Drawn)
    return torch.tensor([list(one.tobytes()) for one in drawn.images])


def test_a_halved_batch_draws_the_same_images_within_rounding() -> None:
    whole = load("random")
    scarce = ScarceBagel(whole.spec, whole.network, whole.reader.tokenizer)
    scarce.tried = []
    config = config_of({"AUTOSEQ_MODEL": str(MODELS["random"])})
    asked = request("some-run", recipe(variations_per_image=4, think=False, num_images=1))
    job = resolve(asked, SPEC, recipes=config.recipes, sources=Sources())
    halved = Engine(config, scarce).with_smaller_batches(partial(drawn_by, scarce), job, lambda: 2)
    assert scarce.tried == [4, 2, 2]
    assert (halved - drawn_by(whole)).abs().max() <= 1


def test_a_run_fails_that_is_too_large_for_one_image_at_once(services: LocalServices, run_id: str) -> None:
    model = Scarce()
    runtime = runtime_with(services, model)
    with pytest.raises(RunFailed, match="with 5 context items and 64 x 64 pixels, 5 at once"):
        serve(runtime, request(run_id, recipe(variations_per_image=5)))
    assert model.batches == [5, 2, 1]
    assert model.max_batch == ScriptedModel().max_batch
    runtime.close()


def test_a_run_that_is_too_large_fails_with_its_sizes_and_the_next_one_succeeds(
    services: LocalServices, s3_store: S3Store, run_id: str
) -> None:
    runtime = runtime_with(services, Scarce(times=2))
    with pytest.raises(RunFailed) as raised:
        serve(runtime, request(run_id))
    assert str(raised.value) == (
        "out of memory on the device, also with one image at once, at step 6 with 5 context items and 64 x 64 pixels; "
        "smaller image.width and image.height or fewer max_context_items take less: "
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


def test_other_errors_are_not_taken_for_it(services: LocalServices, run_id: str) -> None:
    model = Scarce(error=RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    runtime = runtime_with(services, model)
    with pytest.raises(RuntimeError, match="mat1"):
        serve(runtime, request(run_id))
    assert model.times == 999, "tried once"
    runtime.close()


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
