"""Default values of recipe fields: BAGEL's own, then those of the model, then those of the mode."""

from collections.abc import Mapping
from dataclasses import asdict, fields
from typing import Any

from recipes.faults import FieldPath
from recipes.model_spec import ModelSpec
from recipes.recipe import ImageSettings, JudgeSettings, Mode, OutputSettings, Recipe, StepCacheSettings, TextSettings
from recipes.rules import holds_image

# BAGEL's recommended settings for editing, where they differ from generation; a null size is that of the edited image.
EDITING_IMAGE_DEFAULTS: dict[str, Any] = {
    "cfg_interval": [0.0, 1.0],
    "cfg_renorm_type": "text_channel",
    "width": None,
    "height": None,
}

_REQUIRED = ("name", "context")


def text_defaults(spec: ModelSpec | None) -> dict[str, Any]:
    """The model's defaults for text; fields without one keep the official values of TextSettings."""
    return dict(spec.text_defaults) if spec else {}


def image_defaults(spec: ModelSpec | None, mode: Mode) -> dict[str, Any]:
    """The model's and then the mode's defaults for images; other fields keep the official values of ImageSettings."""
    return {**(spec.image_defaults if spec else {}), **_mode_defaults(mode)}


def _mode_defaults(mode: Mode) -> dict[str, Any]:
    return EDITING_IMAGE_DEFAULTS if mode == "editing" else {"cfg_img_scale": 1.0}


def image_settings(values: Mapping[str, Any]) -> ImageSettings:
    """The settings with these values; as in JSON, a pair may be a list and the step cache a mapping."""
    typed: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
    if isinstance(typed.get("step_cache"), Mapping):
        typed["step_cache"] = StepCacheSettings(**typed["step_cache"])
    return ImageSettings(**typed)


def default_source(path: FieldPath, spec: ModelSpec | None, mode: Mode) -> str:
    """The source of the default at `path`: "the mode's", "the model's", or "default" for BAGEL's own."""
    group, name = (*map(str, path), "", "")[:2]
    if group == "image" and name in _mode_defaults(mode):
        return "the mode's"
    return "the model's" if spec and name in spec.defaults(group) else "default"


def fill_in(given: Mapping[str, Any], spec: ModelSpec | None) -> dict[str, Any]:
    """`given`, valid or not, with the defaults of all missing fields."""
    mode: Mode = "editing" if holds_image(given.get("context")) else "generation"
    settings: dict[str, dict[str, Any]] = {
        "text": {**asdict(TextSettings()), **text_defaults(spec)},
        "image": {**asdict(ImageSettings()), **image_defaults(spec, mode)},
        "judge": asdict(JudgeSettings()),
        "output": asdict(OutputSettings()),
    }
    filled: dict[str, Any] = {field.name: field.default for field in fields(Recipe) if field.name not in _REQUIRED}
    filled.update({**given, "refinement_prompts": given.get("refinement_prompts", [])})
    for group, defaults in settings.items():
        own = given.get(group, {})
        filled[group] = {**defaults, **own} if isinstance(own, dict) else own
    return filled
