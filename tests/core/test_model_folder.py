"""A model folder gives the spec and the fingerprint of its model; a folder that can't be used says why."""

import hashlib
import json
import shutil
import struct
from pathlib import Path

import pytest

from core.model_folder import FINGERPRINTED, ModelFolderError, fingerprint, read_spec
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


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def test_a_fingerprint_is_that_of_the_files_as_sha256sum_lists_them(tmp_path: Path) -> None:
    (tmp_path / "ema.safetensors").write_bytes(b"weights")
    (tmp_path / "config.json").write_bytes(b"{}")
    (tmp_path / "README.md").write_bytes(b"decides nothing")
    lines = f"{sha256(b'{}')}  config.json\n{sha256(b'weights')}  ema.safetensors\n"
    assert fingerprint(tmp_path) == sha256(lines.encode())


def test_a_fingerprint_does_not_depend_on_the_folders_name(tmp_path: Path) -> None:
    original = fingerprint(folder(tmp_path))
    copy, link = tmp_path / "copy", tmp_path / "link"
    copy.mkdir()
    for name in ("ema.safetensors", "llm_config.json"):
        shutil.copy(tmp_path / name, copy)
    link.symlink_to(copy)
    assert fingerprint(copy) == fingerprint(link) == original


@pytest.mark.parametrize("name", FINGERPRINTED)
def test_each_file_that_decides_what_a_model_computes_counts(tmp_path: Path, name: str) -> None:
    before = fingerprint(folder(tmp_path))
    with (tmp_path / name).open("ab") as file:
        file.write(b" ")
    assert fingerprint(tmp_path) != before


def test_hashes_are_kept_until_a_file_changes(tmp_path: Path) -> None:
    cache = tmp_path / "new" / "hashes.json"
    model = tmp_path / "model"
    model.mkdir()
    before = fingerprint(folder(model), cache)
    assert before == fingerprint(model)
    kept = json.loads(cache.read_text())
    cache.write_text(json.dumps(dict.fromkeys(kept, "0" * 64)))
    assert fingerprint(model, cache) not in (before, fingerprint(model))  # read from the cache, not from the files
    cache.write_text(json.dumps(kept))
    weights = model / "ema.safetensors"
    weights.write_bytes(weights.read_bytes() + b" ")
    assert fingerprint(model, cache) == fingerprint(model) != before


@pytest.mark.parametrize("content", ["", "{", "[1]", "\xff"])
def test_a_damaged_cache_is_replaced(tmp_path: Path, content: str) -> None:
    cache = tmp_path / "hashes.json"
    cache.write_text(content, encoding="latin-1")
    model = tmp_path / "model"
    model.mkdir()
    assert fingerprint(folder(model), cache) == fingerprint(model)
    assert len(json.loads(cache.read_text())) == 2


def test_a_cache_that_can_not_be_written_costs_only_time(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").touch()
    model = tmp_path / "model"
    model.mkdir()
    assert fingerprint(folder(model), tmp_path / "file" / "hashes.json") == fingerprint(model)
    assert "can't be written" in caplog.text


def test_a_file_that_can_not_be_read_is_named(tmp_path: Path) -> None:
    (folder(tmp_path) / "config.json").mkdir()
    with pytest.raises(ModelFolderError, match=r"config\.json: can't be read: "):
        fingerprint(tmp_path)
