"""Reading and checks of the UNet2DModel in a folder."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from composer.arguments import choice, integer, sequence
from composer.errors import shown
from composer_plugins.backends.checksum import require_checksum
from composer_plugins.backends.files import first_line, read_json, require_all, usable

WEIGHTS = "diffusion_pytorch_model"
_TIME_EMBEDDINGS = ("positional", "fourier", "learned")


def read_unet(folder: Path, use_safetensors: bool = True) -> Any:
    """Read the UNet2DModel of a pipeline's folder or of its own folder, in float32, for evaluation.

    Raises:
        ValueError: the weights are missing, damaged, or of another model.
    """
    from diffusers import UNet2DModel  # noqa: PLC0415  # slow

    place = folder_of(folder, "unet", "config.json")
    _require_weights(place, use_safetensors)
    try:
        for file in place.glob(f"{WEIGHTS}*.safetensors"):
            require_checksum(file)
        unet, found = UNet2DModel.from_pretrained(
            place,
            local_files_only=True,
            low_cpu_mem_usage=False,
            use_safetensors=use_safetensors,
            output_loading_info=True,
        )
    except (OSError, SafetensorError) as error:
        raise ValueError(
            f"{place} cannot be read ({first_line(error)}): its weights are damaged or "
            "incomplete. Download or write it again."
        ) from error
    except (RuntimeError, ValueError, TypeError) as error:
        if misfit := re.search("size mismatch for [^:]+", str(error)):
            raise ValueError(
                f"the weights in {place} do not fit its config.json ({misfit[0]}). The two belong "
                "to different models."
            ) from error
        raise ValueError(
            f"{place} cannot be read ({first_line(error)}). Download or write it again."
        ) from error
    require_all(found["missing_keys"], place)
    return unet.float().eval().requires_grad_(False)


def require_unet(folder: Path) -> dict[str, Any]:
    """The configuration of a UNet2DModel of pixels that the loop can drive.

    Raises:
        ValueError: the folder holds another kind of model, or more than a UNet and a scheduler.
    """
    _require_pixels(folder)
    file = folder_of(folder, "unet", "config.json") / "config.json"
    config = read_json(file)
    if config.get("_class_name") != "UNet2DModel":
        raise ValueError(f"{file} must describe a UNet2DModel, got {config.get('_class_name')}.")
    ins, outs = config.get("in_channels", 3), config.get("out_channels", 3)
    if outs not in (ins, 2 * ins):
        raise ValueError(
            f"{file}: out_channels must be {ins} as in_channels, or {2 * ins} with a learned "
            f"variance, got {outs}."
        )
    with usable(file):
        factor = 2 ** (_blocks(config) - 1)
        embedding = config.get("time_embedding_type", "positional")
        choice(embedding, "time_embedding_type", _TIME_EMBEDDINGS)
    size = config.get("sample_size")
    sides = [size, size] if isinstance(size, int) else size
    if (
        not isinstance(sides, list)
        or len(sides) != 2
        or any(not isinstance(side, int) or side < 1 or side % factor for side in sides)
    ):
        raise ValueError(
            f"{file}: sample_size must be one number or [height, width], multiples of {factor}, "
            f"got {shown(size)}."
        )
    if (kind := config.get("class_embed_type")) is not None:
        raise ValueError(f"{file}: class_embed_type must be None, got {kind!r}.")
    return config


def folder_of(folder: Path, part: str, file: str) -> Path:
    """A part of a pipeline lies in a folder of its own or, in old ones, beside the others."""
    place = next((p for p in (folder / part, folder) if (p / file).is_file()), None)
    if place is None:
        elsewhere = ", or name another with scheduler=" if part == "scheduler" else ""
        raise ValueError(
            f"{folder} has neither {part}/{file} nor {file}. Name a folder written by "
            f"save_pretrained of a DDPMPipeline or DDIMPipeline{elsewhere}."
        )
    return place


def _require_weights(place: Path, use_safetensors: bool) -> None:
    names = (f"{WEIGHTS}.safetensors", f"{WEIGHTS}-*.safetensors")
    if use_safetensors and not any(file for name in names for file in place.glob(name)):
        advice = (
            "To read its pickled weights, if you trust them, pass use_safetensors=False"
            if any(place.glob(f"{WEIGHTS}*.bin"))
            else "Download the model again"
        )
        raise ValueError(f"{place} has no {WEIGHTS}.safetensors. {advice}.")


def _require_pixels(folder: Path) -> None:
    """Raise a ValueError for pipelines that have more than a UNet2DModel and a scheduler."""
    file = folder / "model_index.json"
    if not file.is_file():
        return
    index = read_json(file)
    name = str(index.get("_class_name"))
    if name.startswith("IF"):
        raise ValueError(
            f"{folder} must hold a UNet2DModel, got {name}. Use load_backend('deepfloyd')."
        )
    pairs = {part: value for part, value in index.items() if _is_pair(value)}
    for part in ("unet", "scheduler"):
        if part in index and part not in pairs:
            raise ValueError(f"{file}: {part} must be [library, class], got {index[part]!r}.")
    parts = {part: kind for part, (_, kind) in pairs.items() if kind is not None}
    others = sorted(parts.keys() - {"unet", "scheduler"})
    unet = parts.get("unet", "no UNet")
    if others or unet != "UNet2DModel":
        beside = f" beside {', '.join(others)}" if others else ""
        raise ValueError(
            f"{folder} must be a pipeline of a UNet2DModel of pixels, got {name} ({unet}{beside}). "
            "Use for example a DDPMPipeline or DDIMPipeline."
        )


def _is_pair(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2


def _blocks(config: dict[str, Any]) -> int:
    """The number of levels of the UNet, each of half the size of the one above."""
    name = "block_out_channels"
    channels = sequence(config.get(name, [224, 448, 672, 896]), name)  # UNet2DModel's own
    if not channels:
        raise ValueError(f"{name} must not be empty.")
    return len([integer(count, f"each of {name}", least=1) for count in channels])
