"""This process's model: loaded once, on first use, and kept. The one door to torch."""

from collections.abc import Callable
from pathlib import Path

from core.protocol import UnifiedModel
from core.scripted import CARD, ScriptedModel
from recipes.card import ModelCard
from worker.settings import Settings

SCRIPTED = "scripted"
"""The model setting that means a model without weights."""


class Engine:
    """Loads the model that the settings name."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._model: UnifiedModel | None = None

    @property
    def loaded(self) -> bool:
        return self._model is not None

    def card(self) -> ModelCard:
        """What the model is, read without loading it. Raises ModelFolderError."""
        if self._settings.model == SCRIPTED:
            return CARD
        return ModelCard.read(Path(self._settings.model), self._settings.served_model)

    def model(self, on_progress: Callable[[int, int], None] | None = None) -> UnifiedModel:
        """The model, loaded when this is the first call.

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
        from core.bagel import Bagel  # noqa: PLC0415 (torch is loaded in the process that computes, and in no other)

        return Bagel.load(
            Path(settings.model),
            name=settings.served_model,
            device=settings.device,
            dtype=settings.dtype,
            gpus=settings.gpus or None,
            on_progress=on_progress,
        )
