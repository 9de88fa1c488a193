"""What the engine asks of a GPU in each phase, at the full 7B geometry and without a GPU, against a budget."""

from contextlib import suppress
from dataclasses import replace
from typing import Any
from unittest.mock import patch

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from recipes.recipe import ImageSettings
from tests.core.bagel.fake_cuda.budgets import FUSED, INT8, OFFLOADED, TWO_GPUS, WITHOUT_TRITON, Budget
from tests.core.bagel.fake_cuda.estimate import Card
from tests.core.bagel.fake_cuda.model import load, offloaded, on_two_gpus
from tests.core.bagel.fake_cuda.phases import EDITING, GENERATION, SAMPLED, pretending, run
from tests.core.bagel.fake_cuda.recorder import Recorder

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
        problems += [f"{name}: {problem}" for problem in budgets[name].problems(phase)]
    assert not problems, "\n".join(["", *problems])
    assert recorder.phases.keys() == budgets.keys()


def test_one_gpu_with_fused_kernels(one_gpu: Recorder) -> None:
    check(one_gpu, FUSED)


def test_one_gpu_without_triton() -> None:
    check(run(("text",), fused=False), WITHOUT_TRITON)


def test_two_gpus() -> None:
    check(run(("begin", "judge"), keep=on_two_gpus), TWO_GPUS)


def test_offloaded_layers() -> None:
    check(run(("begin",), keep=offloaded), OFFLOADED)


def test_quantized_experts() -> None:
    check(run(("begin",), quantize="int8"), INT8)


@pytest.mark.parametrize(("name", "settings", "most"), [("generation", GENERATION, IMAGE_S), ("edit", EDITING, EDIT_S)])
def test_the_estimate_of_an_image(one_gpu: Recorder, name: str, settings: ImageSettings, most: float) -> None:
    assert Card().image_s(one_gpu.phases, name, settings) <= most


def test_a_token_moves_little_more_than_weights(one_gpu: Recorder) -> None:
    with pretending() as recorder:
        network = load(recorder).network
    used = [value for name, value in network.named_parameters() if ".understanding." in name or name.startswith("lm_")]
    weights = sum(value.nbytes for value in used)
    for name in ("context 100", "context 9000"):
        assert weights < one_gpu.phases[f"text token, {name}"].moved <= TOKEN_OVER_WEIGHTS * weights


def use_a_tensor_on_the_host(_: nn.Module, args: tuple[Tensor]) -> Tensor:
    return args[0] + torch.ones(args[0].shape[-1])


def read_a_number(_: nn.Module, args: tuple[Tensor]) -> None:
    args[0].sum().item()


def with_a_mask(q: Tensor, k: Tensor, v: Tensor, *_: Any, **others: Any) -> Tensor:
    others["attn_mask"] = torch.ones(q.shape[-2], k.shape[-2], dtype=torch.bool, device=q.device)
    return attention(q, k, v, **others)


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
