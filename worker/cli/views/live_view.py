"""A view that is redrawn in place in a terminal, and not shown elsewhere."""

from abc import ABC, abstractmethod
from types import TracebackType
from typing import Self

from rich.console import Console, RenderableType
from rich.live import Live


class LiveView(ABC):
    """A context in which `picture` is shown below the printed lines; it is removed at the end.

    A subclass calls this constructor last in its own, as that draws for the first time.

    Args:
        console: where it is drawn.
        a_second: redraws per second.
    """

    def __init__(self, console: Console, *, a_second: float) -> None:
        self._console = console
        self._live = Live(get_renderable=self.picture, console=console, transient=True, refresh_per_second=a_second)

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
    def picture(self) -> RenderableType:
        """What to draw now."""
