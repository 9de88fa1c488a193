"""A view that is redrawn in place in a terminal, and not shown elsewhere."""

from abc import ABC, abstractmethod
from types import TracebackType
from typing import Self

from rich.console import Console, RenderableType
from rich.live import Live


class LiveView(ABC):
    """A context that draws `render()` below the printed lines, and removes it at the end.

    A subclass calls this constructor last, because it draws for the first time.

    Args:
        console: where it is drawn.
        redraws_per_s: how often it is drawn again.
    """

    def __init__(self, console: Console, *, redraws_per_s: float) -> None:
        self._console = console
        self._live = Live(get_renderable=self.render, console=console, transient=True, refresh_per_second=redraws_per_s)

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._console.is_terminal:
            self._live.stop()

    @abstractmethod
    def render(self) -> RenderableType:
        """What to draw now."""
