"""Workers under load, and the processor time that they take."""

import os
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from tests.worker.serving import DEADLINE_S, WorkerProcess

TICKS_A_SECOND = os.sysconf("SC_CLK_TCK")
TAKEN = "Task worker.run["
"""In Celery's log: a run came to a worker, or ended there, with its id behind."""


@contextmanager
def fleet(size: int, env: Mapping[str, str], folder: Path) -> Iterator[list[WorkerProcess]]:
    """So many workers, ready; they end with the block."""
    folder.mkdir(parents=True)
    workers = [WorkerProcess(env, folder / f"worker{number}.log") for number in range(size)]
    try:
        for worker in workers:
            worker.wait_until_ready()
        yield workers
    finally:
        for worker in workers:
            worker.process.terminate()  # once: a second one may meet an interpreter that is half gone
        codes = [worker.process.wait(DEADLINE_S) for worker in workers]
    assert codes == [0] * size, codes


def cpu_s(workers: list[WorkerProcess]) -> float:
    """Seconds of processor time of the workers and their child processes until now."""
    return sum(_cpu_ticks(worker.process.pid) for worker in workers) / TICKS_A_SECOND


def _cpu_ticks(pid: int) -> int:
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    # The fields follow the name, which is in parentheses and may hold anything: utime and stime are the 12th and 13th.
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12]) + sum(_cpu_ticks(int(child)) for child in children)


def logged(workers: list[WorkerProcess], word: str) -> Counter[str]:
    """Run id -> how many lines of the workers' logs say `word` (received, succeeded) of it."""
    found: Counter[str] = Counter()
    for worker in workers:
        for line in worker.output.splitlines():
            _, is_of_a_run, rest = line.partition(TAKEN)
            run_id, _, said = rest.partition("] ")
            if is_of_a_run and said.startswith(word):
                found[run_id] += 1
    return found
