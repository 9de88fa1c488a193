"""Many come late, and lose their connection again and again: each goes on from the last event it has."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

from redis import Redis

from storage import keys
from storage.events import Gap, RunEvent
from storage.redis.follow import START, follow
from tests.chaos.ground import Ground, Report, names

LINE_S = 0.1
"""How long a reader's connection holds."""
LATENESS_S = 1.0
"""Over which the readers come."""


def readers(on: Ground, *, seed: int, readers: int, cap: int | None) -> Report:
    """Everyone reads a real run; with a `cap` its stream is kept that short, and what is gone is reported as a gap."""
    on.have_workers(2)
    run_id = on.submit(next(names(f"read-{cap}", seed, images=4)))
    is_over = threading.Event()

    def keep_short() -> None:
        while not is_over.wait(0.02):
            on.client.redis.xtrim(keys.run_events(run_id), maxlen=cap, approximate=False)

    with ThreadPoolExecutor(readers + 1) as pool:
        trimming = pool.submit(keep_short) if cap else None
        reading = [pool.submit(_read, on.client.redis, run_id, LATENESS_S * n / readers) for n in range(readers)]
        read = [one.result() for one in reading]
        is_over.set()
        if trimming:
            trimming.result()
    lengths = [len(events) for events, _ in read]
    gaps = sum(isinstance(event, Gap) for events, _ in read for event in events)
    faults = [f"reader {n}: {fault}" for n, (events, _) in enumerate(read) for fault in _wrong(events, cap)]
    if not cap:
        faults += on.faults([run_id])
    return Report(
        name="readers that reconnect",
        figures=f"{readers} readers, {sum(lines for _, lines in read)} connections, "
        f"{min(lengths)} to {max(lengths)} events each, {gaps} gaps" + (f", stream of {cap}" if cap else ""),
        faults=faults,
    )


def _read(redis: Redis, run_id: str, late_s: float) -> tuple[list[RunEvent], int]:
    """All that one reader gets, and how many connections that took."""
    time.sleep(late_s)
    seen: list[RunEvent] = []
    lines = 0
    while not (seen and seen[-1].is_final):
        lines += 1
        until = time.monotonic() + LINE_S
        try:
            for event in follow(redis, run_id, after=seen[-1].id if seen else START, timeout_s=LINE_S):
                seen.append(event)
                if time.monotonic() >= until:
                    break
        except TimeoutError:
            pass
    return seen, lines


def _wrong(events: list[RunEvent], cap: int | None) -> list[str]:
    """Every event once and in order; what is left out stands behind a gap with the run's state."""
    faults, last, gap = [], 0, False
    for event in events:
        if isinstance(event, Gap):
            gap = True
            faults += [] if event.steps or event.state == "queued" else ["a gap without the run's state"]
            continue
        number = event.n
        if not number:  # a final event that was trimmed before it was read is made up from the state
            faults += [] if cap and event.is_final else [f"{event.type} has no number"]
            continue
        if number <= last or (number != last + 1 and not gap):
            faults.append(f"event {number} comes after {last}")
        last, gap = number, False
    if not cap and any(isinstance(event, Gap) for event in events):
        faults.append("a gap in a stream that is whole")
    return faults
