"""What the command line shows of a run under way: bars and streaming text in a terminal, plain lines elsewhere."""

import sys
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn
from rich.table import Table
from rich.text import Text

from storage.figures import image_name, score_text
from storage.redis.state import ProgressEvent
from worker.cli.views.live_view import LiveView

PLAIN_COLUMNS = 1000
"""Nothing is wrapped or cut where it is not looked at on a screen."""
STEP_COLUMNS, ROLE_COLUMNS = 5, 10
BAR_COLUMNS = 28
MB = 1_000_000
MINUTE_S, HOUR_S = 60, 3600
STATE_STYLES = {"queued": "yellow", "running": "cyan", "succeeded": "green", "failed": "red", "cancelled": "yellow"}


def screen(*, stderr: bool = False) -> Console:
    """The console on stdout or stderr: as wide as the terminal, else without end."""
    terminal = (sys.stderr if stderr else sys.stdout).isatty()
    return Console(stderr=stderr, highlight=False, width=None if terminal else PLAIN_COLUMNS)


def clean(text: str) -> str:
    """`text` without the characters that a terminal would obey."""
    return "".join(char if char.isprintable() or char == "\n" else " " for char in text).strip()


def annotations(*, attempt: int = 0, score: float | None = None, chosen: bool | None = None) -> str:
    """What there is to say of an image beside its name: " (try 2, score 0.874, chosen)"; nothing of a plain one."""
    told = [f"try {attempt + 1}"] if attempt else []
    if score is not None:
        told.append(f"score {score_text(score)}")
    if chosen is not None:
        told.append("chosen" if chosen else "dropped")
    return f" ({', '.join(told)})" if told else ""


def duration(seconds: float) -> str:
    """12.3 s, 4:05 or 1:02:03."""
    if seconds < MINUTE_S:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    minutes = f"{whole % HOUR_S // MINUTE_S}:{whole % MINUTE_S:02d}"
    return f"{whole // HOUR_S}:{minutes:0>5}" if whole >= HOUR_S else minutes


@dataclass
class _Pace:
    """When this start of the run began, by its events' own clock, and how far it was then."""

    at: float = 0.0
    fraction: float = 0.0

    def left_s(self, at: float, fraction: float) -> float | None:
        """Seconds to the end; None before anything is known."""
        done = fraction - self.fraction
        return (at - self.at) * (1 - fraction) / done if done > 0 else None


