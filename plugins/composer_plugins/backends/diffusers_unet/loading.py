"""``load_backend("diffusers")``: read and check a pipeline of a UNet2DModel."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor, nn

from composer.arguments import integer
from composer.authoring import Clip
from composer.named import Device, DType
from composer.predictions import EPSILON, SAMPLE, Prediction, V
from composer.schedules import DiscreteSchedule
from composer.solvers import DDIM, DDPM, DiffusersSolver, Solver
from composer.solvers._schedulers import asked_beyond, clips, thresholds
from composer_plugins.backends.clipping import clip_of
from composer_plugins.backends.diffusers_unet.backend import DiffusersBackend
from composer_plugins.backends.diffusers_unet.settings import require_settings
from composer_plugins.backends.diffusers_unet.unet import (
    WEIGHTS,
    folder_of,
    read_unet,
    require_unet,
)
from composer_plugins.backends.files import Source, read_json, require_name, usable
from composer_plugins.backends.placement import WITH_FLOAT64, loop_dtype, placement

LABELS = "labels.json"
"""An optional file beside model_index.json, such as {"unconditional_label": 2, "labels": ["a",
"b"]}."""
PREDICTIONS: dict[str, Prediction] = {"epsilon": EPSILON, "sample": SAMPLE, "v_prediction": V}
_CONFIGS = (
    *("model_index.json", "config.json", "scheduler_config.json", LABELS),
    *("unet/config.json", "scheduler/scheduler_config.json"),
)


def load_diffusers(
    model: str | Path,
    device: Device = "cpu",
    dtype: DType = "float32",
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
        device: a torch.device or its name, or "auto": the first there is of cuda, mps and cpu.
        dtype: of the network, float32, bfloat16, float16 or float64, as a torch.dtype or its name;
            images are in float32 at least. In float64 a seed draws other noise.
        unconditional_label: the label of a class-conditional model that was trained as "no label",
            usually the last. None: the one in labels.json, if that exists.
        scheduler: another folder that holds scheduler_config.json; None for the model's own. Pass a
            scheduler object as a solver: DiffusersSolver(scheduler).
        revision: branch, tag or commit of the hub.
        local_files_only: use the cache of the hub only.
        use_safetensors: False also reads pickled weights; use it for trusted sources only.
    """
    place, network_dtype = placement(device, dtype, WITH_FLOAT64)
    if scheduler is not None:
        require_name(scheduler, "scheduler")
    source = Source(model, revision, local_files_only)
    folder = source.fetch(_CONFIGS)
    config = require_unet(folder)
    own = read_scheduler(folder if scheduler is None else Source(scheduler).fetch(()))
    _require_times(config, own)
    learns_variance = _learns_variance(config, own)
    said = read_json(folder / LABELS) if (folder / LABELS).is_file() else {}
    unconditional = _unconditional_label(said, config, unconditional_label)
    endings = [".safetensors", ".safetensors.index.json"] if use_safetensors else [""]
    folder = source.fetch([*_CONFIGS, *(f"*{WEIGHTS}*{ending}" for ending in endings)])
    unet = read_unet(folder, use_safetensors)
    return DiffusersBackend(
        unet=nn.Module.to(unet, place, network_dtype),
        schedule=schedule_of(own),
        prediction=PREDICTIONS[own.config.prediction_type],
        default_solver=_solver(own),
        clip=_clip(own),
        learns_variance=learns_variance,
        unconditional_label=unconditional,
        label_names=_label_names(said, config),
        dtype=loop_dtype(network_dtype),
    )


