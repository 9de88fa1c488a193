"""The console, and the view of a run in progress: bars and streaming text in a terminal, plain lines elsewhere."""

import sys
import threading

from rich.console import Console, Group, RenderableType
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn
from rich.table import Table
from rich.text import Text

from storage.events import (
    ArtifactStored,
    Cancelled,
    Denoised,
    Failed,
    Gap,
    Judged,
    Loading,
    Queued,
    RunEvent,
    Started,
    StepEvent,
    StepStarted,
    Succeeded,
    TextDelta,
)
from storage.figures import image_name, score_text
from worker.cli.views.live_view import LiveView

PLAIN_COLUMNS = 1000
"""Width of output that is not a terminal, so that it is neither wrapped nor cut."""
STEP_COLUMNS, ROLE_COLUMNS = 5, 10
BAR_COLUMNS = 28
MB = 1_000_000
MINUTE_S, HOUR_S = 60, 3600
STATE_STYLES = {"queued": "yellow", "running": "cyan", "succeeded": "green", "failed": "red", "cancelled": "yellow"}


def screen(*, stderr: bool = False) -> Console:
    """The console on stdout or stderr: as wide as the terminal, or PLAIN_COLUMNS wide elsewhere."""
    terminal = (sys.stderr if stderr else sys.stdout).isatty()
    return Console(stderr=stderr, highlight=False, width=None if terminal else PLAIN_COLUMNS)


def clean(text: str) -> str:
    """`text` without control characters, which a terminal would interpret."""
    return "".join(char if char.isprintable() or char == "\n" else " " for char in text).strip()


def one_line(text: str) -> str:
    """`text` on one line, without control characters."""
    return " ".join(clean(text).split())


def cut(text: str, most: int) -> str:
    """`text`, cut to `most` characters."""
    return text if len(text) <= most else f"{text[: most - 1]}…"


def table(*headings: str) -> Table:
    """A table without a frame, whose cells wrap."""
    columns = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
    for heading in headings:
        columns.add_column(heading, overflow="fold")
    return columns


def print_link(console: Console, name: str, address: str) -> None:
    """Print a name and a link on one line that no terminal width breaks, so that it can be clicked and copied."""
    console.print(Text.assemble((f"  {name:<15}", "cyan"), address), soft_wrap=True)


def annotations(*, attempt: int = 0, score: float | None = None, selected: bool | None = None) -> str:
    """The properties of an image to print beside its name: " (attempt 2, score 0.874, selected)", or nothing."""
    notes = [f"attempt {attempt + 1}"] if attempt else []
    if score is not None:
        notes.append(f"score {score_text(score)}")
    if selected is not None:
        notes.append("selected" if selected else "dropped")
    return f" ({', '.join(notes)})" if notes else ""


def duration(seconds: float) -> str:
    """12.3 s, 4:05 or 1:02:03."""
    if seconds < MINUTE_S:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    minutes = f"{whole % HOUR_S // MINUTE_S}:{whole % MINUTE_S:02d}"
    return f"{whole // HOUR_S}:{minutes:0>5}" if whole >= HOUR_S else minutes


