"""What a new GPU computes, in stages that print JSON lines: python -m core.bench.card truths --random-weights 7b.

`truths` tests what the engine assumes about the card, `variants` turns each change off and on, and `final` measures.
All of it also runs on the CPU with a tiny model, so that a card is not the first to run it.
"""

import argparse
import gc
import json
import logging
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import TypeAlias

import torch

from core.bagel import Bagel
from core.bagel.model import DTYPES
from core.bagel.placement import MemoryLimits
from core.bench import events, faults, final, golden, repeat, truths, variants, weights
from core.bench.machine import Machine, measure_machine, peak_bytes
from core.bench.phases import Phase, phases_of
from core.bench.random_weights import SIZES, random_model
from core.bench.sample import Sample, sample

Line: TypeAlias = Mapping[str, object]
log = logging.getLogger("core")


@dataclass(frozen=True)
class Bench:
    """The device under test, and the model, which is loaded by the first stage that needs it.

    At most one model is on the device at a time.
    """

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
        return self.load()

    @cached_property
    def reference(self) -> Sample:
        """What the plain model computes."""
        sample(self.model, repeat.image_settings(self.model))  # as another model does before its results are kept
        return sample(self.model, repeat.image_settings(self.model))

    def load(self, *, quantize: str | None = None, max_memory: MemoryLimits | None = None) -> Bagel:
        """Another model instead of the one before."""
        self.release()
        size, path, device = self.options.random_weights, self.options.model_path, self.device
        if size:
            return random_model(size, device, self.dtype, quantize=quantize, max_memory=max_memory)
        dtype = self.dtype_name
        return Bagel.load(path, device=str(device), dtype=dtype, quantize=quantize, max_memory=max_memory)

    def release(self) -> None:
        """Free the memory of the model."""
        self.__dict__.pop("model", None)
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(self.device)

    @property
    def dtype_name(self) -> str:
        return str(self.dtype).removeprefix("torch.")

    @property
    def contexts(self) -> Sequence[int]:
        """Lengths of contexts, in tokens."""
        return (100,) if self.device.type == "cpu" else (100, 9_000, 18_000)

    @property
    def phases(self) -> Iterator[Phase]:
        """The phases whose names contain one of `options.phases`."""
        parts = self.options.phases
        found = phases_of(self.model, repeat.image_settings(self.model), self.contexts)
        return (phase for phase in found if any(part in phase.name for part in parts))

    @property
    def arguments(self) -> Sequence[str]:
        """The options for the same model on the same device."""
        size, path = self.options.random_weights, self.options.model_path
        model = ("--random-weights", size) if size else ("--model_path", str(path))
        return (*model, "--device", str(self.device), "--dtype", self.dtype_name)

    @property
    def again(self) -> Sequence[str]:
        """The command that prints the hash of a sequence in another process."""
        return (sys.executable, "-m", "core.bench.card", "hash", *self.arguments)


def _tables(bench: Bench) -> Iterator[Line]:
    bench.release()  # the benchmark loads its own
    work = ("--images", "1", "3", "--variations", "4", "--contexts", *map(str, bench.contexts))
    small = ("--num_timesteps", "3") if bench.device.type == "cpu" else ()
    only = ("--only", "phases", "sequences", "variations", "--rounds", str(bench.options.rounds))
    return final.tables((*bench.arguments, *only, *work, *small), bench.options.json)


def _compared(bench: Bench, quantize: str | None = None) -> Iterator[Line]:
    """A quantized model, or else an offloaded one, and the plain one."""
    reference = bench.reference
    limits = None if quantize else weights.half_of_the_layers(bench.model)
    load = partial(bench.load, quantize=quantize, max_memory=limits)
    return weights.compared(load, reference, bench.options.rounds)


