"""Prints what each phase asks of a GPU: python -m tests.core.bagel.fake_cuda --only text,edit --ops 10."""

import argparse
import json
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

from core.bagel.quantize import METHODS
from tests.core.bagel.fake_cuda.attention import CAPABILITIES
from tests.core.bagel.fake_cuda.estimate import Card
from tests.core.bagel.fake_cuda.model import offloaded, on_one_gpu, on_two_gpus
from tests.core.bagel.fake_cuda.phases import ALL, EDITING, GENERATION, run
from tests.core.bagel.fake_cuda.recorder import Phase

PLACES = {"one": on_one_gpu, "two": on_two_gpus, "offloaded": offloaded}
GB, TERA, MS = 1e9, 1e12, 1e3


def main() -> int:
    options = _parser().parse_args()
    card = Card(options.bandwidth * TERA, options.tflops * TERA, launch_s=options.launch * 1e-6)
    recorder = run(
        options.only.split(","),
        keep=PLACES[options.layers],
        quantize=options.quantize,
        side=options.side,
        capability=options.capability,
        fused=options.fused,
    )
    faults = [f"{count} x {fault}" for fault, count in recorder.faults.items()]
    lines = ["Estimates from bytes and FLOPs, not measurements.", "", "faults:", *(faults or ["none"])]
    lines += ["", _row(*HEADINGS)]
    lines += [_row(name, *_numbers(phase, card).values()) for name, phase in recorder.phases.items()]
    for name, settings in (("generation", GENERATION), ("edit", EDITING)):
        if {f"{name}: first step", "generation: VAE decode"} <= recorder.phases.keys():
            lines.append(f"{name}, 50 timesteps: {card.image_s(recorder.phases, name, settings):.2f} s op by op")
    for name, phase in recorder.phases.items():
        lines += ["", f"== {name}", *_details(phase, card, options.ops)]
    sys.stdout.write("\n".join(lines) + "\n")
    if options.json:
        told = {name: _numbers(phase, card) for name, phase in recorder.phases.items()}
        options.json.write_text(json.dumps(told, indent=1))
    return 1 if recorder.faults else 0


HEADINGS = (
    "phase",
    "kernels",
    "launches",
    "views",
    "waits",
    "events",
    "TFLOP",
    "host GB",
    "GB",
    "peak GiB",
    "GPU ms",
    "host ms",
)


def _numbers(phase: Phase, card: Card) -> dict[str, Any]:
    return {
        "kernels": len(phase.ops),
        "launches": phase.launches,
        "views": phase.views,
        "waits": phase.syncs.total(),
        "events": phase.events,
        "tflop": round(phase.flops / TERA, 3),
        "gb_from_host": round(phase.from_host / GB, 3),
        "gb": round(phase.moved / GB, 3),
        "peak_gib": round(phase.peak / 2**30, 2),
        "gpu_ms": round(card.gpu_s(phase) * MS, 3),
        "host_ms": round(card.host_s(phase) * MS, 2),
    }


def _row(name: str, *cells: object) -> str:
    return f"{name:36}" + "".join(f"{cell!s:>10}" for cell in cells)


def _details(phase: Phase, card: Card, count: int) -> list[str]:
    """The lines of the engine that cost most, and where the host waits."""
    lines: dict[tuple[str, str], list[float]] = defaultdict(lambda: [0, 0.0, 0])
    for op in phase.ops:
        line = lines[op.name, op.place]
        line[0] += 1
        line[1] += card.op_s(op) * MS
        line[2] += (op.read + op.written) / GB
    most = sorted(lines.items(), key=lambda item: -item[1][1])[:count]
    told = [f"{ms:9.3f} ms {gb:8.3f} GB {n:5} x {name:42} {at}" for (name, at), (n, ms, gb) in most]
    told += [f"   wait: {n} x {why}" for why, n in phase.syncs.most_common()]
    for capability, kernels in phase.backends.items():
        told += [f"   attention on sm_{capability}: {n} x {kernel}" for kernel, n in kernels.most_common()]
    return told


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default=",".join(ALL), help="parts: %(default)s")
    parser.add_argument(
        "--layers", choices=PLACES, default="one", help="the decoder layers: on one or two GPUs, or some in host memory"
    )
    parser.add_argument("--quantize", choices=METHODS, help="the method of the experts' weights")
    parser.add_argument("--side", type=int, default=1024, help="of the images, in pixels")
    parser.add_argument("--capability", type=int, choices=CAPABILITIES, default=90, help="of the GPU")
    parser.add_argument("--fused", action=argparse.BooleanOptionalAction, default=True, help="with the Triton kernels")
    parser.add_argument("--bandwidth", type=float, default=4.3, help="TB/s")
    parser.add_argument("--tflops", type=float, default=790.0, help="TFLOP/s of bfloat16 products")
    parser.add_argument("--launch", type=float, default=5.0, help="microseconds of the host for a kernel")
    parser.add_argument("--ops", type=int, default=8, help="lines of the engine shown for each phase")
    parser.add_argument("--json", type=Path, help="write the numbers to this file")
    return parser


if __name__ == "__main__":
    sys.exit(main())
