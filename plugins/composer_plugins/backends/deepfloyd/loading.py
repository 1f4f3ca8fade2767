"""``load_backend("deepfloyd")``: read and check a stage of IF."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from composer import Backend
from composer.arguments import switch
from composer.authoring import Clip
from composer.errors import shown
from composer.named import Device, DType
from composer.schedules import DiscreteSchedule
from composer_plugins.backends.clipping import clip_of
from composer_plugins.backends.deepfloyd.backend import DeepFloydBackend
from composer_plugins.backends.deepfloyd.embeddings import Embeddings, cache_file
from composer_plugins.backends.deepfloyd.reading import (
    UNET,
    Reader,
    checked_size,
    halved,
    require_config,
)
from composer_plugins.backends.deepfloyd.text import ENCODERS, KINDS, TextEncoder
from composer_plugins.backends.deepfloyd.upscaler_loading import read_upscaler
from composer_plugins.backends.diffusers_unet.loading import schedule_of
from composer_plugins.backends.diffusers_unet.settings import require_settings
from composer_plugins.backends.files import Source, read_json, usable
from composer_plugins.backends.placement import placement

MODELS = {
    1: "DeepFloyd/IF-I-XL-v1.0",
    2: "DeepFloyd/IF-II-L-v1.0",
    3: "stabilityai/stable-diffusion-x4-upscaler",
}
SCHEDULER = "scheduler_config.json"
# Input and output channels of the UNets.
_STAGES = {(3, 6): 1, (6, 6): 2, (7, 4): 3}
_CONFIGS = (
    *("model_index.json", "unet/config.json", "text_encoder/config.json", "vae/config.json"),
    *("scheduler/scheduler_config.json", "image_noising_scheduler/scheduler_config.json"),
    "low_res_scheduler/scheduler_config.json",
)


def load_deepfloyd(
    model: str | Path | None = None,
    stage: int = 1,
    embeddings: str | Path | None = None,
    dtype: DType = "float32",
    device: Device = "cpu",
    offload: bool = False,
    variant: str | None = None,
    size: int | None = None,
    local_files_only: bool = False,
    thresholding: bool = True,
    text_8bit: bool = False,
) -> Backend:
    """DeepFloyd IF: stage I (text to 64 pixels), II (64 to 256) or III (256 to 1024).

    Stages I and II have DDPM as their default solver. Stage III is the latent upscaler of Stable
    Diffusion, with the DDIM of its pipeline.

    This reads the UNet, and in stage III the decoder. The text encoder is read when a prompt has no
    embedding yet, and freed before the first model call. A safety checker is never read.

    Args:
        model: a folder as diffusers saves it, or a model of the hub; None for IF-I-XL, IF-II-L or
            stable-diffusion-x4-upscaler.
        stage: 1, 2 or 3.
        embeddings: a .safetensors, .pt or .pth file {prompt: (1, L, D)}, "" being the negative.
            None: a file in the user's cache, to which new prompts are added.
        dtype: of the UNet and the text encoder: float32, bfloat16 or float16, as a torch.dtype or
            its name.
        device: a torch.device or its name, or "auto": the first there is of cuda, mps and cpu.
        offload: keep the weights in the CPU's memory, and move each layer to the device when it
            runs; slow, for small GPUs.
        variant: of the weights on the hub, such as "fp16", which are half as large.
        size: height and width of the images; by default those the UNet was trained on, or 1024 in
            stage III.
        local_files_only: use the cache of the hub only.
        thresholding: threshold each estimated clean image, as the pipelines do; False leaves it, as
            a loop written from the formulas does.
        text_8bit: read the text encoder in 8 bits, half of float16's memory; needs bitsandbytes.
    """
    place, network_dtype = placement(device, dtype)
    for name, value in (
        ("offload", offload),
        ("local_files_only", local_files_only),
        ("thresholding", thresholding),
        ("text_8bit", text_8bit),
    ):
        switch(value, name)
    if isinstance(stage, bool) or not isinstance(stage, int) or stage not in MODELS:
        raise ValueError(
            f"stage must be 1 (text to 64 pixels), 2 (64 to 256) or 3 (256 to 1024), "
            f"got {shown(stage)}."
        )
    if not isinstance(embeddings, str | Path | None):
        raise TypeError(f"embeddings must be a file, got {type(embeddings).__name__}.")
    source = Source(MODELS[stage] if model is None else model, None, local_files_only)
    reader = Reader(network_dtype, place, offload, variant)
    folder = source.fetch([*_CONFIGS, *reader.files("unet"), *reader.files("vae")])
    config = _require_stage(folder, stage)
    called = str(source.model)
    store = Embeddings(
        cache_file(called) if embeddings is None else Path(embeddings).expanduser(),
        _whole(folder, config, "encoder_hid_dim", "cross_attention_dim"),
        _text_encoder(source, folder, reader, partial(ENCODERS[stage], eight_bit=text_8bit)),
        place,
        called,
        kind=KINDS[stage],
    )
    if stage == 3:
        return read_upscaler(folder, reader, store, config, size)
    schedule, threshold = _path(folder)
    return DeepFloydBackend(
        unet=reader.network(folder / "unet", UNET),
        embeddings=store,
        schedule=schedule,
        threshold=threshold if thresholding else None,
        size=checked_size(
            _whole(folder, config, "sample_size") if size is None else size, halved(config)
        ),
        device=place,
        low_res_schedule=_schedule(folder / "image_noising_scheduler") if stage == 2 else None,
    )


def _require_stage(folder: Path, stage: int) -> Mapping[str, Any]:
    """The configuration of the UNet, if it is of this stage."""
    place = folder / "unet"
    config = read_json(require_config(place))
    ins, outs = config.get("in_channels"), config.get("out_channels")
    kind = config.get("_class_name")
    found = next((stage for channels, stage in _STAGES.items() if channels == (ins, outs)), None)
    if kind != UNET or found is None:
        raise ValueError(
            f"{place} must be a stage of IF ({UNET}, 3 or 6 channels in and 6 out, or 7 in and 4 "
            f"out), got a {kind} with {ins} in and {outs} out."
        )
    if found != stage:
        raise ValueError(
            f"{folder} must be stage {stage} of IF, got stage {found}. Load it with stage={found}."
        )
    return config


def _whole(folder: Path, config: Mapping[str, Any], *keys: str) -> int:
    """The first of ``keys`` that the UNet's configuration has; a whole number."""
    value = next((config[key] for key in keys if config.get(key) is not None), None)
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(
            f"{folder / 'unet' / 'config.json'}: {' or '.join(keys)} must be a whole number, got "
            f"{value!r}. Download it again."
        )
    return value


