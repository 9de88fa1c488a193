"""Where the `text` and `image` settings of a recipe come from when it does not give them."""

from typing import Any

from recipes.card import ModelCard
from recipes.recipe import Mode

# BAGEL's recommended editing settings where they differ from generation; a null size follows the image being edited.
EDITING_IMAGE_DEFAULTS: dict[str, Any] = {
    "cfg_interval": [0.0, 1.0],
    "cfg_renorm_type": "text_channel",
    "width": None,
    "height": None,
}


def text_defaults(card: ModelCard | None) -> dict[str, Any]:
    """What the model folder says of texts; keys it leaves out keep the official values of TextSettings."""
    return dict(card.text_defaults) if card else {}


def image_defaults(card: ModelCard | None, mode: Mode) -> dict[str, Any]:
    """What the model folder and then the mode say of images; other keys keep the official values of ImageSettings."""
    from_card = dict(card.image_defaults) if card else {}
    return {**from_card, **(EDITING_IMAGE_DEFAULTS if mode == "editing" else {"cfg_img_scale": 1.0})}
