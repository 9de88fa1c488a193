"""Loads weights from the checkpoint files directly to their devices."""

import math
import re
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from core.bagel.config import BagelConfig
from core.bagel.layers import JointLinear
from core.bagel.network import Network
from core.model_folder import ModelFolderError

MODEL_FILE, AUTOENCODER_FILE = "ema.safetensors", "ae.safetensors"
AUTOENCODER_MODULES = ("latent_encoder.", "latent_decoder.")
NAMED_TENSORS = 4

DeviceMap: TypeAlias = dict[str, str | int]
"""Module name -> GPU number, "cpu" or "disk"; "" is the whole network."""
Progress: TypeAlias = Callable[[int, int], None]
"""Called with bytes loaded and total bytes."""

# Module names here and in the checkpoint; stored_name translates the names of the experts.
_PREFIXES = (
    ("latent_encoder.", "encoder."),
    ("latent_decoder.", "decoder."),
    ("decoder.", "language_model.model."),
    ("lm_head.", "language_model.lm_head."),
    ("latents.", ""),
    ("vision.vit.layers.", "vit_model.vision_model.encoder.layers."),
    ("vision.vit.post_layernorm.", "vit_model.vision_model.post_layernorm."),
    ("vision.vit.", "vit_model.vision_model.embeddings."),
    ("vision.", ""),
)
_EXPERT = re.compile(r"(layers\.\d+)\.(understanding|generation)\.(\w+)\.(.*)")


def stored_name(name: str) -> str:
    """The checkpoint's name of the parameter `name`.

    decoder.layers.3.generation.q_proj.bias -> language_model.model.layers.3.self_attn.q_proj_moe_gen.bias
    """
    for prefix, stored_prefix in _PREFIXES:
        if name.startswith(prefix):
            name = stored_prefix + name.removeprefix(prefix)
            break
    return _EXPERT.sub(_expert_name, name)


def _expert_name(match: re.Match[str]) -> str:
    layer, expert, part, rest = match.groups()
    attention = "" if part == "mlp" or part.endswith("layernorm") else "self_attn."
    suffix = "_moe_gen" if expert == "generation" else ""
    return f"{layer}.{attention}{part}{suffix}.{rest}"


@dataclass(frozen=True)
class Part:
    """A tensor that is stored for a parameter: all of it, or some of its rows."""

    name: str
    """The parameter's name if each part were a module of its own."""
    shape: tuple[int, ...]


def parts_of(network: nn.Module, name: str) -> tuple[Part, ...]:
    """The parts of the parameter `name`, in the order of their rows."""
    module_name, _, attribute = name.rpartition(".")
    module, shape = network.get_submodule(module_name), tuple(network.get_parameter(name).shape)
    if not isinstance(module, JointLinear):
        return (Part(name, shape),)
    parent = module_name.rpartition(".")[0]
    return tuple(Part(f"{parent}.{part}.{attribute}", (rows, *shape[1:])) for part, rows in module.parts.items())


@dataclass(frozen=True, kw_only=True)
class Stored:
    """A tensor in a checkpoint file."""

    path: Path
    name: str
    shape: tuple[int, ...]
    size_bytes: int
    """In the file, whose dtype may be another one than the network's."""


