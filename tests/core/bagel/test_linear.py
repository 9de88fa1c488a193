"""Products with weights: both libraries of a CPU give what functional.linear gives, and the same bits every time."""

import pytest
import torch
from torch.nn import functional

from core.bagel.linear import ONEDNN_ROWS, Linear, linear, linear_add

ROWS = (1, ONEDNN_ROWS - 1, ONEDNN_ROWS, 66)


@pytest.mark.parametrize("rows", ROWS)
@pytest.mark.parametrize("batch", [(), (1,), (2,)])
def test_products_are_those_of_torch(rows: int, batch: tuple[int, ...]) -> None:
    x, weight = torch.randn(*batch, rows, 96), torch.randn(64, 96)
    bias, residual = torch.randn(64), torch.randn(*batch, rows, 64)
    product = functional.linear(x, weight)
    torch.testing.assert_close(linear(x, weight), product)
    torch.testing.assert_close(linear(x, weight, bias), product + bias)
    torch.testing.assert_close(linear_add(x, weight, residual), product + residual)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_other_dtypes_stay_with_torch(dtype: torch.dtype) -> None:
    x, weight = torch.randn(66, 96, dtype=dtype), torch.randn(64, 96, dtype=dtype)
    assert torch.equal(linear(x, weight), functional.linear(x, weight))


def test_a_weight_with_gaps_between_its_rows_stays_with_torch() -> None:
    x, weight = torch.randn(66, 96), torch.randn(128, 96)[::2]
    assert torch.equal(linear(x, weight), functional.linear(x, weight))


@pytest.mark.parametrize("rows", [rows for rows in ROWS if rows >= ONEDNN_ROWS])
def test_bits_of_onednn_depend_on_neither_place_in_memory_nor_strides(rows: int) -> None:
    x, weight = torch.randn(rows, 96), torch.randn(64, 96)
    shifted = torch.empty(rows * 96 + 1)[1:].view(rows, 96).copy_(x)
    strided = torch.empty(rows, 2, 96)[:, 1].copy_(x)
    residual = torch.randn(rows, 64)
    for other in (shifted, strided):
        assert torch.equal(linear(other, weight), linear(x, weight))
        assert torch.equal(linear_add(other, weight, residual), linear_add(x, weight, residual))


def test_a_residual_is_not_changed() -> None:
    residual = torch.randn(66, 64)
    before = residual.clone()
    linear_add(torch.randn(66, 96), torch.randn(64, 96), residual)
    assert torch.equal(residual, before)


def test_a_layer_multiplies_as_the_function_does() -> None:
    layer, x = Linear(96, 64), torch.randn(66, 96)
    assert torch.equal(layer(x), linear(x, layer.weight, layer.bias))
