"""``load_backend("diffusers")``: read a pipeline, and refuse what is none of this kind."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import diffusers
import torch
from diffusers import DDIMScheduler, DDPMScheduler, UNet2DModel
from diffusers.schedulers.scheduling_utils import SchedulerMixin
from safetensors import SafetensorError
from torch import Tensor, nn

from composer.arguments import integer
from composer.predictions import EPSILON, SAMPLE, Prediction, V
from composer.schedules import DiscreteSchedule
from composer.solvers import DDIM, DDPM, DiffusersSolver, Solver
from composer_plugins.backends.diffusers_unet.backend import DiffusersBackend
from composer_plugins.backends.files import Source, read_json
from composer_plugins.backends.placement import placement
from composer_plugins.thresholding import dynamic_threshold

LABELS = "labels.json"
"""An optional file of ours beside model_index.json: {"unconditional_label": 2, "labels": ["cat",
"dog"]}."""
PREDICTIONS: dict[str, Prediction] = {"epsilon": EPSILON, "sample": SAMPLE, "v_prediction": V}
_WEIGHTS = "diffusion_pytorch_model"
_CONFIGS = (
    *("model_index.json", "config.json", "scheduler_config.json", LABELS),
    *("unet/config.json", "scheduler/scheduler_config.json"),
)


def load_diffusers(
    model: str | Path,
    device: str = "cpu",
    dtype: str = "float32",
    unconditional_label: int | None = None,
    scheduler: str | Path | None = None,
    revision: str | None = None,
    local_files_only: bool = False,
    use_safetensors: bool = True,
) -> DiffusersBackend:
    """A pixel-space UNet2DModel pipeline of diffusers, such as DDPMPipeline, by folder or hub id.

    Args:
        model: a folder written by save_pretrained, of a pipeline or of the UNet alone, or a model
            of the hub as "owner/name".
        device: "cpu", "cuda", ...
        dtype: of the network: "float32", "bfloat16" or "float16"; images stay in float32.
        unconditional_label: of a class-conditional model, the label that was trained as "no
            label", usually the last. None: what labels.json says, if there is one.
        scheduler: another folder that holds scheduler_config.json; None for the model's own.
        revision: branch, tag or commit of the hub.
        local_files_only: take nothing from the hub that is not in its cache.
        use_safetensors: False also reads pickled weights; only from whom you trust.
    """
    place, network_dtype = placement(device, dtype)
    source = Source(model, revision, local_files_only)
    folder = source.fetch(_CONFIGS)
    _require_pixels(folder)
    config = _require_unet(folder)
    own = read_scheduler(folder if scheduler is None else Source(scheduler).fetch(()))
    learns_variance = _learns_variance(config, own)
    said = read_json(folder / LABELS) if (folder / LABELS).is_file() else {}
    unconditional = _unconditional_label(said, config, unconditional_label)
    endings = [".safetensors", ".safetensors.index.json"] if use_safetensors else [""]
    folder = source.fetch([*_CONFIGS, *(f"*{_WEIGHTS}*{ending}" for ending in endings)])
    unet = read_unet(folder, use_safetensors)
    return DiffusersBackend(
        unet=nn.Module.to(unet, place, network_dtype),
        schedule=DiscreteSchedule(
            own.alphas_cumprod,
            own.config.get("timestep_spacing", "leading"),
            own.config.get("steps_offset", 0),
        ),
        prediction=PREDICTIONS[own.config.prediction_type],
        default_solver=_solver(own),
        clip=_clip(own.config),
        learns_variance=learns_variance,
        unconditional_label=unconditional,
        label_names=_label_names(said, config),
    )


def read_unet(folder: Path, use_safetensors: bool = True) -> Any:
    """The UNet2DModel of a pipeline's folder, or of its own, in float32 and for evaluation.

    Raises:
        ValueError: weights that are missing, damaged or another model's.
    """
    place = _folder_of(folder, "unet", "config.json")
    names = (f"{_WEIGHTS}.safetensors", f"{_WEIGHTS}-*.safetensors")
    if use_safetensors and not any(file for name in names for file in place.glob(name)):
        mend = (
            "use_safetensors=False reads its pickled weights, if you trust them"
            if any(place.glob(f"{_WEIGHTS}*.bin"))
            else "fetch the model anew"
        )
        raise ValueError(f"{place} has no {_WEIGHTS}.safetensors; {mend}")
    try:
        unet, found = UNet2DModel.from_pretrained(
            place,
            local_files_only=True,
            low_cpu_mem_usage=False,
            use_safetensors=use_safetensors,
            output_loading_info=True,
        )
    except (OSError, RuntimeError, ValueError, TypeError, SafetensorError) as error:
        reason = str(error).strip().split("\n")[0]
        raise ValueError(f"{place} cannot be read ({reason}); fetch or write it anew") from error
    if missing := found["missing_keys"]:
        raise ValueError(
            f"the weights in {place} lack {len(missing)} of the tensors that config.json asks for, "
            f"such as {sorted(missing)[0]}; the two belong to different models"
        )
    return unet.float().eval().requires_grad_(False)


def _folder_of(folder: Path, part: str, file: str) -> Path:
    """A part of a pipeline lies in a folder of its own or, in old ones, beside the others."""
    place = next((p for p in (folder / part, folder) if (p / file).is_file()), None)
    if place is None:
        elsewhere = ", or name another with scheduler=" if part == "scheduler" else ""
        raise ValueError(
            f"{folder} has neither {part}/{file} nor {file}; name a folder written by "
            f"save_pretrained of a DDPMPipeline or DDIMPipeline{elsewhere}"
        )
    return place


def _require_pixels(folder: Path) -> None:
    """Refuse pipelines that are more than a UNet2DModel and a scheduler."""
    if not (folder / "model_index.json").is_file():
        return
    index = read_json(folder / "model_index.json")
    name = str(index.get("_class_name"))
    if name.startswith("IF"):
        raise ValueError(f"{folder} is a {name}: load_backend('deepfloyd') is there for it")
    parts = {
        part: library_and_class[1]
        for part, library_and_class in index.items()
        if isinstance(library_and_class, list) and library_and_class[1] is not None
    }
    others = sorted(parts.keys() - {"unet", "scheduler"})
    unet = parts.get("unet", "no UNet")
    if others or unet != "UNet2DModel":
        beside = f" beside {', '.join(others)}" if others else ""
        raise ValueError(
            f"{folder} is a {name} ({unet}{beside}), which works on latents or text; this backend "
            "takes a UNet2DModel of pixels, such as that of a DDPMPipeline or DDIMPipeline"
        )


def _require_unet(folder: Path) -> dict[str, Any]:
    """The configuration of a UNet2DModel that the loop can drive."""
    file = _folder_of(folder, "unet", "config.json") / "config.json"
    config = read_json(file)
    if config.get("_class_name") != "UNet2DModel":
        raise ValueError(f"{file} describes a {config.get('_class_name')}, not a UNet2DModel")
    ins, outs = config.get("in_channels", 3), config.get("out_channels", 3)
    if outs not in (ins, 2 * ins):
        raise ValueError(
            f"{file}: {ins} channels in and {outs} out; this backend needs as many out as in, or "
            "twice as many where a variance is learned"
        )
    size = config.get("sample_size")
    sides = [size, size] if isinstance(size, int) else size
    factor = 2 ** (len(config.get("block_out_channels", [0] * 4)) - 1)
    if (
        not isinstance(sides, list)
        or len(sides) != 2
        or any(not isinstance(side, int) or side < 1 or side % factor for side in sides)
    ):
        raise ValueError(
            f"{file}: sample_size must be one number or [height, width], multiples of {factor}, "
            f"got {size!r}"
        )
    if (kind := config.get("class_embed_type")) is not None:
        raise ValueError(f"{file}: class_embed_type {kind!r} is not supported, only labels are")
    return config


def read_scheduler(folder: Path, part: str = "scheduler") -> Any:
    """The scheduler of a folder, its betas and prediction type known."""
    file = _folder_of(folder, part, "scheduler_config.json") / "scheduler_config.json"
    config = read_json(file)
    known = getattr(diffusers, str(config.get("_class_name")), None)
    if not (isinstance(known, type) and issubclass(known, SchedulerMixin)):
        raise ValueError(f"{file}: {config.get('_class_name')} is no scheduler of diffusers")
    try:
        scheduler: Any = known.from_config(config)  # type: ignore[attr-defined]
    except (TypeError, ValueError, NotImplementedError) as error:
        raise ValueError(f"{file} cannot be used ({error}); mend it") from error
    table = getattr(scheduler, "alphas_cumprod", None)
    kind = scheduler.config.get("prediction_type", None)
    if not isinstance(table, Tensor) or kind not in PREDICTIONS:
        raise ValueError(
            f"{file}: {known.__name__} with prediction_type {kind!r} has no path of betas or none "
            f"of the predictions {sorted(PREDICTIONS)}; use a DDPMScheduler or one like it"
        )
    return scheduler


def _learns_variance(config: dict[str, Any], scheduler: Any) -> bool:
    """Whether a second half of the channels is a variance that the scheduler knows to read."""
    kind = scheduler.config.get("variance_type", None)
    doubled = config.get("out_channels", 3) == 2 * config.get("in_channels", 3)
    if kind == "learned" or (kind == "learned_range" and not doubled):
        raise ValueError(
            f"the scheduler's variance_type is {kind!r} and the UNet has "
            f"{config.get('out_channels', 3)} channels out; 'learned_range' goes with twice as "
            "many channels as in, 'fixed_small' and 'fixed_large' with any"
        )
    return bool(doubled) and kind == "learned_range"


def _unconditional_label(
    said: dict[str, Any], config: dict[str, Any], given: int | None
) -> int | None:
    chosen = said.get("unconditional_label") if given is None else given
    if chosen is None:
        return None
    count = config.get("num_class_embeds")
    label = integer(chosen, "unconditional_label", least=0)
    if count is None or label >= count:
        known = "none" if count is None else f"0 to {count - 1}"
        raise ValueError(f"unconditional_label is {label}, but the labels of the model are {known}")
    return label


def _label_names(said: dict[str, Any], config: dict[str, Any]) -> tuple[str, ...]:
    names, count = said.get("labels", []), config.get("num_class_embeds") or 0
    distinct = isinstance(names, list) and len({str(name) for name in names}) == len(names)
    if not distinct or not all(isinstance(name, str) for name in names) or len(names) > count:
        raise ValueError(f"{LABELS}: labels must be different names, at most {count}; mend it")
    return tuple(names)


def _clip(config: Any) -> Callable[[Tensor], Tensor] | None:
    """What the scheduler does to x_0 in each of its steps."""
    if config.get("thresholding", False):
        return partial(
            dynamic_threshold,
            percentile=config.dynamic_thresholding_ratio,
            max_value=config.sample_max_value,
        )
    if config.get("clip_sample", False):
        bound = config.get("clip_sample_range", 1.0)
        return partial(torch.clamp, min=-bound, max=bound)
    return None


def _solver(scheduler: Any) -> Solver:
    """The solver of this library that is the scheduler, or the scheduler itself."""
    kind = type(scheduler)
    if kind is DDIMScheduler:
        return DDIM()
    if kind is DDPMScheduler:
        large = str(scheduler.config.variance_type).startswith("fixed_large")
        return DDPM("fixed_large" if large else "fixed_small")
    return DiffusersSolver(scheduler)
