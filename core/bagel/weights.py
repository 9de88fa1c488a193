"""Reads weights from the checkpoint files, each directly to its device."""

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from core.bagel.layers import JointLinear
from core.bagel.network import Network
from core.geometry import BagelConfig
from core.model_folder import ModelFolderError

MODEL_FILE, AUTOENCODER_FILE = "ema.safetensors", "ae.safetensors"
AUTOENCODER_MODULES = ("latent_encoder.", "latent_decoder.")
NAMED_TENSORS = 4

Progress: TypeAlias = Callable[[int, int], None]
"""Called with bytes loaded and total bytes."""

# Module names here and in the checkpoint; stored_name translates the names of the experts.
_PREFIXES = (
    ("latent_encoder.", "encoder."),
    ("latent_decoder.", "decoder."),
    ("decoder.", "language_model.model."),
    ("lm_head.", "language_model.lm_head."),
    ("latents.", ""),
    ("latent_places.", ""),
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


class WeightReader:
    """Reads parameters of a network from the checkpoint's files, in the network's dtype.

    On the CPU, a parameter that is stored whole and in that dtype is mapped from its file, which takes no memory.
    """

    def __init__(self, network: Network, checkpoint: Checkpoint, on_progress: Progress | None = None) -> None:
        self.network = network
        self._on_progress = on_progress
        self._files: dict[Path, Any] = {}
        self._stored = {
            name: [checkpoint.stored(part) for part in parts_of(network, name)]
            for name, _ in network.named_parameters()
        }
        self._total = sum(part.size_bytes for parts in self._stored.values() for part in parts)
        self._done = 0

    def fill(self, module_name: str, device: torch.device) -> None:
        """Load the parameters of a module on the meta device, each directly to `device`."""
        for name in self._names(module_name):
            owner, _, attribute = name.rpartition(".")
            value = nn.Parameter(self._read(name, device), requires_grad=False)
            setattr(self.network.get_submodule(owner), attribute, value)
            self._advance(name)
        self._files.clear()  # unmaps what has been read, so that the process does not seem to hold the whole file

    def skip(self, module_name: str) -> Callable[[slice], Sequence[Tensor]]:
        """Leave a module's parameters in the files; returns a function that reads a slice of them, on the CPU."""
        names = self._names(module_name)
        for name in names:
            self._advance(name)
        return lambda part: [self._read(name, torch.device("cpu")) for name in names[part]]

    def _names(self, module_name: str) -> list[str]:
        return [name for name, _ in self.network.get_submodule(module_name).named_parameters(prefix=module_name)]

    def _read(self, name: str, device: torch.device) -> Tensor:
        stored, dtype = self._stored[name], self.network.dtype
        if len(stored) == 1:
            return self._tensor(stored[0]).to(device, dtype)
        rows = [part.shape[0] for part in stored]
        joint = torch.empty(sum(rows), *stored[0].shape[1:], device=device, dtype=dtype)
        for target, part in zip(torch.split(joint, rows), stored, strict=True):
            target.copy_(self._tensor(part))
        return joint

    def _tensor(self, stored: Stored) -> Tensor:
        if stored.path not in self._files:
            self._files[stored.path] = safe_open(stored.path, framework="pt")
        tensor: Tensor = self._files[stored.path].get_tensor(stored.name)
        return tensor

    def _advance(self, name: str) -> None:
        self._done += sum(part.size_bytes for part in self._stored[name])
        if self._on_progress is not None:
            self._on_progress(self._done, self._total)
