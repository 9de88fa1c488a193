"""Quantized linear layers: how far their products are from exact ones, what they store, and what is refused."""

import sys

import pytest
import torch
from torch import Tensor, nn

from core.bagel import Bagel
from core.bagel.layers import JointLinear
from core.bagel.quantize import METHODS, check_method, quantize_experts
from core.memory import QUANTIZATIONS
from core.protocol import Context, Drawn, Text
from recipes.recipe import ImageSettings, TextSettings
from tests.core.bagel.golden import MODELS, load

TINY = MODELS["tiny"]
WIDTH, OUT = 192, 320
# The largest relative error of a product with normally distributed weights and inputs, and the bytes of a weight.
BOUNDS = {"int8": (0.012, 1.0), "fp8": (0.045, 1.0), "nf4": (0.105, 0.5)}


@pytest.fixture
def linear() -> nn.Linear:
    torch.manual_seed(0)
    made = JointLinear(WIDTH, {"q_proj": OUT // 2, "k_proj": OUT // 2}, bias=True)
    made.weight.data.normal_(std=0.02)
    return made.requires_grad_(requires_grad=False)


def relative_error(ours: Tensor, exact: Tensor) -> float:
    return float((ours.double() - exact.double()).norm() / exact.double().norm())


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("rows", [(1,), (2, 7)])
def test_products_are_close_to_the_exact_ones(
    linear: nn.Linear, method: str, dtype: torch.dtype, rows: tuple[int, ...]
) -> None:
    x = torch.randn(*rows, WIDTH).to(dtype)
    exact = nn.functional.linear(x.float(), linear.weight, linear.bias)
    with torch.inference_mode():
        ours = METHODS[method](linear.weight.to(dtype), linear.bias.to(dtype))(x)
    assert (ours.dtype, ours.shape) == (dtype, exact.shape)
    error, bound = relative_error(ours, exact), BOUNDS[method][0]
    assert bound / 3 < error < bound, "a smaller error would mean that nothing is quantized"


@pytest.mark.parametrize("method", METHODS)
def test_a_row_is_computed_by_itself(linear: nn.Linear, method: str) -> None:
    quantized = METHODS[method](linear.weight, linear.bias)
    x = torch.randn(9, WIDTH)
    torch.testing.assert_close(quantized(x)[4:5], quantized(x[4:5]), rtol=1e-2, atol=1e-5)


@pytest.mark.parametrize("method", METHODS)
def test_zeros_stay_zeros(method: str) -> None:
    quantized = METHODS[method](torch.zeros(OUT, WIDTH), None)
    assert not quantized(torch.zeros(3, WIDTH)).any()
    assert not quantized(torch.ones(3, WIDTH)).any()


@pytest.mark.parametrize("method", METHODS)
def test_all_linear_layers_of_a_decoder_layer_are_quantized_and_shrink(linear: nn.Linear, method: str) -> None:
    layer = nn.ModuleDict({"mlp": nn.ModuleDict({"down_proj": linear}), "norm": nn.LayerNorm(WIDTH)})
    exact = linear.weight.numel()
    quantize_experts(layer, method)
    assert not any(isinstance(module, nn.Linear) for module in layer.modules())
    weight = layer.get_submodule("mlp.down_proj").get_parameter("weight")
    assert weight.nbytes == exact * BOUNDS[method][1]
    assert {name for name, _ in layer.named_parameters()} >= {
        "mlp.down_proj.scale",
        "mlp.down_proj.bias",
        "norm.weight",
    }


def test_unknown_methods_and_devices_without_support_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="quantize is 'int3'; allowed: int8, nf4, fp8"):
        check_method("int3", "cpu")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (8, 6))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "an RTX 3090")
    with pytest.raises(ValueError, match=r"8\.9 or later, which an RTX 3090 lacks; allowed: int8, nf4"):
        check_method("fp8", "cuda:0")
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    with pytest.raises(ValueError, match=r"needs bitsandbytes: pip install 'autosequence\[quantize\]'"):
        check_method("nf4", "cpu")
    for method in ("int8", "fp8"):
        check_method(method, "cpu")


@pytest.mark.parametrize("method", METHODS)
def test_a_quantized_model_computes_the_same_after_its_context_is_read_again(method: str) -> None:
    model = Bagel.load(TINY, device="cpu", quantize=method)
    layers = model.network.decoder.layers
    assert not any(isinstance(module, nn.Linear) for module in layers.modules())
    assert isinstance(model.network.lm_head, nn.Linear)
    context = Context(items=(Text("A small red circle at the center on a white background"),))
    image = ImageSettings(width=64, height=64, num_timesteps=5, cfg_img_scale=1.0)

    def outputs() -> list[bytes]:
        text = "".join(model.write(context, TextSettings(max_new_tokens=12), seed=1))
        *_, drawn = model.draw(context, image, seeds=(1, 2))
        assert isinstance(drawn, Drawn)
        return [text.encode(), *(image.tobytes() for image in drawn.images)]

    first = outputs()
    model.forget()
    assert outputs() == first
    exact = load("tiny")
    *_, drawn = exact.draw(context, image, seeds=(1, 2))
    assert isinstance(drawn, Drawn)
    assert [one.tobytes() for one in drawn.images] != first[1:]


def test_the_methods_are_those_whose_memory_is_estimated() -> None:
    assert set(METHODS) == set(QUANTIZATIONS)


def test_a_method_is_checked_before_anything_is_loaded() -> None:
    with pytest.raises(ValueError, match="allowed: int8, nf4, fp8"):
        Bagel.load(TINY, device="cpu", quantize="int3")