class RunView(LiveView):
    """Shows one run as its events come. Safe to share between threads.

    Args:
        console: where to.
        hint: what helps when no worker takes the run.
    """

    def __init__(self, console: Console, *, hint: str = "") -> None:
        self._hint = hint
        self._lock = threading.Lock()
        self._roles: dict[int, str] = {}
        self._choices: dict[int, bool] = {}
        """By step, whether it leaves a choice to the judge."""
        self._steps = 0
        self._writing: int | None = None
        """The step whose text is being written."""
        self._text = ""
        self._pace = _Pace()
        self._began_at: float | None = None
        label = TextColumn("{task.description}", markup=False)
        note = TextColumn("{task.fields[note]}", style="dim", markup=False)
        self._bars = Progress(SpinnerColumn(), label, BarColumn(BAR_COLUMNS), note, console=console)
        self._run = self._bars.add_task("starting", total=None, note="")
        self._part = self._bars.add_task("", total=None, note="", visible=False)
        super().__init__(console, a_second=8)

    def say(self, words: str) -> None:
        """Tell what goes on around the run, which is all there is to see of it now."""
        self._bars.update(self._run, description=words)
        if not self._console.is_terminal:
            self._console.print(Text(words, style="dim"))

    def show(self, event: ProgressEvent) -> None:
        """Show one event of the run; they come in order."""
        with self._lock:
            self._show(event.type, event.data)

    def _show(self, kind: str, data: Mapping[str, Any]) -> None:
        match kind:
            case "queued":
                self.say(" of ".join(filter(None, ("waiting for a worker", data.get("model")))) + self._hint)
            case "loading":
                self._loading(data["done"], data["total"])
            case "started" | "gap":
                self._start(data)
            case "step":
                self._step(data)
            case "text":
                self._text += data["delta"]
            case "denoised":
                note = f"{data['done']} of {data['total']}"
                self._bars.update(self._part, completed=data["done"], total=data["total"], note=note)
            case _:
                self._made(kind, data)
        if self._steps:
            self._advance(data)

    def _made(self, kind: str, data: Mapping[str, Any]) -> None:
        match kind:
            case "judged":
                self._bars.update(self._part, note=f"scored {', '.join(map(score_text, data['scores']))}")
            case "artifact" if data["role"] == "image":
                self._image(data)
            case "succeeded" | "failed" | "cancelled":
                self._end(kind, data)

    def _loading(self, done: int, total: int) -> None:
        note = f"{done / MB:,.0f} of {total / MB:,.0f} MB"
        self._bars.update(self._run, description="loading the model")
        self._bars.update(self._part, description="weights", completed=done, total=total, note=note, visible=True)
        if done == total:
            self._console.print(Text(f"model loaded: {total / MB:,.0f} MB of weights", style="dim"))

    def _start(self, data: Mapping[str, Any]) -> None:
        """The run begins, or goes on behind `done` steps, here or where the stream lost its beginning."""
        self._steps = data["steps"]
        self._writing, self._text = None, ""
        self._pace = _Pace(at=data.get("at") or data.get("updated_at") or 0.0, fraction=data["fraction"])
        self._began_at = self._began_at or self._pace.at
        self._bars.update(self._run, description=data.get("name") or "the run", total=1.0)
        self._bars.update(self._part, visible=False)
        done = data.get("done", max(data.get("step", 1) - 1, 0))
        if done:
            self._console.print(Text(f"goes on after step {done} of {self._steps}", style="dim"))

    def _step(self, data: Mapping[str, Any]) -> None:
        self._end_text()
        number, kind = data["step"], data["kind"]
        path = data.get("path", "")
        if kind == "draw":
            role = image_name(data["index"], path=path)
            self._choices[number] = data.get("variations", 1) > 1 or bool(data.get("attempt"))
            if data.get("attempt"):
                role += f", try {data['attempt'] + 1}"
        else:
            role = f"{path} {data.get('role', 'forget')}".strip()
        self._roles[number] = role
        self._bars.update(self._part, description=role, completed=0, total=None, note="", visible=True)
        if kind == "write":
            self._writing = number
        elif kind == "read":
            self._line(number, data.get("text") or "(an image)")
        elif kind == "forget":
            self._line(number, "(the oldest items leave the context)")

    def _image(self, data: Mapping[str, Any]) -> None:
        """An image is stored: its name, and what the judge found of it."""
        number, path = data["step"], data.get("path", "")
        self._roles[number] = image_name(data.get("index"), path=path, variation=data.get("variation", 0))
        attempt = data.get("attempt", 0)
        # Where a tree forks all go on, so that only a further try is worth a word.
        chosen = data.get("chosen") if self._choices.get(number) and (attempt or not path) else None
        about = annotations(attempt=attempt, score=data.get("score"), chosen=chosen)
        self._line(number, data["key"] + about, link=data["url"])

    def _end_text(self) -> None:
        """What was being written is complete."""
        if self._writing is not None:
            self._line(self._writing, self._text)
        self._writing, self._text = None, ""

    def _end(self, state: str, data: Mapping[str, Any]) -> None:
        if state == "succeeded":
            self._end_text()
        ended_at = data.get("at") or data.get("finished_at")
        took = f" in {duration(ended_at - self._began_at)}" if ended_at and self._began_at else ""
        why = f": {clean(data['error'])}" if data.get("error") else ""
        self._console.print(Text(f"{state}{took if state == 'succeeded' else ''}{why}", style=STATE_STYLES[state]))

    def _advance(self, data: Mapping[str, Any]) -> None:
        fraction = data["fraction"]
        at = data.get("at") or data.get("updated_at") or self._pace.at
        left_s = self._pace.left_s(at, fraction)
        step = f"step {data['step']} of {self._steps}" if data.get("step") else f"{self._steps} steps"
        note = f"{step}, {duration(left_s)} left" if left_s is not None and fraction < 1 else step
        self._bars.update(self._run, completed=fraction, note=note)

    def _line(self, number: int, words: str, *, link: str | None = None) -> None:
        """Print one line that stays: what a step read, wrote or drew."""
        role = self._roles.get(number, "image")  # an image's step may lie before what the stream still has
        if not self._console.is_terminal:
            self._console.print(Text(f"[{number}/{self._steps}] {role}: {' '.join(clean(words).split())}"))
            return
        shown = Text(clean(words), style=f"link {link}" if link else "")
        self._console.print(_row(Text(str(number), style="dim"), Text(role, style="cyan"), shown))

    def picture(self) -> RenderableType:
        """What moves below the lines that stay."""
        if self._writing is None:
            return self._bars
        role = Text(self._roles[self._writing], style="cyan")
        return Group(_row(Text(str(self._writing), style="dim"), role, Text(f"{clean(self._text)}▌")), self._bars)


def _row(number: Text, role: Text, words: Text) -> Table:
    """Words beside their step and role, wrapped below themselves."""
    row = Table.grid(padding=(0, 1))
    row.add_column(width=STEP_COLUMNS, justify="right")
    row.add_column(min_width=ROLE_COLUMNS, no_wrap=True)
    row.add_column(overflow="fold")
    row.add_row(number, role, words)
    return row