class RunView(LiveView):
    """Shows a run from its events. Safe to share between threads.

    Args:
        console: where it is drawn.
        hint: added to the message that the run waits for a worker.
    """

    def __init__(self, console: Console, *, hint: str = "") -> None:
        self._hint = hint
        self._lock = threading.Lock()
        self._roles: dict[int, str] = {}
        self._choices: dict[int, bool] = {}
        """Whether a step has several images to select from, by step."""
        self._steps = 0
        self._writing: int | None = None
        """The step whose text is being generated."""
        self._text = ""
        self._began_at: float | None = None
        self._eta: str = ""
        label = TextColumn("{task.description}", markup=False)
        note = TextColumn("{task.fields[note]}", style="dim", markup=False)
        self._bars = Progress(SpinnerColumn(), label, BarColumn(BAR_COLUMNS), note, console=console)
        self._run = self._bars.add_task("starting", total=None, note="")
        self._part = self._bars.add_task("", total=None, note="", visible=False)
        super().__init__(console, redraws_per_s=8)

    def show_state(self, words: str) -> None:
        """Show the run's state before its first step."""
        self._bars.update(self._run, description=words)
        if not self._console.is_terminal:
            self._console.print(Text(words, style="dim"))

    def show(self, event: RunEvent) -> None:
        """Show an event of the run. Call this in the order of the events."""
        with self._lock:
            self._show(event)
            if self._steps:
                self._advance(event)

    def _show(self, event: RunEvent) -> None:
        match event:
            case Queued(model=model):
                self.show_state("waiting for a worker" + (f" that serves {model}" if model else "") + self._hint)
            case Loading(done=done, total=total):
                self._loading(done, total)
            case Started(done=done):
                self._start(event, done)
            case Gap(step=step):
                self._start(event, max(step - 1, 0))
            case StepStarted():
                self._step(event)
            case TextDelta(delta=delta):
                self._text += delta
            case _:
                self._progress(event)

    def _progress(self, event: RunEvent) -> None:
        match event:
            case Denoised(done=done, total=total):
                self._bars.update(self._part, completed=done, total=total, note=f"{done} of {total}")
            case Judged(scores=scores):
                self._bars.update(self._part, note=f"scored {', '.join(map(score_text, scores))}")
            case ArtifactStored(role="image"):
                self._image(event)
            case Succeeded() | Failed() | Cancelled():
                self._end(event)

    def _loading(self, done: int, total: int) -> None:
        note = f"{done / MB:,.0f} of {total / MB:,.0f} MB"
        self._bars.update(self._run, description="loading the model")
        self._bars.update(self._part, description="weights", completed=done, total=total, note=note, visible=True)
        if done == total:
            self._console.print(Text(f"model loaded: {total / MB:,.0f} MB of weights", style="dim"))

    def _start(self, event: Started | Gap, done: int) -> None:
        """The run starts, or continues after `done` steps; after a gap, the stream lost its earlier events."""
        self._steps = event.steps
        self._writing, self._text, self._eta = None, "", ""
        self._began_at = self._began_at or event.at
        self._bars.update(self._run, description=event.name or "the run", total=1.0)
        self._bars.update(self._part, visible=False)
        if done:
            self._console.print(Text(f"resuming after step {done} of {self._steps}", style="dim"))

    def _step(self, event: StepStarted) -> None:
        self._end_text()
        number, path = event.step, event.path or ""
        if event.kind == "draw":
            role = image_name(event.index, path=path)
            self._choices[number] = (event.variations or 1) > 1 or bool(event.attempt)
            if event.attempt:
                role += f", attempt {event.attempt + 1}"
        else:
            role = f"{path} {event.role or event.kind}".strip()
        self._roles[number] = role
        self._bars.update(self._part, description=role, completed=0, total=None, note="", visible=True)
        match event.kind:
            case "write":
                self._writing = number
            case "read":
                self._line(number, event.text or "(an image)")
            case "forget":
                self._line(number, "(the oldest items leave the context)")

    def _image(self, event: ArtifactStored) -> None:
        """An image is stored: its name, and its score."""
        number, path, attempt = event.step, event.path or "", event.attempt or 0
        self._roles[number] = image_name(event.index, path=path, variation=event.variation or 0)
        # Where a tree forks, all variations continue; only a further attempt is a selection.
        selected = event.selected if self._choices.get(number) and (attempt or not path) else None
        about = annotations(attempt=attempt, score=event.score, selected=selected)
        self._line(number, event.key + about, link=event.url)

    def _end_text(self) -> None:
        """Print the text that was being generated."""
        if self._writing is not None:
            self._line(self._writing, self._text)
        self._writing, self._text = None, ""

    def _end(self, event: Succeeded | Failed | Cancelled) -> None:
        took = why = ""
        if isinstance(event, Succeeded):
            self._end_text()
            took = f" in {duration(event.at - self._began_at)}" if event.at and self._began_at else ""
        elif isinstance(event, Failed) and event.error:
            why = f": {clean(event.error)}"
        self._console.print(Text(f"{event.type}{took}{why}", style=STATE_STYLES[event.type]))

    def _advance(self, event: RunEvent) -> None:
        step = event.step if isinstance(event, StepEvent | Gap) else 0
        if event.eta_s is not None:
            self._eta = f", {duration(event.eta_s)} left"
        note = f"step {step} of {self._steps}" if step else f"{self._steps} steps"
        self._bars.update(self._run, completed=event.fraction, note=note + (self._eta if event.fraction < 1 else ""))

    def _line(self, number: int, words: str, *, link: str | None = None) -> None:
        """Print the line of a step: the text or image that it read, wrote or drew."""
        role = self._roles.get(number, "image")  # its step event may be lost in a gap
        if not self._console.is_terminal:
            self._console.print(Text(f"[{number}/{self._steps}] {role}: {one_line(words)}"))
            return
        shown = Text(clean(words), style=f"link {link}" if link else "")
        self._console.print(_row(Text(str(number), style="dim"), Text(role, style="cyan"), shown))

    def render(self) -> RenderableType:
        """The text being generated and the bars, below the printed lines."""
        if self._writing is None:
            return self._bars
        role = Text(self._roles[self._writing], style="cyan")
        return Group(_row(Text(str(self._writing), style="dim"), role, Text(f"{clean(self._text)}▌")), self._bars)


def _row(number: Text, role: Text, words: Text) -> Table:
    """A text beside its step and role; wrapped lines start below its first."""
    row = Table.grid(padding=(0, 1))
    row.add_column(width=STEP_COLUMNS, justify="right")
    row.add_column(min_width=ROLE_COLUMNS, no_wrap=True)
    row.add_column(overflow="fold")
    row.add_row(number, role, words)
    return row