def _text_encoder(
    source: Source, folder: Path, reader: Reader, encoder: Callable[..., TextEncoder]
) -> TextEncoder | None:
    """The text encoder; None for a folder that was saved without one."""
    if not (folder / "text_encoder" / "config.json").is_file():
        return None
    return encoder(source, reader.device, reader.dtype, variant=reader.variant)


def _path(folder: Path) -> tuple[DiscreteSchedule, Clip | None]:
    """The schedule, and the clipping of estimated clean images."""
    place = folder / "scheduler"
    config = _scheduler(place).config
    if config.prediction_type != "epsilon" or config.variance_type != "learned_range":
        raise ValueError(
            f"{place} must have prediction_type 'epsilon' and variance_type 'learned_range', got "
            f"{config.prediction_type!r} and {config.variance_type!r}."
        )
    with usable(place / SCHEDULER):
        require_settings(config)
    # IF always clips.
    return _schedule(place), clip_of(config) or clip_of({"clip_sample": True})


def _schedule(place: Path) -> DiscreteSchedule:
    scheduler = _scheduler(place)
    with usable(place / SCHEDULER):
        return schedule_of(scheduler)


def _scheduler(place: Path) -> Any:
    from diffusers import DDPMScheduler  # noqa: PLC0415  # slow

    file = place / SCHEDULER
    if not file.is_file():
        raise ValueError(f"{place.parent} has no {place.name}/{file.name}. Download it again.")
    content = read_json(file)
    with usable(file):
        return DDPMScheduler.from_config(content)
