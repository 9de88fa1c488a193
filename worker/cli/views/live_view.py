"""What moves on a screen: a picture that is painted again and again in a terminal, and not at all elsewhere."""

from abc import ABC, abstractmethod
from types import TracebackType
from typing import Self

from rich.console import Console, RenderableType
from rich.live import Live


class LiveView(ABC):
    """A context in which `picture` stands below the lines that stay; it is gone at the end.

    A view calls this class's constructor last in its own, as that paints for the first time.

    Args:
        console: where to.
        a_second: how often it is painted.
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
        """What is to be seen now."""
