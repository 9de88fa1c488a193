"""Whether events tell what the device has done: a worker renews its lease by them, and estimates times from them."""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import pairwise

import torch
from PIL import Image

from core.bagel import Bagel
from core.bench.machine import synchronize
from core.bench.repeat import hash_of_run, image_settings
from core.bench.sample import PROMPT, WRITTEN
from core.protocol import Context, Picture

STEPS = 8


def warm_up(model: Bagel) -> Iterator[Mapping[str, object]]:
    """Seconds of the warm-up of a model that has computed nothing, and of the same sequence twice after it."""
    seconds = []
    for work in (model.warm_up, lambda: hash_of_run(model), lambda: hash_of_run(model)):
        start = time.perf_counter()
        work()
        synchronize(model.network.device)
        seconds.append(time.perf_counter() - start)
    yield dict(zip(("warm_up_s", "first_s", "second_s"), seconds, strict=True))


def event_times(model: Bagel) -> Iterator[Mapping[str, object]]:
    """The times between the events of reading, writing and drawing."""
    image, device = image_settings(model, STEPS), model.network.device
    picture = Picture(Image.new("RGB", model.size(Context(), image), "darkgreen"))
    context = Context(items=(PROMPT, picture, PROMPT, picture))
    works: Mapping[str, Callable[[], Iterable[object]]] = {
        "reading": lambda: model.prefill(context, image),
        "writing": lambda: model.write_ids(WRITTEN, 0),
        "drawing": lambda: model.draw(context, image, seeds=(0,)),
    }
    for is_timed in (False, True):  # the first time compiles what has to be
        model.forget()
        for name, work in works.items():
            found = watched(work(), lambda: _mark(device), lambda: synchronize(device))
            if is_timed:
                yield {"work": name, **found}


def watched(
    events: Iterable[object], mark: Callable[[], Callable[[], bool]], wait: Callable[[], None]
) -> Mapping[str, object]:
    """The times between `events`, and how far the device is behind.

    Args:
        events: what to watch.
        mark: marks the end of the work launched so far; the result says whether the device has done it.
        wait: waits for the device.

    Returns:
        `unfinished`: the most earlier events, at an event, whose work the device had not done; at most 1 if the host
        is at most a step ahead. `rest_s`: how long the device still works after the last event.
    """
    marks: list[Callable[[], bool]] = []
    times, unfinished = [time.perf_counter()], 0
    for _ in events:
        times.append(time.perf_counter())
        unfinished = max(unfinished, sum(not is_done() for is_done in marks))
        marks.append(mark())
    end = time.perf_counter()
    wait()
    between = [later - earlier for earlier, later in pairwise(times)]
    return {"seconds_between": between, "unfinished": unfinished, "rest_s": time.perf_counter() - end}


def _mark(device: torch.device) -> Callable[[], bool]:
    if device.type != "cuda":
        return lambda: True
    event = torch.cuda.Event()  # type: ignore[no-untyped-call]  # torch does not annotate it
    event.record(torch.cuda.current_stream(device))
    return event.query