class Checkpoint:
    """The tensors of a model folder; only the headers are read."""

    def __init__(self, folder: Path) -> None:
        """Raises ModelFolderError if a weight file is missing or can't be read."""
        self.folder = folder
        self.model = _headers(folder / MODEL_FILE)
        self.autoencoder = _headers(folder / AUTOENCODER_FILE)

    def stored(self, part: Part) -> Stored:
        """Raises KeyError."""
        tensors = self.autoencoder if part.name.startswith(AUTOENCODER_MODULES) else self.model
        return tensors[stored_name(part.name)]

    def sized(self, config: BagelConfig) -> BagelConfig:
        """`config` with the stored sizes of the position tables (the stated size may be out of date)."""
        return replace(
            config,
            latent_side=self._side("latent_pos_embed.pos_embed", config.latent_side),
            vision_side=self._side("vit_pos_embed.pos_embed", config.vision_side),
        )

    def _side(self, name: str, stated: int) -> int:
        if name not in self.model:
            return stated
        rows = self.model[name].shape[0]
        if math.isqrt(rows) ** 2 != rows:
            raise ModelFolderError(f"{self.folder / MODEL_FILE}: {name} has {rows} rows, expected a square number")
        return math.isqrt(rows)

    def check(self, network: nn.Module) -> None:
        """Raises ModelFolderError if the stored tensors are not exactly those of `network`."""
        missing, wrong_shape, found = [], [], set()
        for part in (part for name, _ in network.named_parameters() for part in parts_of(network, name)):
            try:
                stored = self.stored(part)
            except KeyError:
                missing.append(stored_name(part.name))
                continue
            found.add((stored.path, stored.name))
            if stored.shape != part.shape:
                wrong_shape.append(f"{stored.name} {list(stored.shape)}, expected {list(part.shape)}")
        every = [*self.model.values(), *self.autoencoder.values()]
        unexpected = [stored.name for stored in every if (stored.path, stored.name) not in found]
        problems = (("missing", missing), ("unexpected", unexpected), ("with the wrong shape", wrong_shape))
        parts = [f"{len(names)} {problem} ({_some(names)})" for problem, names in problems if names]
        if parts:
            raise ModelFolderError(f"{self.folder}: the tensors do not match its JSON files: {'; '.join(parts)}")


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:NAMED_TENSORS]) + (", …" if len(names) > NAMED_TENSORS else "")


def _headers(path: Path) -> dict[str, Stored]:
    if not path.is_file():
        raise ModelFolderError.missing(path)
    try:
        with safe_open(path, framework="pt") as file:
            return {
                name: _stored(path, name, file.get_slice(name))
                for name in file.keys()  # noqa: SIM118 - a safetensors file is not a mapping
            }
    except (SafetensorError, OSError) as error:
        raise ModelFolderError(f"{path}: can't be read as safetensors: {error}") from error


def _stored(path: Path, name: str, tensor: Any) -> Stored:  # noqa: ANN401 - safetensors has no type for it
    shape, bits = tuple(tensor.get_shape()), int(tensor.get_dtype().lstrip("BFIU"))  # such as BF16, F32
    return Stored(path=path, name=name, shape=shape, size_bytes=math.prod(shape) * bits // 8)


def fill(
    network: Network, checkpoint: Checkpoint, device_map: DeviceMap, on_progress: Progress | None = None
) -> dict[str, dict[str, str]]:
    """Load the weights of a network on the meta device, each to its own device and in the network's dtype.

    Returns:
        accelerate's index of the parameters that stay on disk: parameter -> file, stored name and dtype.
    """
    parameters = list(network.named_parameters())
    dtype = network.dtype
    stored_parts = {name: [checkpoint.stored(part) for part in parts_of(network, name)] for name, _ in parameters}
    total = sum(stored.size_bytes for parts in stored_parts.values() for stored in parts)
    on_disk: dict[str, dict[str, str]] = {}
    done = 0
    with ExitStack() as files:
        readers = _Readers(files)
        for name, stored in stored_parts.items():
            device = device_of(name, device_map)
            if device == "disk":
                dtype_name = str(dtype).removeprefix("torch.")
                first = stored[0]
                on_disk[name] = {"safetensors_file": str(first.path), "weight_name": first.name, "dtype": dtype_name}
            else:
                parts = [readers.read(part, device).to(dtype) for part in stored]
                value = parts[0] if len(parts) == 1 else torch.cat(parts)
                module, _, attribute = name.rpartition(".")
                setattr(network.get_submodule(module), attribute, nn.Parameter(value, requires_grad=False))
            done += sum(part.size_bytes for part in stored)
            if on_progress is not None:
                on_progress(done, total)
    return on_disk


class _Readers:
    """Open weight files, one per device."""

    def __init__(self, files: ExitStack) -> None:
        self.files = files
        self.opened: dict[tuple[Path, str | int], Any] = {}

    def read(self, stored: Stored, device: str | int) -> Tensor:
        key = (stored.path, device)
        if key not in self.opened:
            self.opened[key] = self.files.enter_context(safe_open(stored.path, framework="pt", device=device))
        tensor: Tensor = self.opened[key].get_tensor(stored.name)
        return tensor


def device_of(name: str, device_map: DeviceMap) -> str | int:
    """The device of the parameter `name`: the entry of the innermost enclosing module that has one."""
    while name not in device_map:
        name = name.rpartition(".")[0]
    return device_map[name]
