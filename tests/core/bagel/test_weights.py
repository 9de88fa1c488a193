"""A model folder's weights: every official name, faults said in full, and spread over memory and disk."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from core.bagel import Bagel
from core.bagel.network import Network
from core.bagel.weights import AUTOENCODER_FILE, AUTOENCODER_MODULES, MODEL_FILE, parts_of, stored_name
from core.geometry import BagelConfig
from core.model_folder import ModelFolderError
from core.protocol import Context, Drawn, Picture, Text
from recipes.recipe import ImageSettings, TextSettings
from tests.core.bagel.golden import GOLDEN, MODELS, levels, load

OFFICIAL_LLM = {
    "hidden_size": 3584,
    "intermediate_size": 18944,
    "num_attention_heads": 28,
    "num_hidden_layers": 28,
    "num_key_value_heads": 4,
    "rms_norm_eps": 1e-06,
    "rope_theta": 1000000.0,
    "vocab_size": 152064,
}
OFFICIAL_VIT = {
    "hidden_size": 1152,
    "image_size": 980,
    "intermediate_size": 4304,
    "num_attention_heads": 16,
    "num_hidden_layers": 27,
    "patch_size": 14,
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of a checkpoint, to be spoilt."""
    copy = tmp_path / "model"
    shutil.copytree(GOLDEN / "random", copy, ignore=shutil.ignore_patterns("golden*", "*.png"))
    return copy


def test_the_official_model_has_just_our_tensors(tmp_path: Path) -> None:
    (tmp_path / "llm_config.json").write_text(json.dumps(OFFICIAL_LLM))
    (tmp_path / "vit_config.json").write_text(json.dumps(OFFICIAL_VIT))
    with torch.device("meta"):
        network = Network(BagelConfig.read(tmp_path))
    ours: dict[str, dict[str, list[int]]] = {MODEL_FILE: {}, AUTOENCODER_FILE: {}}
    for name, _ in network.named_parameters():
        file = AUTOENCODER_FILE if name.startswith(AUTOENCODER_MODULES) else MODEL_FILE
        ours[file] |= {stored_name(part.name): list(part.shape) for part in parts_of(network, name)}
    assert ours == json.loads((GOLDEN / "bagel_7b_mot_tensors.json").read_text())
    assert not list(network.named_buffers())


def rewrite(folder: Path, file: str, change: Callable[[dict[str, Tensor]], None]) -> None:
    tensors = load_file(folder / file)
    change(tensors)
    save_file(tensors, folder / file)


def test_tensors_that_do_not_fit_are_counted_and_named(folder: Path) -> None:
    def spoil(tensors: dict[str, Tensor]) -> None:
        for layer in range(4):
            del tensors[f"language_model.model.layers.{layer}.mlp_moe_gen.up_proj.weight"]
            del tensors[f"language_model.model.layers.{layer}.self_attn.q_proj.bias"]
        tensors["vae2llm.weight"] = torch.zeros(64, 17)
        tensors["lora.weight"] = torch.zeros(1)

    rewrite(folder, MODEL_FILE, spoil)
    with pytest.raises(ModelFolderError) as caught:
        Bagel.load(folder, device="cpu")
    message = str(caught.value)
    assert str(folder) in message
    assert "8 missing (language_model.model.layers.0." in message
    assert "…" in message
    assert "1 unexpected (lora.weight)" in message
    assert "1 with the wrong shape (vae2llm.weight [64, 17], expected [64, 16])" in message


@pytest.mark.parametrize("file", [MODEL_FILE, AUTOENCODER_FILE, "llm_config.json", "vit_config.json", "tokenizer.json"])
def test_a_missing_file_is_named(folder: Path, file: str) -> None:
    (folder / file).unlink()
    with pytest.raises(ModelFolderError, match=rf"{file}: no such file"):
        Bagel.load(folder, device="cpu")


@pytest.mark.parametrize(
    ("file", "content", "said"),
    [
        (MODEL_FILE, "not safetensors", f"{MODEL_FILE}: .*can't be read"),
        (AUTOENCODER_FILE, "not safetensors", f"{AUTOENCODER_FILE}: can't be read as safetensors"),
        ("llm_config.json", "{", "can't be read as JSON"),
        ("vit_config.json", "[]", "holds list, expected a JSON object"),
        ("vit_config.json", "{}", "has no key 'hidden_size'"),
        ("config.json", '{"vae_config": {"ch_mult": 3}}', "a value in a JSON file has the wrong type"),
        ("tokenizer.json", "{}", "not a tokenizer"),
    ],
)
def test_a_malformed_file_is_named(folder: Path, file: str, content: str, said: str) -> None:
    (folder / file).write_text(content)
    with pytest.raises(ModelFolderError, match=said):
        Bagel.load(folder, device="cpu")


