"""``load_backend("prx")``: read and check PRXPixel."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from composer.arguments import finite, integer, positive, switch
from composer.errors import shown
from composer.named import Device, DType
from composer.schedules import FlowSchedule
from composer_plugins.backends.deepfloyd.embedding_files import cache_file, verbatim
from composer_plugins.backends.deepfloyd.embeddings import Embeddings
from composer_plugins.backends.deepfloyd.reading import Reader
from composer_plugins.backends.deepfloyd.text import TextEncoder
from composer_plugins.backends.files import Source, read_json
from composer_plugins.backends.pixel_flow.backend import PixelFlowBackend
from composer_plugins.backends.placement import WITH_FLOAT64, loop_dtype, placement

MODEL = "Photoroom/prxpixel-t2i"
LEAST = 0.05
"""The smallest divisor of the velocity, as the pipeline has it."""
NETWORK, PIPELINE = "PRXTransformer2DModel", "PRXPixelPipeline"
SCHEDULER = "FlowMatchEulerDiscreteScheduler"
PACKAGES = "transformers", "ftfy"
EXTRA = "pip install 'diffusion-composer[prx]'"
_CONFIGS = (
    *("model_index.json", "transformer/config.json", "scheduler/scheduler_config.json"),
    "text_encoder/config.json",
)
# Scheduler settings that would change the plan or the step of this path.
_OTHER_PLANS = (
    *("use_dynamic_shifting", "shift_terminal", "use_karras_sigmas", "use_exponential_sigmas"),
    *("use_beta_sigmas", "invert_sigmas", "stochastic_sampling"),
)


def load_prx(
    model: str | Path = MODEL,
    size: int | Sequence[int] | None = None,
    embeddings: str | Path | None = None,
    dtype: DType = "float32",
    device: Device = "cpu",
    offload: bool = False,
    variant: str | None = None,
    revision: str | None = None,
    local_files_only: bool = False,
    text_8bit: bool = False,
) -> PixelFlowBackend:
    """PRXPixel of Photoroom: text to images of 1024 pixels, whole RGB, without an autoencoder.

    Its pipeline takes 28 steps and guidance of scale 4: ``Sampler(backend, [CFG(4.0)],
    num_inference_steps=28)``. This reads the denoiser only. The text encoder is read when a prompt
    has no embedding yet, and freed before the first model call.

    Args:
        model: a folder as diffusers saves a PRXPixelPipeline, or a model of the hub.
        size: height and width of the images, one number or two, multiples of the patch (16 pixels);
            None for the model's own.
        embeddings: a .safetensors, .pt or .pth file {prompt: (1, L, D)}, "" being the negative,
            without padding. None: a file in the user's cache, to which new prompts are added.
        dtype: of denoiser and text encoder: float32, bfloat16, float16 or float64, as a torch.dtype
            or its name; images are in float32 at least. In float64 a seed draws other noise.
        device: a torch.device or its name, or "auto": the first there is of cuda, mps and cpu.
        offload: keep the weights in the CPU's memory, and move each layer to the device when it
            runs; slow, for small GPUs.
        variant: of the weights on the hub, such as "fp16".
        revision: branch, tag or commit of the hub.
        local_files_only: use the cache of the hub only.
        text_8bit: read the text encoder in 8 bits; needs bitsandbytes.
    """
    _require_diffusers()
    place, network_dtype = placement(device, dtype, WITH_FLOAT64)
    for name, value in (
        ("offload", offload),
        ("local_files_only", local_files_only),
        ("text_8bit", text_8bit),
    ):
        switch(value, f"prx: {name}")
    if not isinstance(embeddings, str | Path | None):
        raise TypeError(f"prx: embeddings must be a file, got {type(embeddings).__name__}.")
    if size is not None:
        _sides(size)  # before downloading anything
    source = Source(model, revision, local_files_only)
    reader = Reader(network_dtype, place, offload, variant)
    folder = source.fetch(_CONFIGS)
    index, config = _require_prx(folder)
    shape = _shape(size, index, config)
    schedule = _schedule(folder, index)
    called = str(source.model)
    store = Embeddings(
        cache_file(called) if embeddings is None else Path(embeddings).expanduser(),
        integer(config.get("context_in_dim"), f"{folder}: context_in_dim", least=1),
        text_encoder(source, place, network_dtype, text_8bit, variant),
        place,
        called,
        verbatim,
        fewest=0,
        kind=_kind(index, folder),
    )
    folder = source.fetch([*_CONFIGS, *reader.files("transformer")])
    network = reader.network(folder / "transformer", NETWORK)
    return PixelFlowBackend(
        *(network, asked, store, schedule, shape, LEAST, place),
        dtype=loop_dtype(network_dtype),
    )


def asked(network: Any, x: Tensor, s: Tensor, text: Tensor, mask: Tensor | None) -> Tensor:
    """The clean images that PRX predicts; see ``Ask``."""
    out: Tensor = network(x, s, text, attention_mask=mask, return_dict=False)[0]
    return out


def text_encoder(
    source: Source,
    device: torch.device,
    dtype: torch.dtype,
    eight_bit: bool = False,
    variant: str | None = None,
) -> TextEncoder | None:
    """The text encoder of a PRXPixel, a Qwen3-VL without its vision part; None for a folder that
    was saved without one."""
    folder = source.fetch(_CONFIGS)
    index, _ = _require_prx(folder)
    if not (folder / "text_encoder" / "config.json").is_file():
        return None
    return TextEncoder(
        source,
        device,
        dtype,
        kind=_class_of(index, "text_encoder", folder),
        packages=PACKAGES,
        extra=EXTRA,
        eight_bit=eight_bit,
        variant=variant,
        length=integer(index.get("prompt_max_tokens", 256), f"{folder}: prompt_max_tokens", 1),
        clean=cleaned,
        trimmed=True,
    )


def cleaned(prompt: str) -> str:
    """A prompt as the pipeline cleans it."""
    import ftfy  # noqa: PLC0415  # optional

    return html.unescape(html.unescape(ftfy.fix_text(prompt))).strip()


def _require_diffusers() -> None:
    import diffusers  # noqa: PLC0415  # slow

    if not hasattr(diffusers, PIPELINE):
        raise ValueError(
            f"prx: diffusers must be 0.42 or later, got {diffusers.__version__}. Run {EXTRA}."
        )


def _require_prx(folder: Path) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """Read model_index.json and the denoiser's config.json, and check that they are of a
    PRXPixel."""
    files = folder / "model_index.json", folder / "transformer" / "config.json"
    for file in files:
        if not file.is_file():
            raise ValueError(
                f"prx: {folder} has no {file.relative_to(folder)}. Name a folder as diffusers "
                f"saves a {PIPELINE}, or a model of the hub such as {MODEL!r} (offline, it must be "
                "in the cache)."
            )
    index, config = (read_json(file) for file in files)
    found = index.get("_class_name"), config.get("_class_name")
    if found != (PIPELINE, NETWORK):
        raise ValueError(
            f"prx: {folder} must be a {PIPELINE} with a {NETWORK}, got {shown(found[0])} with "
            f"{shown(found[1])}. Load other models by their own backend, see `composer plugins`."
        )
    return index, config


def _kind(index: Mapping[str, Any], folder: Path) -> str:
    """The class of the text encoder; "" for a pipeline that was saved without one."""
    saved = index.get("text_encoder") not in (None, [None, None])
    return _class_of(index, "text_encoder", folder) if saved else ""


def _class_of(index: Mapping[str, Any], part: str, folder: Path) -> str:
    """The class in transformers of a part of a pipeline."""
    listed = index.get(part)
    if not isinstance(listed, list) or len(listed) != 2 or listed[0] != "transformers":
        raise ValueError(
            f"prx: {folder / 'model_index.json'} must name a class of transformers as {part}, got "
            f"{shown(listed)}. Download it again."
        )
    return str(listed[1])


def _sides(size: int | Sequence[int]) -> tuple[int, int]:
    sides = [size, size] if isinstance(size, int) else size
    if isinstance(sides, str) or not isinstance(sides, Sequence) or len(sides) != 2:
        raise TypeError(f"prx: size must be one number or (height, width), got {shown(size)}.")
    height, width = (integer(side, "prx: size", least=1) for side in sides)
    return height, width


def _shape(
    size: int | Sequence[int] | None, index: Mapping[str, Any], config: Mapping[str, Any]
) -> tuple[int, int, int]:
    """(C, H, W) of the images."""
    patch = integer(config.get("patch_size"), "prx: patch_size of the denoiser", least=1)
    channels = integer(config.get("in_channels"), "prx: in_channels of the denoiser", least=1)
    height, width = _sides(index.get("default_sample_size") or 1024 if size is None else size)
    for side in (height, width):
        if side % patch:
            raise ValueError(
                f"prx: size must be a multiple of {patch}, the pixels of a patch, got {side}. Use "
                f"{max(patch, round(side / patch) * patch)}."
            )
    return channels, height, width


def _schedule(folder: Path, index: Mapping[str, Any]) -> FlowSchedule:
    """The path, with the width of the noise of the pipeline and the time shift of the scheduler."""
    file = folder / "scheduler" / "scheduler_config.json"
    if not file.is_file():
        raise ValueError(f"prx: {folder} has no scheduler/{file.name}. Download it again.")
    config = read_json(file)
    others = [name for name in _OTHER_PLANS if config.get(name)]
    if config.get("_class_name") != SCHEDULER or others:
        raise ValueError(
            f"prx: {file} must be a {SCHEDULER} of a fixed shift, got "
            f"{shown(config.get('_class_name'))}{' with ' * bool(others)}{', '.join(others)}. Use "
            "that of the model's own repository."
        )
    shift = positive(config.get("shift", 1.0), f"prx: shift in {file}")
    least = 1 / integer(config.get("num_train_timesteps", 1000), "prx: num_train_timesteps", 2)
    return FlowSchedule(
        noise_scale=positive(index.get("noise_scale", 2.0), "prx: noise_scale"),
        shift=shift,
        last=finite(shift * least / (1 + (shift - 1) * least), "prx: the last time"),
    )
