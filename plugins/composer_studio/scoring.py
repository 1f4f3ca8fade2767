"""The score that images are compared by: what a recipe or a command names, made whole."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor

from composer import Result, installed
from composer.offers import required
from composer.recipes import decode
from composer_studio.written import Script, Thing, WrittenError
from composer_studio.written.annotations import Pairs
from composer_studio.written.reading import code_of

Score = Callable[[Tensor], Tensor]


def score_of(script: Script, thing: Thing | None = None) -> Score:
    """The score of a recipe's output, or another.

    Options that it needs and that were not written are those of the same name in the first plugin
    that has them; the views of a recipe without views are the image itself, as the condition.

    Raises:
        WrittenError: there is no score, or an option is found nowhere.
    """
    chosen = thing or script.written.output.score
    if chosen is None:
        raise WrittenError([f"{script.source}: to choose images, give a score: --score reads_as."])
    offer = installed().find("score", chosen.name)
    options = dict(chosen.options)
    for name in required(offer.factory):
        if name not in options:
            options[name] = _found(name, script, chosen.name)
    coded = {name: code_of(value, script) for name, value in options.items()}
    made = decode({"score": chosen.name, "options": coded}, installed())
    return cast(Score, made)


def scores_of(score: Score, result: Result) -> list[float]:
    """One number an image, higher is better.

    Raises:
        ValueError: the score does not return (B,) numbers.
    """
    with torch.no_grad():
        values = score(result.x)
    if not isinstance(values, Tensor) or values.shape != (len(result),):
        got = tuple(getattr(values, "shape", ()))
        raise ValueError(
            f"Score: it must return one number an image, ({len(result)},), got the shape {got}."
        )
    return [float(value) for value in values.cpu()]


def _found(name: str, script: Script, score: str) -> Any:
    for plugin in script.written.plugins.values():
        if name in plugin.options:
            return plugin.options[name]
    condition = script.written.condition
    if name == "views" and condition is not None:
        return Pairs([(Thing("transform", "identity"), condition)])
    raise WrittenError(
        [
            f"{script.source}: score {score} needs the option {name!r}, which no plugin of the "
            f"recipe has. Write it, as in score = {{use = {score!r}, {name} = ...}}."
        ]
    )
