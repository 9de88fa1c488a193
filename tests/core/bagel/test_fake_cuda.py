"""What the engine asks of a GPU in each phase, at the full 7B geometry and without a GPU, against a budget."""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any
from unittest.mock import patch

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.core.bagel.fake_cuda.estimate import Card
from tests.core.bagel.fake_cuda.model import Keep, load, offloaded, on_two_gpus
from tests.core.bagel.fake_cuda.phases import EDITING, GENERATION, SAMPLED, pretending, run, sequence
from tests.core.bagel.fake_cuda.recorder import Phase, Recorder

GB, GIB = 1e9, 2**30


@dataclass(frozen=True)
class Budget:
    """What a phase may cost: exactly so many waits of the host for the GPU, and at most so much of the rest."""

    waits: int
    """By accident: numbers read, and copies from memory that is not pinned."""
    events: int
    """On purpose: an event of the step before."""
    kernels: int
    gb: float
    """Read and written, in 10^9 bytes."""
    peak_gib: float
    """Of both GPUs, weights included."""
    attention: str = ""
    """The kernels that PyTorch chooses on compute capability 9.0; another one is slower or plans for each length."""


FUSED = {
    "read a text": Budget(2, 0, 772, 13.9),
}
"""One GPU, with the Triton kernels."""
EAGER = {
    "read a text": Budget(2, 0, 772, 13.9),
}
"""One GPU, with PyTorch's operations alone."""
TWO_GPUS = {
    "read a text": Budget(2, 0, 816, 13.9),
}
OFFLOADED = {
    "read a text": Budget(2, 0, 1132, 52),
}
IMAGE_S, EDIT_S = 7.8, 15.0
"""Of 1024 x 1024 pixels in 50 timesteps, kernel by kernel with the rates of an H200."""
TOKEN_OVER_WEIGHTS = 1.1
"""The bytes that a token moves, against the weights that it needs."""


@pytest.fixture(scope="module")
def one_gpu() -> Recorder:
    return run()


def check(recorder: Recorder, budgets: dict[str, Budget]) -> None:
    """Fails with everything that is over its budget, and where it happens."""
    problems = [f"{count} x {fault}" for fault, count in recorder.faults.items()]
    for name, phase in recorder.phases.items():
        problems += [f"{name}: {problem}" for problem in over(phase, budgets[name])]
    assert not problems, "\n".join(["", *problems])
    assert recorder.phases.keys() == budgets.keys()


def over(phase: Phase, budget: Budget) -> Iterator[str]:
    if phase.syncs.total() != budget.waits:
        yield f"{phase.syncs.total()} waits, budget {budget.waits}: {dict(phase.syncs)}"
    if phase.events != budget.events:
        yield f"{phase.events} waits for events, budget {budget.events}"
    if len(phase.ops) > budget.kernels:
        yield f"{len(phase.ops)} kernels, budget {budget.kernels}"
    if phase.moved > budget.gb * GB:
        yield f"{phase.moved / GB:.2f} GB moved, budget {budget.gb}"
    if phase.peak > budget.peak_gib * GIB:
        yield f"{phase.peak / GIB:.2f} GiB at the peak, budget {budget.peak_gib}"
    if not phase.backends[90].keys() <= set(budget.attention.split()):
        yield f"attention by {dict(phase.backends[90])}, budget {budget.attention}"


def test_one_gpu_with_fused_kernels(one_gpu: Recorder) -> None:
    check(one_gpu, FUSED)


def test_one_gpu_without_triton() -> None:
    check(run(("text",), fused=False), EAGER)


@pytest.mark.parametrize(("keep", "budgets"), [(on_two_gpus, TWO_GPUS), (offloaded, OFFLOADED)])
def test_layers_elsewhere(keep: Keep, budgets: dict[str, Budget]) -> None:
    check(sequence(keep), budgets)


@pytest.mark.parametrize(("name", "settings", "most"), [("generation", GENERATION, IMAGE_S), ("edit", EDITING, EDIT_S)])
def test_the_estimate_of_an_image(one_gpu: Recorder, name: str, settings: Any, most: float) -> None:
    assert Card().image_s(one_gpu.phases, name, settings) <= most


@pytest.mark.parametrize("name", ["context 100", "context 9000"])
def test_a_token_moves_little_more_than_weights(one_gpu: Recorder, name: str) -> None:
    with pretending() as recorder:
        network = load(recorder).network
    used = [value for name, value in network.named_parameters() if ".understanding." in name or name.startswith("lm_")]
    weights = sum(value.nbytes for value in used)
    assert weights < one_gpu.phases[f"text token, {name}"].moved <= TOKEN_OVER_WEIGHTS * weights


def use_a_tensor_on_the_host(_: nn.Module, args: tuple[Tensor]) -> Tensor:
    return args[0] + torch.ones(args[0].shape[-1])


def read_a_number(_: nn.Module, args: tuple[Tensor]) -> None:
    args[0].sum().item()


def with_a_mask(q: Tensor, k: Tensor, v: Tensor, **others: Any) -> Tensor:
    mask = torch.ones(q.shape[-2], k.shape[-2], dtype=torch.bool, device=q.device)
    return attention(q, k, v, **(others | {"attn_mask": mask}))


attention = functional.scaled_dot_product_attention


def test_planted_mistakes_are_found() -> None:
    """The control: without a mistake a text has no fault and no wait, with each of four mistakes it does."""
    with pretending(fused=False) as recorder:
        bagel = load(recorder)
        head = bagel.network.lm_head

        def found() -> str:
            recorder.faults.clear()
            with suppress(RuntimeError), recorder.phase("text") as phase:
                list(bagel.write_ids(replace(SAMPLED, max_new_tokens=1), 1))
            return " ".join((*recorder.faults, *phase.syncs))

        assert "lm_head" not in found()
        for mistake, told in ((use_a_tensor_on_the_host, "found at least two devices"), (read_a_number, "is read")):
            with head.register_forward_pre_hook(mistake):
                assert told in found()
        with patch.object(functional, "scaled_dot_product_attention", with_a_mask):
            assert "attention with a mask" in found()
        head.weight = nn.Parameter(torch.empty(head.weight.shape, device="cuda:0"), requires_grad=False)
        assert "torch.bfloat16 and torch.float32 in mm" in found()
