"""``load_backend("latent")``: read and check a latent pipeline."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from composer.arguments import finite, integer, positive, switch
from composer.errors import shown
from composer.named import Device, DType
from composer.predictions import FLOW, Prediction
from composer.schedules import Schedule
from composer.solvers import DDIM, DiffusersSolver, Solver
from composer_plugins.backends.autoencoder import Autoencoder
from composer_plugins.backends.deepfloyd.embedding_files import verbatim
from composer_plugins.backends.deepfloyd.embeddings import Embeddings, cache_file
from composer_plugins.backends.deepfloyd.reading import Reader, require_config
from composer_plugins.backends.diffusers_unet.loading import (
    PREDICTIONS,
    read_scheduler,
    schedule_of,
)
from composer_plugins.backends.files import Source, read_json, usable
from composer_plugins.backends.latent.backend import LatentBackend
from composer_plugins.backends.latent.families import FAMILIES, Family
from composer_plugins.backends.latent.flow import ScheduledFlow, shift_for
from composer_plugins.backends.latent.text import PipelineText
from composer_plugins.backends.placement import WITH_FLOAT64, loop_dtype, placement

GUIDANCE = 3.5
"""Of a guidance-distilled model, as the pipeline of Flux has it."""
_FLOW = "FlowMatchEulerDiscreteScheduler"
_CONFIGS = (
    *("model_index.json", "unet/config.json", "transformer/config.json", "vae/config.json"),
    *("scheduler/scheduler_config.json", "text_encoder/config.json"),
)
Path_ = tuple[Schedule, Prediction, Solver]


def load_latent(
    model: str | Path,
    size: int | Sequence[int] | None = None,
    embeddings: str | Path | None = None,
    guidance: float | None = None,
    dtype: DType = "float32",
    device: Device = "cpu",
    offload: bool = False,
    variant: str | None = None,
    vae_slicing: bool = True,
    vae_tiling: bool = False,
    revision: str | None = None,
    local_files_only: bool = False,
) -> LatentBackend:
    """A latent text-to-image model of diffusers: Stable Diffusion 1.x, 2.x, XL, 3 and 3.5, Flux.1
    dev and schnell, Z-Image.

    model_index.json states the kind of model. The text encoders are read when a prompt has no
    embedding yet, and freed before the first model call. A safety checker is never read.

    Args:
        model: a folder written by save_pretrained of the pipeline, or a model of the hub as
            "owner/name".
        size: height and width of the images, one number or two; None for those that the model was
            trained on.
        embeddings: a .safetensors, .pt or .pth file {prompt: (1, L, D)}, "" is no condition; the
            pooled embedding follows the tokens. None: a file in the user's cache, to which new
            prompts are added.
        guidance: the scale that a guidance-distilled model, such as Flux.1 dev, takes as an input;
            None for 3.5. Raises for a model without that input.
        dtype: of the denoiser and the text encoders: float32, bfloat16, float16 or float64, as a
            torch.dtype or its name; latents are in float32 at least. In float16 an autoencoder
            that overflows there stays in float32 too. In float64 a seed draws other noise.
        device: a torch.device or its name, or "auto": the first there is of cuda, mps and cpu.
        offload: keep the weights in the CPU's memory, and move each layer to the device when it
            runs; slow, for small GPUs.
        variant: of the weights on the hub, such as "fp16", which are half as large.
        vae_slicing: encode and decode one image at a time.
        vae_tiling: encode and decode an image in tiles that overlap; results differ slightly.
        revision: branch, tag or commit of the hub.
        local_files_only: use the cache of the hub only.

    Raises:
        TypeError, ValueError: an argument is invalid, or the folder holds another kind of model;
            the message names the known kinds.
    """
    place, network_dtype = placement(device, dtype, WITH_FLOAT64)
    for name, value in (
        ("offload", offload),
        ("vae_slicing", vae_slicing),
        ("vae_tiling", vae_tiling),
        ("local_files_only", local_files_only),
    ):
        switch(value, name)
    if not isinstance(embeddings, str | Path | None):
        raise TypeError(f"embeddings must be a file, got {type(embeddings).__name__}.")
    if size is not None:
        _sides(size)  # before downloading anything
    source = Source(model, revision, local_files_only)
    folder = source.fetch(_CONFIGS)
    family = _family(folder)
    config = read_json(require_config(folder / family.part))
    scale = _guidance(config, guidance)
    decoder = read_json(require_config(folder / "vae"))
    with usable(folder / "vae" / "config.json"):
        factor = 2 ** (len(decoder["block_out_channels"]) - 1)
        positive(decoder.get("scaling_factor", 1), "scaling_factor")
    with usable(folder / family.part / "config.json"):
        width, channels = int(config[family.width]), family.channels(config)
        trained, patch = factor * family.size(config), factor * family.patch(config)
    _require_channels(folder, channels, decoder)
    chosen = _size(size, trained, patch)
    schedule, prediction, solver = _path(
        folder, family, (chosen[0] // patch) * (chosen[1] // patch)
    )
    called = str(source.model)
    encoder = PipelineText(source, family, place, network_dtype, variant)
    store = Embeddings(
        cache_file(called) if embeddings is None else Path(embeddings).expanduser(),
        width,
        encoder if (folder / "text_encoder" / "config.json").is_file() else None,
        place,
        called,
        verbatim,
        kind=family.pipeline,
    )
    reader = Reader(network_dtype, place, offload, variant)
    folder = source.fetch([*_CONFIGS, *reader.files(family.part), *reader.files("vae")])
    wide = network_dtype == torch.float16 and decoder.get("force_upcast", True)
    careful = Reader(torch.float32 if wide else network_dtype, place, offload, variant)
    vae = careful.network(folder / "vae", "AutoencoderKL")
    return LatentBackend(
        network=reader.network(folder / family.part, family.network),
        autoencoder=Autoencoder.of(vae, vae_slicing, vae_tiling),
        embeddings=store,
        family=family,
        schedule=schedule,
        prediction=prediction,
        default_solver=solver,
        size=chosen,
        guidance=scale,
        blank=bool(read_json(folder / "model_index.json").get("force_zeros_for_empty_prompt")),
        device=place,
        dtype=loop_dtype(network_dtype),
    )


def _family(folder: Path) -> Family:
    """The family of the pipeline in a folder, its parts being those that the family has."""
    file = folder / "model_index.json"
    if not file.is_file():
        raise ValueError(
            f"{folder} has no model_index.json. Name a folder written by save_pretrained of a "
            "whole pipeline, or a model of the hub as 'owner/name'."
        )
    index = read_json(file)
    kind = str(index.get("_class_name"))
    if kind not in FAMILIES:
        known = ", ".join(sorted({family.pipeline for family in FAMILIES.values()}))
        raise ValueError(
            f"{folder} is a {kind}, which no adapter knows. Load a pipeline of {known}."
        )
    family = FAMILIES[kind]
    for part, expected in ((family.part, family.network), ("vae", "AutoencoderKL")):
        found = index.get(part)
        name = found[1] if isinstance(found, list) and len(found) == 2 else found
        if name != expected:
            raise ValueError(
                f"{file}: {part} is {shown(name)}, and the adapter of {family.pipeline} knows "
                f"{expected}. Load a pipeline that has one."
            )
    if index.get("requires_aesthetics_score"):
        raise ValueError(
            f"{folder} is a refiner, which takes a score of beauty beside its prompt. Load the "
            "base model, whose images SDEdit edits."
        )
    return family


def _require_channels(folder: Path, takes: int, decoder: Mapping[str, Any]) -> None:
    """Require a denoiser of latents alone: some take a mask and an image beside them."""
    if takes != decoder.get("latent_channels"):
        made = decoder.get("latent_channels")
        raise ValueError(
            f"{folder}: the denoiser must take the {made} channels of the latents, got {takes}. "
            "Load a model without further inputs, and edit with Inpaint or SDEdit."
        )


def _guidance(config: Mapping[str, Any], given: float | None) -> float | None:
    """The scale for a denoiser that takes one."""
    if config.get("time_cond_proj_dim") is not None:
        raise ValueError(
            "The UNet takes its guidance as a part of the time (time_cond_proj_dim), which no "
            "adapter knows. Load a model without."
        )
    if not config.get("guidance_embeds"):
        if given is not None:
            raise ValueError(
                f"guidance must be None, got {shown(given)}: the model is not distilled from "
                "guidance. Guide it with CFG(scale) among the plugins."
            )
        return None
    return finite(GUIDANCE if given is None else given, "guidance")


def _size(size: int | Sequence[int] | None, trained: int, factor: int) -> tuple[int, int]:
    """Height and width of the images."""
    sides = _sides(trained if size is None else size)
    for side in sides:
        if side % factor:
            near = max(factor, round(side / factor) * factor)
            raise ValueError(
                f"size must be a multiple of {factor}, by which the model divides the sides, got "
                f"{shown(size)}. Take {near} in place of {side}."
            )
    return sides


def _sides(size: int | Sequence[int]) -> tuple[int, int]:
    sides = [size, size] if isinstance(size, int) else size
    if not isinstance(sides, Sequence) or isinstance(sides, str) or len(sides) != 2:
        raise TypeError(f"size must be one number, or height and width, got {shown(size)}.")
    height, width = (integer(side, "size", least=1) for side in sides)
    return height, width


def _path(folder: Path, family: Family, tokens: int) -> Path_:
    """The schedule, the prediction and the solver of a pipeline's scheduler.

    Args:
        tokens: of an image, on which the plan of some flows depends.
    """
    file = folder / "scheduler" / "scheduler_config.json"
    if not file.is_file():
        raise ValueError(f"There is no file {file}. Download or save the whole pipeline again.")
    if not family.flow:
        own = read_scheduler(folder)
        return schedule_of(own), PREDICTIONS[own.config.prediction_type], DiffusersSolver(own)
    import diffusers  # noqa: PLC0415  # slow

    config = read_json(file)
    kind = config.get("_class_name")
    if kind != _FLOW or config.get("stochastic_sampling") or config.get("invert_sigmas"):
        raise ValueError(
            f"{file} must describe {_FLOW} without stochastic_sampling and invert_sigmas, which "
            f"the adapter of {family.pipeline} knows, got {kind}. Write such a file."
        )
    with usable(file):
        scheduler = getattr(diffusers, _FLOW).from_config(config)
        mu = None
        if scheduler.config.use_dynamic_shifting:
            mu = shift_for(scheduler.config, tokens)
        schedule = ScheduledFlow(scheduler, mu, family.levels)
        schedule.times(1)
    return schedule, FLOW, DDIM()
