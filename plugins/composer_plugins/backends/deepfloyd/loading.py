"""``load_backend("deepfloyd")``: read a stage of IF, and refuse what is none."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers import DDPMScheduler
from torch import nn

from composer import Backend
from composer.arguments import integer
from composer.schedules import DiscreteSchedule
from composer_plugins.backends.deepfloyd.backend import DeepFloydBackend
from composer_plugins.backends.deepfloyd.embeddings import Embeddings, cache_file
from composer_plugins.backends.deepfloyd.reading import (
    importable,
    readable,
    require_all,
    require_packages,
)
from composer_plugins.backends.deepfloyd.text import TextEncoder
from composer_plugins.backends.files import Source, read_json
from composer_plugins.backends.placement import placement
from composer_plugins.thresholding import DynamicThreshold

MODELS = {1: "DeepFloyd/IF-I-XL-v1.0", 2: "DeepFloyd/IF-II-L-v1.0"}
_CONFIGS = (
    *("unet/config.json", "text_encoder/config.json"),
    *("scheduler/scheduler_config.json", "image_noising_scheduler/scheduler_config.json"),
)
_WEIGHTS = "diffusion_pytorch_model"


def load_deepfloyd(
    model: str | Path | None = None,
    stage: int = 1,
    embeddings: str | Path | None = None,
    dtype: str = "float32",
    device: str = "cpu",
    offload: bool = False,
    variant: str | None = None,
    size: int | None = None,
    local_files_only: bool = False,
    thresholding: bool = True,
) -> Backend:
    """DeepFloyd IF, stage I (text to 64 pixels) or II (64 to 256); default solver DDPM.

    Only the UNet is read here. The text encoder is read when a prompt has no embedding yet, and
    freed before the UNet is first asked; a safety checker is never read.

    Args:
        model: a folder as diffusers saves it, or a model of the hub; None for IF-I-XL or IF-II-L.
        stage: 1 or 2.
        embeddings: a .safetensors, .pt or .pth file {prompt: (1, L, D)}, "" being the negative.
            None: a file in the user's cache, to which new prompts are added.
        dtype: of the UNet and the text encoder: "float32", "bfloat16" or "float16".
        device: "cpu", "cuda", ...
        offload: keep the weights in the CPU's memory, and bring each layer to the device when
            its turn comes: slow, and for small GPUs.
        variant: of the weights on the hub, such as "fp16", which are half as large.
        size: height and width of the images, in place of those the UNet was trained on.
        local_files_only: take nothing from the hub that is not in its cache.
        thresholding: of each estimated clean image, as the pipelines do; False leaves it as it is,
            which is what a loop written from the formulas does.
    """
    place, network_dtype = placement(device, dtype)
    if stage not in MODELS:
        raise ValueError(f"stage must be 1 (text to 64 pixels) or 2 (64 to 256), got {stage!r}")
    source = Source(MODELS[stage] if model is None else model, None, local_files_only)
    folder = source.fetch([*_CONFIGS, *_weights(variant)])
    config = _require_stage(folder, stage)
    schedule, threshold = _path(folder)
    name = str(source.model)
    store = Embeddings(
        cache_file(name) if embeddings is None else Path(embeddings).expanduser(),
        config.get("encoder_hid_dim") or config["cross_attention_dim"],
        _text_encoder(source, folder, place, network_dtype),
        place,
        name,
    )
    return DeepFloydBackend(
        unet=_placed(_read_unet(folder, network_dtype, variant), place, offload),
        embeddings=store,
        schedule=schedule,
        threshold=threshold if thresholding else None,
        size=_size(config, size),
        device=place,
        low_res_schedule=_schedule(folder / "image_noising_scheduler") if stage == 2 else None,
    )


def _weights(variant: str | None) -> list[str]:
    stem = _WEIGHTS if variant is None else f"{_WEIGHTS}.{variant}"
    return [f"unet/{stem}.safetensors", f"unet/{stem}-*.safetensors", "unet/*.index*.json"]


def _require_stage(folder: Path, stage: int) -> Mapping[str, Any]:
    """The configuration of the UNet, if it is of this stage."""
    place = folder / "unet"
    with readable(place):
        config = read_json(place / "config.json")
    ins, outs = config.get("in_channels"), config.get("out_channels")
    kind = config.get("_class_name")
    if kind != "UNet2DConditionModel" or outs != 6 or ins not in (3, 6):
        raise ValueError(
            f"{place} is a {kind} with {ins} channels in and {outs} out, not a stage of IF "
            "(UNet2DConditionModel, 3 or 6 in, 6 out)"
        )
    found = 1 if ins == 3 else 2
    if found != stage:
        raise ValueError(f"{folder} is stage {found} of IF; load it with stage={found}")
    return config


def _read_unet(folder: Path, dtype: torch.dtype, variant: str | None) -> nn.Module:
    from diffusers import UNet2DConditionModel  # noqa: PLC0415  # slow to import

    place = folder / "unet"
    with readable(place):
        unet, found = UNet2DConditionModel.from_pretrained(
            place,
            dtype=dtype,
            variant=variant,
            local_files_only=True,
            use_safetensors=True,
            low_cpu_mem_usage=importable("accelerate"),
            output_loading_info=True,
        )
    require_all(found["missing_keys"], place)
    evaluated: nn.Module = unet.eval().requires_grad_(False)
    return evaluated


def _placed(unet: nn.Module, device: torch.device, offload: bool) -> nn.Module:
    if not offload:
        return nn.Module.to(unet, device)
    require_packages("offload=True", "accelerate")
    from accelerate import cpu_offload  # noqa: PLC0415  # optional

    offloaded: nn.Module = cpu_offload(unet, device)
    return offloaded


def _text_encoder(
    source: Source, folder: Path, device: torch.device, dtype: torch.dtype
) -> TextEncoder | None:
    """None for a folder that was saved without its text encoder."""
    if not (folder / "text_encoder" / "config.json").is_file():
        return None
    return TextEncoder(source, device, dtype)


def _path(folder: Path) -> tuple[DiscreteSchedule, DynamicThreshold]:
    """The schedule, and what the scheduler does to each estimated clean image."""
    config = _scheduler(folder / "scheduler").config
    if config.prediction_type != "epsilon" or config.variance_type != "learned_range":
        raise ValueError(
            f"{folder / 'scheduler'} says prediction_type {config.prediction_type!r} and "
            f"variance_type {config.variance_type!r}; IF's are 'epsilon' and 'learned_range'"
        )
    threshold = DynamicThreshold(max_value=1.0)  # clipping
    if config.thresholding:
        threshold = DynamicThreshold(config.dynamic_thresholding_ratio, config.sample_max_value)
    return _schedule(folder / "scheduler"), threshold


def _schedule(place: Path) -> DiscreteSchedule:
    scheduler = _scheduler(place)
    config = scheduler.config
    return DiscreteSchedule(scheduler.alphas_cumprod, config.timestep_spacing, config.steps_offset)


def _scheduler(place: Path) -> Any:
    file = place / "scheduler_config.json"
    if not file.is_file():
        raise ValueError(f"{place.parent} has no {place.name}/{file.name}; fetch it anew")
    try:
        return DDPMScheduler.from_config(read_json(file))
    except (TypeError, ValueError, NotImplementedError) as error:
        raise ValueError(f"{file} cannot be used ({error}); fetch it anew") from error


def _size(config: Mapping[str, Any], size: int | None) -> int:
    chosen = integer(config["sample_size"] if size is None else size, "size", least=1)
    factor = 2 ** (len(config["block_out_channels"]) - 1)
    if chosen % factor:
        raise ValueError(
            f"size must be a multiple of {factor}, which the UNet halves on its way down; got "
            f"{chosen}"
        )
    return chosen
