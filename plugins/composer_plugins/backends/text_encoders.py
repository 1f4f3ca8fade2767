"""The text encoder of a model, chosen by its model_index.json."""

from __future__ import annotations

from collections.abc import Callable

import torch

from composer.errors import shown
from composer_plugins.backends.deepfloyd.embedding_files import Tidy, tidy, verbatim
from composer_plugins.backends.deepfloyd.embeddings import Encoder
from composer_plugins.backends.deepfloyd.text import TextEncoder
from composer_plugins.backends.files import Source, read_json
from composer_plugins.backends.latent.families import FAMILIES
from composer_plugins.backends.latent.text import PipelineText
from composer_plugins.backends.pixel_flow import prx

Made = tuple[Encoder | None, Tidy]
"""An encoder (None for a model saved without one), and the name under which a prompt is stored."""
Make = Callable[[Source, torch.device, torch.dtype, bool, str | None], Made]


def text_encoder(
    model: Source, device: torch.device, dtype: torch.dtype, eight_bit: bool, variant: str | None
) -> Made:
    """The text encoder of a model; DeepFloyd IF's for a folder without model_index.json.

    Args:
        model: a folder, or a model of the hub.
        device, dtype: device and dtype of the encoder.
        eight_bit: read it in 8 bits.
        variant: variant of its weights, such as "fp16".

    Raises:
        ValueError: no backend reads models of this pipeline.
    """
    file = model.fetch(("model_index.json",)) / "model_index.json"
    kind = str(read_json(file).get("_class_name")) if file.is_file() else _IF[0]
    if kind not in _ENCODERS:
        raise ValueError(
            f"{model.model} is a {shown(kind)}, whose text encoder no backend uses. Name a model "
            f"of {', '.join(sorted(_ENCODERS))}."
        )
    return _ENCODERS[kind](model, device, dtype, eight_bit, variant)


def _deepfloyd(
    model: Source, device: torch.device, dtype: torch.dtype, eight_bit: bool, variant: str | None
) -> Made:
    return TextEncoder(model, device, dtype, eight_bit=eight_bit, variant=variant), tidy


def _prx(
    model: Source, device: torch.device, dtype: torch.dtype, eight_bit: bool, variant: str | None
) -> Made:
    return prx.text_encoder(model, device, dtype, eight_bit, variant), verbatim


def _latent(
    model: Source, device: torch.device, dtype: torch.dtype, eight_bit: bool, variant: str | None
) -> Made:
    if eight_bit:
        raise ValueError("A latent model's encoders are not read in 8 bits. Leave the option out.")
    folder = model.fetch(("model_index.json", "text_encoder/config.json"))
    family = FAMILIES[read_json(folder / "model_index.json")["_class_name"]]
    if not (folder / "text_encoder" / "config.json").is_file():
        return None, verbatim
    return PipelineText(model, family, device, dtype, variant), verbatim


_IF = (
    *("IFPipeline", "IFImg2ImgPipeline", "IFInpaintingPipeline", "IFSuperResolutionPipeline"),
    *("IFImg2ImgSuperResolutionPipeline", "IFInpaintingSuperResolutionPipeline"),
)
_ENCODERS: dict[str, Make] = {
    **dict.fromkeys(_IF, _deepfloyd),
    prx.PIPELINE: _prx,
    **dict.fromkeys(FAMILIES, _latent),
}
