"""What a new GPU computes, in stages that print JSON lines: python -m core.bench.card truths --random-weights 7b.

`truths` tests what the engine assumes about the card, `variants` turns each change off and on, and `final` measures.
All of it also runs on the CPU with a tiny model, so that a card is not the first to run it.
"""

import argparse
import gc
import json
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TypeAlias

import torch

from core.bagel import Bagel
from core.bagel.model import DTYPES
from core.bench import faults, golden, repeat, truths, variants
from core.bench.machine import Machine, measure_machine
from core.bench.random_weights import SIZES, random_model

Line: TypeAlias = Mapping[str, object]


@dataclass(frozen=True)
class Bench:
    """The device under test, and the model, which is loaded by the first stage that needs it."""

    options: argparse.Namespace

    @cached_property
    def device(self) -> torch.device:
        return torch.device(self.options.device or ("cuda:0" if torch.cuda.is_available() else "cpu"))

    @cached_property
    def dtype(self) -> torch.dtype:
        name: str = self.options.dtype or ("bfloat16" if self.device.type == "cuda" else "float32")
        found: torch.dtype = DTYPES[name]
        return found

    @cached_property
    def machine(self) -> Machine:
        return measure_machine(self.device, self.dtype)

    @cached_property
    def model(self) -> Bagel:
        if self.options.random_weights:
            return random_model(self.options.random_weights, self.device, self.dtype)
        name = str(self.dtype).removeprefix("torch.")
        return Bagel.load(self.options.model_path, device=str(self.device), dtype=name)

    @property
    def contexts(self) -> Sequence[int]:
        """Lengths of contexts, in tokens."""
        return (100,) if self.device.type == "cpu" else (100, 9_000, 18_000)

    def again(self) -> Sequence[str]:
        """The command that prints the hash of a sequence in another process."""
        given = ("--random-weights", self.options.random_weights, "--model_path", self.options.model_path)
        pairs = zip(given[::2], given[1::2], strict=True)
        chosen = [str(part) for name, value in pairs if value for part in (name, value)]
        dtype = str(self.dtype).removeprefix("torch.")
        return (
            sys.executable,
            "-m",
            "core.bench.card",
            "hash",
            *chosen,
            "--device",
            str(self.device),
            "--dtype",
            dtype,
        )


STAGES: Mapping[str, Callable[[Bench], Iterator[Line]]] = {
    "versions": lambda bench: truths.versions(bench.device),
    "rates": lambda bench: truths.rates(bench.machine),
    "text attention": lambda bench: truths.text_attention(bench.device, bench.dtype),
    "new key lengths": lambda bench: truths.new_key_lengths(bench.device, bench.dtype),
    "decode attention": lambda bench: truths.decode_attention(bench.device, bench.dtype, bench.contexts),
    "kernels": lambda bench: truths.kernels(bench.model, bench.contexts),
    "golden": lambda bench: golden.golden(bench.options.golden, bench.options.model_path, bench.device),
    "phases": lambda bench: truths.phases(bench.model, bench.machine, bench.contexts, bench.options.rounds),
    "host syncs": lambda bench: truths.host_syncs(bench.model),
    "fused": lambda bench: variants.turns(bench.model, variants.FUSED, bench.options.rounds),
    "cudnn attention": lambda bench: variants.turns(bench.model, variants.CUDNN, bench.options.rounds),
    "hash": lambda bench: repeat.sequence_hash(bench.model),
    "two processes": lambda bench: repeat.two_processes(bench.model, bench.again()),
    "device fault": lambda bench: faults.device_fault(bench.device),
    "full card": lambda bench: faults.full_card(bench.model),
}
"""In the order in which they run; the last ones may leave the device unusable."""
BEYOND_TRUTHS = ("fused", "cudnn attention", "hash")
PROGRAMS = {
    "truths": tuple(name for name in STAGES if name not in BEYOND_TRUTHS),
    "variants": ("versions", "fused", "cudnn attention"),
    "final": ("versions", "rates", "phases", "two processes"),
    "hash": ("hash",),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the stages. Exit 1 if one failed; the others run all the same."""
    options = _parser().parse_args(arguments)
    bench = Bench(options)
    failed = [name for name in options.only or PROGRAMS[options.program] if not _run(name, bench)]
    return int(bool(failed))


def _run(name: str, bench: Bench) -> bool:
    """Print the lines of a stage as they are found, and at last its time and peak memory, or its error."""
    cuda = bench.device.type == "cuda"
    start, error = time.perf_counter(), None
    try:
        if cuda:
            torch.cuda.reset_peak_memory_stats(bench.device)
        for line in STAGES[name](bench):
            _print(stage=name, **line)
    except Exception as failure:  # noqa: BLE001 - time on a card is short: the other stages run all the same
        error = f"{type(failure).__name__}: {failure}"
        _print(stage=name, error=error, where=traceback.format_exc(limit=-3))
        gc.collect()  # what the failed stage held
    peak = torch.cuda.max_memory_allocated(bench.device) if cuda else None
    _print(stage=name, done=error is None, seconds=round(time.perf_counter() - start, 3), peak_bytes=peak)
    return error is None


def _print(**line: object) -> None:
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m core.bench.card", description="Test and measure a new GPU.")
    parser.add_argument("program", choices=PROGRAMS)
    model = parser.add_mutually_exclusive_group(required=True)
    model.add_argument("--model_path", type=Path, help="model folder in the official BAGEL layout")
    model.add_argument("--random-weights", choices=SIZES, help="random weights instead of a folder")
    parser.add_argument(
        "--golden", type=Path, nargs="*", default=(), help="folders of golden sets, each with its model"
    )
    parser.add_argument("--only", nargs="+", choices=STAGES, metavar="STAGE", help="run these stages instead")
    parser.add_argument("--rounds", type=int, default=3, help="samples of each time (default: %(default)s)")
    parser.add_argument("--device", help="cpu or cuda:1 (default: cuda:0 if available)")
    parser.add_argument("--dtype", choices=DTYPES, help="default: bfloat16 on CUDA, else float32")
    return parser


if __name__ == "__main__":
    sys.exit(main())