STAGES: Mapping[str, Callable[[Bench], Iterator[Line]]] = {
    "versions": lambda bench: truths.versions(bench.device),
    "warm up": lambda bench: events.warm_up(bench.model),
    "rates": lambda bench: truths.rates(bench.machine),
    "text attention": lambda bench: truths.text_attention(bench.device, bench.dtype),
    "new key lengths": lambda bench: truths.new_key_lengths(bench.device, bench.dtype),
    "decode attention": lambda bench: truths.decode_attention(bench.device, bench.dtype, bench.contexts),
    "int8 product": lambda bench: truths.int8_product(bench.device, bench.dtype),
    "kernels": lambda bench: truths.kernels(bench.phases, bench.device),
    "golden": lambda bench: golden.golden(bench.options.golden, bench.options.model_path, bench.device),
    "phases": lambda bench: truths.phase_times(bench.model, bench.phases, bench.machine, bench.options.rounds),
    "host syncs": lambda bench: truths.host_syncs(bench.model),
    "events": lambda bench: events.event_times(bench.model),
    "fused": lambda bench: variants.turns(bench.model, variants.FUSED, bench.options.rounds),
    "cuda graphs": lambda bench: variants.turns(bench.model, variants.GRAPHS, bench.options.rounds),
    "cudnn attention": lambda bench: variants.turns(bench.model, variants.CUDNN, bench.options.rounds),
    "step cache": lambda bench: variants.turns(bench.model, variants.STEP_CACHES, bench.options.rounds, variants.LONG),
    "batch sizes": lambda bench: variants.batch_sizes(bench.model),
    "images": lambda bench: final.images(bench.model, bench.machine, bench.options.rounds),
    "int8": partial(_compared, quantize="int8"),
    "fp8": partial(_compared, quantize="fp8"),
    "nf4": partial(_compared, quantize="nf4"),
    "offload": _compared,
    "tables": _tables,
    "hash": lambda bench: repeat.sequence_hash(bench.model),
    "two processes": lambda bench: repeat.two_processes(bench.model, bench.again),
    "device fault": lambda bench: faults.device_fault(bench.device),
    "full card": lambda bench: faults.full_card(bench.model),
}
"""By name. The last two may leave the device unusable."""
MODELS = ("int8", "fp8", "nf4", "offload")
VARIANTS = ("fused", "cuda graphs", "cudnn attention", "step cache", "batch sizes", *MODELS)
FINAL = ("images", "tables")
PROGRAMS = {
    "truths": tuple(name for name in STAGES if name not in {*VARIANTS, *FINAL, "hash"}),
    "variants": ("versions", *VARIANTS),
    "final": ("versions", "warm up", "images", "phases", "two processes", "events", *MODELS, "tables"),
    "hash": ("hash",),
}
"""Their stages, in the order in which they run."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the stages. Exit 1 if one failed; the others run all the same."""
    options = _parser().parse_args(arguments)
    bench = Bench(options)
    failed = [name for name in options.only or PROGRAMS[options.program] if not _run(name, bench)]
    return int(bool(failed))


def _run(name: str, bench: Bench) -> bool:
    """Print the lines of a stage as they are found, and at last its time and peak memory, or its error."""
    start, error = time.perf_counter(), None
    warnings = _Warnings(name)
    log.addHandler(warnings)
    try:
        if bench.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(bench.device)
        for line in STAGES[name](bench):
            _print(stage=name, **line)
    except Exception as failure:  # noqa: BLE001 - time on a card is short: the other stages run all the same
        error = f"{type(failure).__name__}: {failure}"
        _print(stage=name, error=error, where=traceback.format_exc(limit=-3))
        gc.collect()  # what the failed stage held
    finally:
        log.removeHandler(warnings)
    seconds = round(time.perf_counter() - start, 3)
    _print(stage=name, done=error is None, seconds=seconds, peak_bytes=peak_bytes(bench.device))
    return error is None


class _Warnings(logging.Handler):
    """Prints what the engine warns of, such as a step that can't be recorded, as lines of a stage."""

    def __init__(self, stage: str) -> None:
        super().__init__(logging.WARNING)
        self.stage = stage

    def emit(self, record: logging.LogRecord) -> None:
        _print(stage=self.stage, warning=record.getMessage())


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
    parser.add_argument("--phases", nargs="+", default=("",), metavar="PART", help="phases with these in their names")
    parser.add_argument("--json", type=Path, help="write the benchmark's report to this file")
    parser.add_argument("--only", nargs="+", choices=STAGES, metavar="STAGE", help="run these stages instead")
    parser.add_argument("--rounds", type=int, default=3, help="samples of each time (default: %(default)s)")
    parser.add_argument("--device", help="cpu or cuda:1 (default: cuda:0 if available)")
    parser.add_argument("--dtype", choices=DTYPES, help="default: bfloat16 on CUDA, else float32")
    return parser


if __name__ == "__main__":
    sys.exit(main())