def test_a_tokenizer_with_more_tokens_than_the_model_is_refused(folder: Path) -> None:
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    tokenizer["added_tokens"].append({**tokenizer["added_tokens"][-1], "id": 405, "content": "<|more|>"})
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    with pytest.raises(ModelFolderError, match="has 406 tokens, but the vocabulary of the model 405"):
        Bagel.load(folder, device="cpu")


def test_the_stored_table_decides_over_a_stale_size(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    config |= {"max_latent_size": 8, "vit_max_num_patch_per_side": 3}
    (folder / "config.json").write_text(json.dumps(config))
    model = Bagel.load(folder, device="cpu")
    assert (model.network.config.latent_side, model.network.config.vision_side) == (16, 10)
    assert model.spec.max_side_px == 16 * 16


def test_a_table_that_is_no_square_is_refused(folder: Path) -> None:
    rewrite(folder, MODEL_FILE, lambda tensors: tensors.update({"vit_pos_embed.pos_embed": torch.zeros(99, 64)}))
    with pytest.raises(ModelFolderError, match="has 99 rows, expected a square number"):
        Bagel.load(folder, device="cpu")


def test_loading_tells_how_far_it_is() -> None:
    told: list[tuple[int, int]] = []
    model = Bagel.load(MODELS["random"], device="cpu", on_progress=lambda done, total: told.append((done, total)))
    total = sum(parameter.numel() * 4 for parameter in model.network.parameters())
    assert told[-1] == (total, total)
    assert [done for done, _ in told] == sorted({done for done, _ in told})


def test_an_unknown_dtype_is_refused() -> None:
    with pytest.raises(ValueError, match="'float16' is not one of float32, bfloat16"):
        Bagel.load(MODELS["random"], device="cpu", dtype="float16")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"vae_transform": {"max_size": 272, "min_size": 32, "stride": 16}}, "stride 16 and at most 256"),
        ({"vit_transform": {"max_size": 70, "min_size": 28, "stride": 10}}, "stride 14 and at most 140"),
    ],
)
def test_images_too_large_for_the_weights_are_refused(folder: Path, change: dict[str, Any], said: str) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | change))
    with pytest.raises(ModelFolderError, match=said):
        Bagel.load(folder, device="cpu")


@pytest.mark.parametrize("place", [{"device": "tpu"}, {"device": "cuda:99"}, {"gpus": [99]}, {"gpus": [98, 99]}])
def test_a_device_that_is_not_here_is_refused(place: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"there is no device '(tpu|cuda:9\d)'; allowed: cpu"):
        Bagel.load(MODELS["random"], **place)


def outcome(model: Bagel) -> tuple[str, Tensor]:
    """A text and an image from the same context."""
    context = Context(items=(Text("A magical forest"),))
    text = "".join(model.write(context, TextSettings(max_new_tokens=6, temperature=0.0), seed=0))
    settings = ImageSettings(width=64, height=48, num_timesteps=4, cfg_interval=(0.0, 1.0))
    *_, drawn = model.draw(context.plus(Text(text)), settings, seeds=(2,))
    assert isinstance(drawn, Drawn)
    second = context.plus(Text(text), Picture(drawn.images[0]))
    *_, last = model.draw(second, replace(settings, width=None, height=None), seeds=(3,))
    assert isinstance(last, Drawn)
    return text, levels(last.images[0])


@pytest.mark.parametrize(("cpu", "some_kept"), [(5_500_000, True), (400_000, False)])
def test_a_model_that_does_not_fit_stays_on_disk_and_computes_the_same(cpu: int, *, some_kept: bool) -> None:
    spread = Bagel.load(MODELS["random"], device="cpu", max_memory={"cpu": cpu, "disk": "1GB"})
    kept = [name for name, parameter in spread.network.named_parameters() if parameter.device.type == "cpu"]
    left = [name for name, parameter in spread.network.named_parameters() if parameter.device.type == "meta"]
    assert bool(kept) is some_kept
    assert left
    text, image = outcome(spread)
    expected_text, expected_image = outcome(load("random"))
    assert text == expected_text
    assert torch.equal(image, expected_image)
    assert all(spread.network.get_parameter(name).device.type == "meta" for name in left)
