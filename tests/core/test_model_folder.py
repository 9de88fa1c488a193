"""What a recipe may assume of a model is read from its folder, and a folder that can't be used says why."""

import json
import shutil
import struct
from pathlib import Path

import pytest

from core.model_folder import ModelFolderError, read_spec
from recipes.model_spec import ResizeRule, TrainingLimits

TINY = Path(__file__).resolve().parents[2] / "models" / "tiny-bagel"
LLM = {"hidden_size": 64, "num_attention_heads": 4, "num_hidden_layers": 3, "num_key_value_heads": 2}


def folder(path: Path, *, table: int = 64, **config: object) -> Path:
    """A model folder as far as specs read it."""
    header = json.dumps({"latent_pos_embed.pos_embed": {"dtype": "F32", "shape": [table * table, 8]}}).encode()
    (path / "ema.safetensors").write_bytes(struct.pack("<Q", len(header)) + header)
    (path / "llm_config.json").write_text(json.dumps(LLM))
    if config:
        (path / "config.json").write_text(json.dumps(config))
    return path


def test_tiny_bagel_is_known_without_its_weights() -> None:
    spec = read_spec(TINY)
    assert (spec.name, spec.stride_px, spec.max_side_px) == ("tiny-bagel", 8, 64)
    assert spec.image_tokens(64, 64) == (2 + 64, 2 + 64)
    assert spec.image_defaults["num_timesteps"] == 24
    assert spec.limits == TrainingLimits(min_side_px=64, max_side_px=64, max_prompt_chars=200)


def test_a_folder_without_our_additions_has_the_official_values(tmp_path: Path) -> None:
    spec = read_spec(folder(tmp_path), "mine")
    assert spec.name == "mine"
    assert (spec.vae, spec.vit) == (
        ResizeRule(max_px=1024, min_px=512, stride_px=16),
        ResizeRule(max_px=980, min_px=224, stride_px=14),
    )
    assert spec.kv_values_per_token == 2 * 3 * 2 * (64 // 4)
    assert (dict(spec.text_defaults), dict(spec.image_defaults)) == ({}, {})
    assert spec.limits == TrainingLimits()


def test_the_stored_table_decides_the_largest_side_not_a_stale_number(tmp_path: Path) -> None:
    assert read_spec(folder(tmp_path, table=64, max_latent_size=32)).max_side_px == 64 * 16


@pytest.mark.parametrize("name", ["llm_config.json", "ema.safetensors"])
def test_a_missing_file_is_named(tmp_path: Path, name: str) -> None:
    (folder(tmp_path) / name).unlink()
    with pytest.raises(ModelFolderError, match=f"{name}: no such file; a model folder in the official BAGEL layout"):
        read_spec(tmp_path)


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("llm_config.json", "{", "can't be read as JSON"),
        ("llm_config.json", "[1]", "holds list, expected a JSON object"),
        ("llm_config.json", "{}", "the key 'hidden_size' is missing"),
        ("llm_config.json", json.dumps({**LLM, "hidden_size": "wide"}), "llm_config.json: "),
        ("llm_config.json", json.dumps({**LLM, "num_attention_heads": 0}), "llm_config.json: "),
        ("config.json", '{"vae_transform": null}', "config.json: "),
        ("config.json", '{"vae_transform": {"stride": "8"}}', "config.json: "),
        ("config.json", '{"vit_transform": {"stride": 0}}', "config.json: "),
        ("config.json", '{"defaults": [1]}', "config.json: "),
        ("config.json", '{"defaults": {"image": 7}}', "config.json: "),
        ("config.json", '{"limits": [64]}', "config.json: limits is [64], expected a JSON object"),
        ("config.json", '{"limits": {"max_side_px": 0}}', "config.json: limits.max_side_px is 0, expected a positive"),
        ("config.json", '{"limits": {"max_prompt_chars": true}}', "config.json: limits.max_prompt_chars is True"),
        ("ema.safetensors", "short", "its header can't be read"),
        ("ema.safetensors", "\x02\0\0\0\0\0\0\0{}", "its header can't be read"),
    ],
)
def test_a_damaged_file_is_named_with_what_is_wrong(tmp_path: Path, name: str, text: str, words: str) -> None:
    (folder(tmp_path) / name).write_text(text)
    with pytest.raises(ModelFolderError) as raised:
        read_spec(tmp_path)
    assert words in str(raised.value)
    assert str(tmp_path) in str(raised.value)


def test_a_folder_is_called_by_its_name_in_lower_case(tmp_path: Path) -> None:
    copy = tmp_path / "BAGEL-7B-MoT"
    copy.mkdir()
    shutil.copy(folder(tmp_path) / "ema.safetensors", copy)
    shutil.copy(tmp_path / "llm_config.json", copy)
    assert read_spec(copy).name == "bagel-7b-mot"
