"""A checkpoint folder in the official BAGEL layout, read without loading its weights."""

import hashlib
import json
import logging
import math
import struct
import tempfile
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from recipes.model_spec import ModelSpec, ResizeRule, TrainingLimits

OFFICIAL_VAE_TRANSFORM = {"max_size": 1024, "min_size": 512, "stride": 16}
OFFICIAL_VIT_TRANSFORM = {"max_size": 980, "min_size": 224, "stride": 14}
FINGERPRINTED = (
    *("config.json", "llm_config.json", "vit_config.json"),
    *("tokenizer.json", "tokenizer_config.json", "vocab.json", "merges.txt", "added_tokens.json"),
    *("special_tokens_map.json", "ema.safetensors", "ae.safetensors"),
)
"""The files that decide what a model computes."""
MAX_HEADER_BYTES = 100_000_000  # the limit of the safetensors format

log = logging.getLogger(__name__)


class ModelFolderError(ValueError):
    """A checkpoint folder can't be used: names the folder, what is wrong and what is expected."""

    @staticmethod
    def missing(path: Path) -> "ModelFolderError":
        """The error for a missing file."""
        return ModelFolderError(f"{path}: no such file; a model folder in the official BAGEL layout has it")


def read_spec(folder: Path, name: str | None = None) -> ModelSpec:
    """The spec of the model in `folder`. Raises ModelFolderError when a file is missing or malformed."""
    config, llm = (
        read_json(folder, "config.json", required=False),
        read_json(folder, "llm_config.json", required=True),
    )
    vae = _resize_rule(folder, "vae_transform", OFFICIAL_VAE_TRANSFORM, config)
    defaults = _object(folder, "defaults", config)
    try:
        head_dim = llm.get("head_dim") or llm["hidden_size"] // llm["num_attention_heads"]
        kv_values = 2 * llm["num_hidden_layers"] * llm["num_key_value_heads"] * head_dim
    except KeyError as missing:
        raise ModelFolderError(f"{folder / 'llm_config.json'}: the key {missing} is missing") from None
    except (TypeError, ZeroDivisionError) as error:
        raise ModelFolderError(f"{folder / 'llm_config.json'}: its sizes are not whole numbers: {error}") from error
    return ModelSpec(
        name=name or folder.resolve().name.lower(),
        vae=vae,
        vit=_resize_rule(folder, "vit_transform", OFFICIAL_VIT_TRANSFORM, config),
        max_side_px=_latent_table_side(folder) * vae.stride_px,
        text_defaults=_object(folder, "text", defaults),
        image_defaults=_object(folder, "image", defaults),
        kv_values_per_token=kv_values,
        limits=_limits(folder, config),
    )


def fingerprint(folder: Path, cache: Path | None = None) -> str:
    """The identity of the model in `folder`: a SHA-256 (hexadecimal) of its configuration, tokenizer and weights.

    It is the SHA-256 of one line `<SHA-256 of the content>  <name>` for each existing file of FINGERPRINTED, in
    that order (the format of sha256sum). Renaming or moving the folder does not change it.

    Args:
        folder: a checkpoint folder.
        cache: a JSON file that keeps the hashes of files by path, size and time of change, so that not all weights are
            read at every start; None reads all files.

    Raises ModelFolderError when a file can't be read.
    """
    known = _read_cache(cache)
    used: dict[str, str] = {}
    lines = []
    for name in FINGERPRINTED:
        file = folder.resolve() / name
        try:
            stat = file.stat()
            version = f"{file}|{stat.st_size}|{stat.st_mtime_ns}"
            used[version] = known.get(version) or _sha256(file)
        except FileNotFoundError:
            continue
        except OSError as error:
            raise ModelFolderError(f"{file}: can't be read: {error.strerror or error}") from error
        lines.append(f"{used[version]}  {name}\n")
    if cache and not used.items() <= known.items():
        _write_cache(cache, {**known, **used})
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _sha256(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def _read_cache(cache: Path | None) -> dict[str, str]:
    try:
        loaded = json.loads(cache.read_text()) if cache else {}
    except (OSError, ValueError):  # the cache is created again
        return {}
    return loaded if isinstance(loaded, dict) else {}


def _write_cache(cache: Path, hashes: Mapping[str, str]) -> None:
    """Replace the cache atomically. If that fails, only warn: the next start then hashes the files again."""
    try:
        cache.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=cache.parent, delete=False) as file:
            json.dump(hashes, file)
        Path(file.name).replace(cache)
    except OSError as error:
        log.warning(
            "the model's hashes can't be written to %s, so the next start reads the weights again: %s", cache, error
        )


def _resize_rule(folder: Path, name: str, official: Mapping[str, int], config: Mapping[str, Any]) -> ResizeRule:
    sizes = {**official, **_object(folder, name, config)}
    for key in official:
        if not isinstance(sizes[key], int) or sizes[key] < 1:
            what = f"{name}.{key} is {sizes[key]!r}, expected a positive whole number"
            raise ModelFolderError(f"{folder / 'config.json'}: {what}")
    return ResizeRule(max_px=sizes["max_size"], min_px=sizes["min_size"], stride_px=sizes["stride"])


def _limits(folder: Path, config: Mapping[str, Any]) -> TrainingLimits:
    """The limits under `limits` in config.json; None where it has none."""
    stated = _object(folder, "limits", config)
    limits = {field.name: stated.get(field.name) for field in fields(TrainingLimits)}
    for name, limit in limits.items():
        if limit is not None and (type(limit) is not int or limit < 1):
            what = f"limits.{name} is {limit!r}, expected a positive whole number"
            raise ModelFolderError(f"{folder / 'config.json'}: {what}")
    return TrainingLimits(**limits)


def _object(folder: Path, name: str, config: Mapping[str, Any]) -> dict[str, Any]:
    """The JSON object under `name` in config.json, or in one of its objects; empty when there is none."""
    found = config.get(name, {})
    if not isinstance(found, dict):
        raise ModelFolderError(f"{folder / 'config.json'}: {name} is {found!r}, expected a JSON object")
    return found


def _latent_table_side(folder: Path) -> int:
    """Rows of the square position table for latents, from the header of the weights.

    The published 7B folder's config.json states 32, which is stale: the stored table has 64 x 64 places.
    """
    path = folder / "ema.safetensors"
    try:
        with path.open("rb") as file:
            (header_bytes,) = struct.unpack("<Q", file.read(8))
            header = json.loads(file.read(min(header_bytes, MAX_HEADER_BYTES)))
        return math.isqrt(header["latent_pos_embed.pos_embed"]["shape"][0])
    except FileNotFoundError:
        raise ModelFolderError.missing(path) from None
    except (OSError, struct.error, ValueError, KeyError, TypeError) as error:
        raise ModelFolderError(f"{path}: its header can't be read: {type(error).__name__}: {error}") from error


def read_json(folder: Path, name: str, *, required: bool) -> dict[str, Any]:
    """The JSON object in a file of `folder`; empty when the file is missing and not `required`.

    Raises ModelFolderError when it can't be read.
    """
    path = folder / name
    try:
        loaded = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        if not required:
            return {}
        raise ModelFolderError.missing(path) from None
    except (OSError, ValueError) as error:
        raise ModelFolderError(f"{path}: can't be read as JSON: {error}") from error
    if not isinstance(loaded, dict):
        raise ModelFolderError(f"{path}: holds {type(loaded).__name__}, expected a JSON object")
    return loaded
