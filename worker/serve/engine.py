"""The model of this process: loaded on first use and kept. The only module of the worker that imports torch."""

import hashlib
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
from worker.settings import Settings

T = TypeVar("T")
SCRIPTED = "scripted"
"""The value of the setting `model` for a model without weights."""
SCRIPTED_SHA256 = hashlib.sha256(b"scripted model 1").hexdigest()
"""The fingerprint of the scripted model; change its number when the model computes something else."""

DEVICE_FAULTS = ("CUDA error", "device-side assert", "CUBLAS_STATUS_", "CUDNN_STATUS_", "No CUDA GPUs are available")
"""Parts of the errors of a device that failed."""


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
        return fingerprint(Path(self._settings.model), self._settings.cache_dir / "model-hashes.json")

    def model(self, on_progress: Callable[[int, int], None] | None = None) -> UnifiedModel:
        """The model, loaded on the first call.

        Args:
            on_progress: called with (bytes read, bytes in all) while the weights are read.

        Raises:
            ModelFolderError: the folder is missing, or its files don't fit the architecture.
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

        torch.set_num_threads(settings.threads or min(torch.get_num_threads(), available_cores()))
        return Bagel.load(
            Path(settings.model),
            name=settings.served_model,
            device=settings.device,
            dtype=settings.dtype,
            gpus=settings.gpus or None,
            on_progress=on_progress,
            max_batch=settings.max_batch,
        )

    def with_memory_freed_once(self, call: Callable[[], T], sizes: Callable[[], str]) -> T:
        """`call()`, repeated once with empty caches if the device runs out of memory.

        Raises RunFailed, with the text of `sizes()`, if it runs out again. The model stays loaded for other runs.
        """
        try:
            return call()
        except RuntimeError as error:
            if not _is_out_of_memory(error):
                raise
            first = str(error)
        self._free_memory()
        try:
            return call()
        except RuntimeError as error:
            if not _is_out_of_memory(error):
                raise
            self._free_memory()
            raise RunFailed(
                f"out of memory on the device, twice, {sizes()}; smaller image.width and image.height, fewer "
                f"max_context_items or fewer images at once (AUTOSEQ_MAX_BATCH) take less: {first}"
            ) from error

    def _free_memory(self) -> None:
        """Free the model's cache of its last context, and the memory that torch keeps for reuse."""
        if self._model is not None:
            self._model.forget()
        if "torch" in sys.modules:
            import torch  # noqa: PLC0415 (loaded already, by the model)

            torch.cuda.empty_cache()


def is_device_fault(error: BaseException) -> bool:
    """Whether the device failed, which makes it useless to this process: every later call fails too."""
    if not isinstance(error, RuntimeError) or "torch" not in sys.modules or _is_out_of_memory(error):
        return False
    import torch  # noqa: PLC0415 (loaded already, by the model)

    # torch before 2.8 raises a plain RuntimeError, and so do cuBLAS and cuDNN.
    return isinstance(error, getattr(torch, "AcceleratorError", ())) or any(
        words in str(error) for words in DEVICE_FAULTS
    )


def _is_out_of_memory(error: RuntimeError) -> bool:
    if "torch" not in sys.modules:
        return False
    import torch  # noqa: PLC0415 (loaded already, by the model)

    return isinstance(error, torch.OutOfMemoryError)