def read_scheduler(folder: Path, part: str = "scheduler") -> Any:
    """Read the scheduler of a folder, and check its betas and prediction type."""
    import diffusers  # noqa: PLC0415  # slow

    file = folder_of(folder, part, "scheduler_config.json") / "scheduler_config.json"
    config = read_json(file)
    known = getattr(diffusers, str(config.get("_class_name")), None)
    if (
        not isinstance(known, type)
        or not issubclass(known, diffusers.SchedulerMixin)
        or not hasattr(known, "from_config")
    ):
        raise ValueError(
            f"{file}: _class_name must be a scheduler of diffusers, got "
            f"{config.get('_class_name')}."
        )
    with usable(file):
        require_settings(config)
        scheduler: Any = known.from_config(config)
    table = getattr(scheduler, "alphas_cumprod", None)
    kind = scheduler.config.get("prediction_type", None)
    if not isinstance(table, Tensor) or kind not in list(PREDICTIONS):
        raise ValueError(
            f"{file}: the scheduler must have betas and a prediction_type of "
            f"{sorted(PREDICTIONS)}, got {known.__name__} with {kind!r}. Use for "
            "example a DDPMScheduler."
        )
    if more := asked_beyond(scheduler):
        raise ValueError(
            f"{file}: the step of {known.__name__} needs {' and '.join(more)}, which the loop does "
            "not have. Use a scheduler such as DDPMScheduler."
        )
    with usable(file):
        schedule_of(scheduler)
    return scheduler


def schedule_of(scheduler: Any) -> DiscreteSchedule:
    """The path and the times of a scheduler of diffusers."""
    config = scheduler.config
    return DiscreteSchedule(
        scheduler.alphas_cumprod.cummin(0).values,  # some end in 2^-24, not 0, which rises
        config.get("timestep_spacing", "leading"),
        config.get("steps_offset", 0),
    )


def _require_times(config: dict[str, Any], scheduler: Any) -> None:
    """Raise a ValueError unless a learned time embedding has a row for each time."""
    known, times = config.get("num_train_timesteps"), len(scheduler.alphas_cumprod)
    learned = config.get("time_embedding_type") == "learned"
    if learned and not (isinstance(known, int) and known >= times):
        raise ValueError(
            f"the UNet's learned time embedding must have {times} times as the scheduler, got "
            f"num_train_timesteps={known}. The two belong to different models."
        )


def _learns_variance(config: dict[str, Any], scheduler: Any) -> bool:
    """Whether the second half of the channels is a variance that the scheduler reads."""
    kind = scheduler.config.get("variance_type", None)
    doubled = config.get("out_channels", 3) == 2 * config.get("in_channels", 3)
    if kind == "learned" or (kind == "learned_range" and not doubled):
        raise ValueError(
            f"the scheduler's variance_type {kind!r} does not fit the UNet's "
            f"{config.get('out_channels', 3)} output channels. 'learned_range' needs twice the "
            "input channels, and 'fixed_small' and 'fixed_large' take any number."
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
        raise ValueError(
            f"unconditional_label must be a label of the model ({known}), got {label}."
        )
    return label


def _label_names(said: dict[str, Any], config: dict[str, Any]) -> tuple[str, ...]:
    names, count = said.get("labels", []), config.get("num_class_embeds") or 0
    distinct = isinstance(names, list) and len({str(name) for name in names}) == len(names)
    if not distinct or not all(isinstance(name, str) for name in names) or len(names) > count:
        raise ValueError(f"{LABELS}: labels must be different names, at most {count}.")
    return tuple(names)


def _clip(scheduler: Any) -> Clip | None:
    """The function that the scheduler applies to x_0 in each step, or None."""
    acts = clips(scheduler) or thresholds(scheduler)  # some have the setting and ignore it
    return clip_of(scheduler.config) if acts else None


def _solver(scheduler: Any) -> Solver:
    """The solver of this library that equals the scheduler, or the scheduler itself."""
    config, name = scheduler.config, type(scheduler).__name__
    if name == "DDIMScheduler" and config.set_alpha_to_one:
        return DDIM()
    if name in ("DDPMScheduler", "DDPMParallelScheduler"):
        large = str(config.variance_type).startswith("fixed_large")
        return DDPM("fixed_large" if large else "fixed_small")
    if clips(scheduler) or thresholds(scheduler):  # which the backend does; x_0 is then handed over
        off = {name: False for name in ("clip_sample", "thresholding") if name in config}
        scheduler = type(scheduler).from_config(config, prediction_type="sample", **off)
    return DiffusersSolver(scheduler)
