"""The model of this process: loaded on first use and kept. The only module of the worker that imports torch."""

import hashlib
import logging
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from core.model_folder import fingerprint, read_spec
from core.protocol import UnifiedModel
from core.scripted import SPEC, ScriptedModel
from recipes.model_spec import ModelSpec
from worker.cores import available_cores
from worker.errors import RunFailed
from worker.jobs.job import Job
from worker.serve.device_errors import is_out_of_memory
from worker.settings import Settings

log = logging.getLogger(__name__)

T = TypeVar("T")
SCRIPTED = "scripted"
"""The value of the setting `model` for a model without weights."""
SCRIPTED_SHA256 = hashlib.sha256(b"scripted model 1").hexdigest()
"""The fingerprint of the scripted model; change its number when the model computes something else."""


class Engine:
    """Loads the model of the settings, unless one is passed in."""

    def __init__(self, settings: Settings, model: UnifiedModel | None = None) -> None:
        self._settings = settings
        self._model = model
        self._identified: ModelSpec | None = None

    @property
    def loaded(self) -> bool:
        return self._model is not None

    def spec(self) -> ModelSpec:
        """The spec of the model, read without loading it. Raises ModelFolderError."""
        if self._settings.model == SCRIPTED:
            return SPEC
        return read_spec(Path(self._settings.model), self._settings.served_model)

    def identified_spec(self) -> ModelSpec:
        """The spec with the model's fingerprint; the first call may read all weights. Raises ModelFolderError."""
        if self._identified is None:
            self._identified = replace(self.spec(), sha256=self._fingerprint())
        return self._identified

    def _fingerprint(self) -> str:
        if self._settings.model == SCRIPTED:
            return SCRIPTED_SHA256
        stored = fingerprint(Path(self._settings.model), self._settings.cache_dir / "model-hashes.json")
        quantize = self._settings.quantize
        return stored if quantize is None else hashlib.sha256(f"{stored} {quantize}".encode()).hexdigest()

    def model(self, on_progress: Callable[[int, int], None] | None = None) -> UnifiedModel:
        """The model, loaded on the first call.

        Args:
            on_progress: called with (bytes read, bytes in all) while the weights are read.

        Raises:
            ModelFolderError: the folder is missing, or its files don't fit the architecture.
            ModelTooLargeError: the model does not fit on the GPU.
        """
        if self._model is None:
            self._model = self._load(on_progress)
        return self._model

    def _load(self, on_progress: Callable[[int, int], None] | None) -> UnifiedModel:
        settings = self._settings
        if settings.model == SCRIPTED:
            return ScriptedModel(delay_s=settings.scripted_delay_s)
        import torch  # noqa: PLC0415 (only the process that computes loads torch)

        from core.bagel import Bagel  # noqa: PLC0415
        from core.bagel.fused import KERNELS  # noqa: PLC0415

        KERNELS.wanted = settings.fused
        torch.set_num_threads(settings.threads or min(torch.get_num_threads(), available_cores()))
        return Bagel.load(
            Path(settings.model),
            name=settings.served_model,
            device=settings.device,
            dtype=settings.dtype,
            quantize=settings.quantize,
            gpus=settings.gpus or None,
            on_progress=on_progress,
            max_batch=settings.max_batch,
            context_tokens=settings.context_tokens,
        )

    def warm_up(self, on_progress: Callable[[int, int], None] | None = None) -> None:
        """Do before the first run what it would wait for: identify and load the model, and compute with it once.

        Raises what `model` raises, and the error of a device that can't compute.
        """
        self.identified_spec()
        self.model(on_progress).warm_up()

    def with_smaller_batches(self, call: Callable[[], T], job: Job, step: Callable[[], int]) -> T:
        """`call()`, repeated with free caches and half the batch each time that the device runs out of memory.

        The batch has its size again afterwards. The model stays loaded for other runs.

        Args:
            call: computes the remaining steps of the run.
            job: the run.
            step: the number of the step in which `call` failed.

        Raises:
            RunFailed: a step ran out of memory twice with one image at once.
        """
        model, failed_step = self.model(), 0
        max_batch = model.max_batch
        try:
            while True:
                try:
                    return call()
                except RuntimeError as error:
                    if not is_out_of_memory(error):
                        raise
                    reason = str(error)  # the error itself would keep the tensors of its traceback
                self._free_memory()
                number = step()
                batch = min(model.max_batch, job.images_at(number))
                if batch == 1 and number == failed_step:
                    raise RunFailed(
                        f"out of memory on the device, also with one image at once, {job.sizes_at(number)}; smaller "
                        f"image.width and image.height or fewer max_context_items take less: {reason}"
                    )
                failed_step, model.max_batch = number, max(1, batch // 2)
                log.warning(
                    "run %s: out of memory on the device %s; trying the step again with %d images at once: %s",
                    job.run_id,
                    job.sizes_at(number),
                    model.max_batch,
                    reason,
                )
        finally:
            model.max_batch = max_batch

    def _free_memory(self) -> None:
        """Free the model's cache of its last context, and the memory that torch keeps for reuse."""
        if self._model is not None:
            self._model.forget()
        if "torch" in sys.modules:
            import torch  # noqa: PLC0415 (loaded already, by the model)

            torch.cuda.empty_cache()
