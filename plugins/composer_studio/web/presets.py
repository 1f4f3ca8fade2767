"""What a page begins with: recipes to change."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from PIL import Image

from composer_studio.web.drawn import CANVAS

Pictures = dict[str, Image.Image]


@dataclass(frozen=True)
class Preset:
    """A recipe, and a function that makes its pictures."""

    table: Mapping[str, Any]
    pictures: Callable[[], Pictures] = dict


def presets_for(backends: Sequence[str]) -> dict[str, Preset]:
    """The presets by name that these models can make."""
    fitting = {name: p for name, p in PRESETS.items() if p.table["backend"] in backends}
    plain = {"backend": backends[0], "plugins": {"cfg": {"scale": 4.0}}, "seeds": "0:4"}
    return {**fitting, "My own": Preset(plain)}


def _six() -> Pictures:
    """A handwritten 6."""
    from composer.images import to_pil  # noqa: PLC0415
    from composer_plugins.backends.mnist import sample_digits  # noqa: PLC0415

    images, labels = sample_digits()
    (picture,) = to_pil(images[labels == 6][:1])
    return {"inpaint-image.png": picture.resize((CANVAS, CANVAS), Image.Resampling.NEAREST)}


_GUIDED = {"cfg": {"scale": 4.0}}
PRESETS = {
    "Anagram": Preset(
        {
            "backend": "mnist",
            "plugins": {"anagram": {"views": {"identity": 6, "rotate_180": 9}}, **_GUIDED},
            "seeds": "0:4",
        }
    ),
    "Hybrid": Preset(
        {
            "backend": "mnist",
            "plugins": {"hybrid": {"low": 0, "high": 8, "sigma": 3.0}, **_GUIDED},
            "seeds": "0:4",
        }
    ),
    "Inpaint": Preset(
        {
            "backend": "mnist",
            "plugins": {"inpaint": {"image": "inpaint-image.png", "mode": "repaint"}, **_GUIDED},
            "condition": 8,
            "seeds": "0:4",
        },
        _six,
    ),
    "Sketch": Preset(
        {
            "backend": "mnist",
            "plugins": {"sdedit": {"strength": 0.7, "fit": "crop"}, **_GUIDED},
            "condition": 8,
            "seeds": "0:4",
        }
    ),
    "Characters": Preset(
        {
            "backend": "nouns",
            "plugins": {
                "components": {"parts": "gray_colour", "conditions": ["crab", "beer"]},
                "cfg": {"scale": 5.0},
            },
            "steps": 30,
            "seeds": "0:4",
        }
    ),
}
