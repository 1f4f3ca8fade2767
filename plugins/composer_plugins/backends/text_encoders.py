"""The text encoder of a model, by what its model_index.json says that the model is."""

from __future__ import annotations

from collections.abc import Callable

import torch

from composer_plugins.backends.deepfloyd.embedding_files import Tidy, tidy, verbatim
from composer_plugins.backends.deepfloyd.text import TextEncoder
from composer_plugins.backends.files import Source, read_json
from composer_plugins.backends.pixel_flow import prx

Made = tuple[TextEncoder | None, Tidy]
"""An encoder, None for a model saved without one; and under which name a prompt is kept."""
Make = Callable[[Source, torch.device, torch.dtype, bool, str | None], Made]


def text_encoder(
    model: Source, device: torch.device, dtype: torch.dtype, eight_bit: bool, variant: str | None
) -> Made:
    """The text encoder of a model that is no pipeline known here is taken for DeepFloyd IF's.

    Args:
        model: a folder, or a model of the hub.
        device, dtype: where and in what it computes.
        eight_bit: read it in 8 bits.
        variant: of its weights, such as "fp16".
    """
    file = model.fetch(("model_index.json",)) / "model_index.json"
    kind = read_json(file).get("_class_name") if file.is_file() else None
    return _ENCODERS.get(str(kind), _deepfloyd)(model, device, dtype, eight_bit, variant)


def _deepfloyd(
    model: Source, device: torch.device, dtype: torch.dtype, eight_bit: bool, variant: str | None
) -> Made:
    return TextEncoder(model, device, dtype, eight_bit=eight_bit, variant=variant), tidy


def _prx(
    model: Source, device: torch.device, dtype: torch.dtype, eight_bit: bool, variant: str | None
) -> Made:
    return prx.text_encoder(model, device, dtype, eight_bit, variant), verbatim


_ENCODERS: dict[str, Make] = {prx.PIPELINE: _prx}
