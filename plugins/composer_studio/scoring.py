"""The score that images are compared by: what is named, made whole from the recipe."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, cast

import torch
from torch import Tensor

from composer import installed
from composer.offers import required
from composer.recipes import decode

Score = Callable[[Tensor], Tensor]


def score_of(named: Mapping[str, Any], recipe: Mapping[str, Any], typed: bool = False) -> Score:
    """A score for the images of a recipe.

    Options that it needs and that are not there are those of the same name in the first plugin
    that has them; the views of a recipe without views are the image itself, as the condition.

    Args:
        named: {"score": name, "options": {...}}, as the library's recipes have it.
        recipe: of the library.
        typed: whether the user typed the options, so that they may name files.

    Raises:
        ValueError, TypeError, LookupError: an option is found nowhere, or is wrong.
    """
    offer = installed().find("score", named["score"])
    options = dict(named.get("options", {}))
    decoded = {name: decode(value, installed()) for name, value in options.items()}
    if typed:
        decoded = {n: str(v) if isinstance(v, str) else v for n, v in decoded.items()}
    for name in required(offer.factory):
        if name not in decoded:
            decoded[name] = decode(_found(name, recipe, offer.name), installed())
    return cast(Score, offer.factory(**decoded))


def scores_of(score: Score, x: Tensor) -> list[float]:
    """One number an image (B, C, H, W), higher is better.

    Raises:
        ValueError: the score does not return (B,) finite numbers.
    """
    with torch.no_grad():
        values = score(x)
    if not isinstance(values, Tensor) or values.shape != (len(x),) or not values.isfinite().all():
        got = tuple(getattr(values, "shape", ()))
        raise ValueError(
            f"Score: it must return one finite number an image, ({len(x)},), got the shape {got}."
        )
    return [float(value) for value in values.cpu()]


def _found(name: str, recipe: Mapping[str, Any], score: str) -> Any:
    """The option of a plugin of the recipe."""
    plugins = recipe.get("plugins")
    for plugin in plugins if isinstance(plugins, list) else []:
        options = plugin.get("options") if isinstance(plugin, dict) else None
        if isinstance(options, dict) and name in options:
            return options[name]
    call = recipe.get("call")
    condition = call.get("condition") if isinstance(call, dict) else None
    if name == "views" and condition is not None:
        return {"pairs": [["identity", condition]]}
    raise ValueError(
        f"Score: {score} needs the option {name!r}, which no plugin of the recipe has. Write it, "
        f"as in --score '{{use = \"{score}\", {name} = ...}}'."
    )
