"""Reading of stage III: the parts beyond a UNet and a text encoder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from composer.schedules import DiscreteSchedule
from composer.solvers import DiffusersSolver
from composer_plugins.backends.autoencoder import Autoencoder
from composer_plugins.backends.deepfloyd.embeddings import Embeddings
from composer_plugins.backends.deepfloyd.reading import (
    UNET,
    Reader,
    checked_size,
    halved,
    require_config,
)
from composer_plugins.backends.deepfloyd.upscaler import SCALING, UpscalerBackend
from composer_plugins.backends.diffusers_unet.loading import (
    PREDICTIONS,
    read_scheduler,
    schedule_of,
)
from composer_plugins.backends.files import read_json

SIZE = 1024
"""Of the images: four times those of stage II."""
MAX_NOISE_LEVEL = 350


def read_upscaler(
    folder: Path,
    reader: Reader,
    embeddings: Embeddings,
    config: Mapping[str, Any],
    size: int | None,
) -> UpscalerBackend:
    """The upscaler in a folder.

    Args:
        folder: as diffusers saves a StableDiffusionUpscalePipeline.
        reader: of its networks.
        embeddings: of prompts, by its text encoder.
        config: of its UNet.
        size: height and width of the images; None for 1024.
    """
    decoder = read_json(require_config(folder / "vae"))
    scheduler = read_scheduler(folder, "scheduler")
    noising = read_scheduler(folder, "low_res_scheduler")
    chosen = checked_size(SIZE if size is None else size, halved(decoder) * halved(config))
    vae = replace(reader, dtype=torch.float32).network(folder / "vae", "AutoencoderKL")
    return UpscalerBackend(
        unet=reader.network(folder / "unet", UNET),
        autoencoder=Autoencoder(vae, gain=1 / SCALING),
        embeddings=embeddings,
        schedule=schedule_of(scheduler),
        prediction=PREDICTIONS[scheduler.config.prediction_type],
        default_solver=DiffusersSolver(scheduler),
        low_res_schedule=DiscreteSchedule(noising.alphas_cumprod[: _max_noise_level(folder) + 1]),
        size=chosen,
        device=reader.device,
    )


def _max_noise_level(folder: Path) -> int:
    """The highest noise level of the small image."""
    file = folder / "model_index.json"
    index = read_json(file) if file.is_file() else {}
    return int(index.get("max_noise_level", MAX_NOISE_LEVEL))
