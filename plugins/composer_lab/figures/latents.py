"""A model of latents beside the model of pixels."""

from __future__ import annotations

from torch import Tensor

from composer import get_transform
from composer.authoring import to_images, to_latents
from composer_lab.evaluation.anagrams import METHODS
from composer_lab.figures.lab import Lab
from composer_lab.figures.sheets import Row, Sheet
from composer_plugins.guidance.cfg import CFG

SCALE = 2.0
MODELS = {"mnist": "plain", "mnist-latent": "latent"}
"""{model: its anagrams' name in METHODS}."""
VIEWS = {"rotate_180": (6, 9), "flip": (2, 5), "negative": (0, 4)}
"""{view: the digits upright and through it}."""


def beside_pixels(lab: Lab) -> Sheet:
    """Digits through the autoencoder, and samples and anagrams of pixels and of latents."""
    digits, seeds = lab.digits(range(10)), lab.seeds(10)
    coder = lab.models["mnist-latent"]()
    decoded = to_images(coder, to_latents(coder, digits))
    groups = [[Row("test digit", digits), Row("decoded", decoded)]]
    samples = {m: lab.sample(m, [CFG(SCALE)], [*range(10)], seeds) for m in MODELS}
    groups.append([Row(f"{lab.names[model]}: 0 to 9", x) for model, x in samples.items()])
    for view, (upright, other) in VIEWS.items():
        rows = []
        for model, method in MODELS.items():
            x = _anagrams(lab, model, method, {"identity": upright, view: other})
            rows += [
                Row(f"{lab.names[model]}: {upright}", x),
                Row(f"{view}: {other}", get_transform(view)(x)),
            ]
        groups.append(rows)
    return Sheet(
        "Pixels and latents",
        groups,
        [f"{seed}" for seed in seeds],
        "A column is a digit in the two upper groups, and a seed below the test digits. "
        f"Samples: guidance {SCALE:g}, {lab.effort.steps} steps. Anagrams: guidance 3, "
        f"{lab.effort.steps} steps, one sample a seed, none chosen: Anagram of pixels, "
        "LatentAnagram of latents. The rows of a pair are one image, upright and seen through the "
        "view.",
    )


def _anagrams(lab: Lab, model: str, method: str, views: dict[str, int]) -> Tensor:
    stack = METHODS[method].plugins(views)
    return lab.sampler(model, stack).sample(seeds=lab.seeds(10)).x
