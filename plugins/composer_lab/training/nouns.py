"""Training of a small UNet2DModel of diffusers on 32x32 pictures, written as a pipeline."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any, cast

import torch
from diffusers import DDPMPipeline, DDPMScheduler, UNet2DModel
from torch import nn

from composer.predictions import V
from composer.schedules import DiscreteSchedule
from composer.writing import write_folder
from composer_lab.training.config import TrainingConfig
from composer_lab.training.data import DataSource, FixedImages
from composer_lab.training.objective import Objective
from composer_lab.training.output import WEIGHTS, forget_origin, plot_loss
from composer_lab.training.timed import Timed
from composer_lab.training.trainer import MODEL, Trainer
from composer_lab.training.weights import half_weights
from composer_plugins.backends.checksum import save_with_checksum
from composer_plugins.backends.diffusers_unet.loading import LABELS
from composer_plugins.backends.diffusers_unet.unet import read_unet, require_unet
from composer_plugins.backends.nouns.data import LAYERS, SIZE, Nouns, head_names, load_images

HEADS = LAYERS["heads"]
"""Number of classes; the label beyond the last means "unconditional"."""
LAYOUT: dict[str, Any] = {
    "block_out_channels": (32, 64, 128, 160),
    "layers_per_block": 1,
    "down_block_types": ("DownBlock2D", "DownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D"),
    "up_block_types": ("AttnUpBlock2D", "AttnUpBlock2D", "UpBlock2D", "UpBlock2D"),
    "attention_head_dim": 32,
}


def train_nouns(
    config: TrainingConfig,
    out: Path,
    data: Path | None = None,
    init: Path | None = None,
    layout: dict[str, Any] | None = None,
    epoch: int = Nouns.epoch,
    progress: bool = True,
) -> Any:
    """Train, or resume the training in ``out``; write model, log and loss curve there.

    Args:
        data: a folder of images to train on, without labels; None for fresh Nouns at every step,
            labelled by their heads.
        init: folder of a pretrained pipeline, or UNet, whose weights to start from.
        layout: arguments of UNet2DModel for a UNet that starts from scratch; None for LAYOUT.
        epoch: the number of Nouns per epoch.
    """
    if data is not None and data.resolve() == out.resolve():
        raise ValueError(
            f"--out must be another folder than --data, got {out}. The loss curve would become a "
            "training image."
        )
    source: DataSource = Nouns(epoch) if data is None else _unlabelled(data)
    num_classes = HEADS if data is None else 0
    torch.manual_seed(config.seed)
    unet = _unet(
        init, LAYOUT if layout is None else layout, num_classes + 1 if num_classes else None
    )
    scheduler = noise_scheduler()
    objective = Objective(DiscreteSchedule(scheduler.alphas_cumprod), V)
    timed = Timed(unet, len(scheduler.alphas_cumprod))
    trainer = Trainer(timed, objective, source, num_classes, config, out)

    def write(trained: nn.Module, folder: Path) -> None:
        unet = cast(Timed, trained).unet
        save_pipeline(unet, scheduler, folder / MODEL, labelled=num_classes > 0)
        plot_loss(trainer.losses, folder / "loss.png", "Nouns" if data is None else data.name)

    return cast(Timed, trainer.run(progress, write)).unet


def export_average(checkpoint: Path, folder: Path) -> None:
    """Write the averaged weights of a checkpoint on Nouns as a pipeline, without disturbing the
    training that writes it."""
    state = torch.load(checkpoint, map_location="cpu", weights_only=True)["ema"]
    kept = "module.unet."
    weights = {k.removeprefix(kept): v for k, v in state.items() if k.startswith(kept)}
    unet = _unet(None, LAYOUT, HEADS + 1)
    unet.load_state_dict(weights)
    save_pipeline(unet, noise_scheduler(), folder, labelled=True)


def noise_scheduler() -> Any:
    """The training path."""
    return DDPMScheduler(
        beta_schedule="squaredcos_cap_v2",
        prediction_type="v_prediction",  # near noise, errors in epsilon multiply in x_0
        timestep_spacing="trailing",  # the plan begins where the schedule ends in noise
    )


def save_pipeline(unet: Any, scheduler: Any, folder: Path, labelled: bool) -> None:
    """Write a DDPMPipeline with float16 safetensors, and the label that means unconditional."""
    half = copy.deepcopy(unet).cpu()
    weights = half_weights(unet)  # raises for weights beyond float16
    half.load_state_dict(weights)
    nn.Module.half(
        half
    )  # diffusers' half() warns of modules that must stay float32; there are none
    pipeline: Any = DDPMPipeline(half, scheduler)

    def write(place: Path) -> None:
        pipeline.save_pretrained(place)
        save_with_checksum(weights, place / "unet" / WEIGHTS)
        for config in ("model_index.json", "unet/config.json"):
            forget_origin(place / config)
        if labelled:
            labels = {"unconditional_label": HEADS, "labels": head_names()}
            (place / LABELS).write_text(json.dumps(labels, indent=0))

    write_folder(folder, write)


def _unlabelled(folder: Path) -> FixedImages:
    images = load_images(folder)
    return FixedImages(images, torch.zeros(len(images), dtype=torch.int64))


def _unet(init: Path | None, layout: dict[str, Any], num_class_embeds: int | None) -> Any:
    if init is None:
        return UNet2DModel(sample_size=SIZE, num_class_embeds=num_class_embeds, **layout)
    require_unet(init)
    unet = read_unet(init)
    theirs = {key: unet.config[key] for key in ("sample_size", "in_channels", "out_channels")}
    if theirs != {"sample_size": SIZE, "in_channels": 3, "out_channels": 3}:
        raise ValueError(f"--init must be a UNet of {SIZE}x{SIZE} RGB images, got {theirs}.")
    if unet.config.num_class_embeds != num_class_embeds:
        raise ValueError(
            f"--init must take {_labels(num_class_embeds)}, got "
            f"{_labels(unet.config.num_class_embeds)}. Nouns have labels and images of a folder "
            "have none, so start from another folder, or from scratch."
        )
    unet.requires_grad_(True)
    return unet


def _labels(count: int | None) -> str:
    return "no labels" if count is None else f"{count} labels"
