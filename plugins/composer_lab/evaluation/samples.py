"""Samples of digits by named settings, in blocks that can be saved and reused."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.resources import as_file, files
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from composer import Sampler, installed, load_backend
from composer.authoring import image_shape_of
from composer.images import to_pixels
from composer.protocols import Backend
from composer.solvers import DDPM, DPMSolverPP, Euler, Heun, Solver
from composer.writing import make_folder, write_atomically
from composer_lab.evaluation.table import recipe_of
from composer_plugins.backends.with_weak import WithWeak
from composer_plugins.guidance.adaptive import AdaptiveGuidance
from composer_plugins.guidance.apg import APG
from composer_plugins.guidance.autoguidance import Autoguidance
from composer_plugins.guidance.cfg import CFG
from composer_plugins.guidance.cfg_plus_plus import CFGPlusPlus
from composer_plugins.guidance.cfg_zero_star import CFGZeroStar
from composer_plugins.guidance.fdg import FDG
from composer_plugins.guidance.rescale import Rescale
from composer_plugins.guidance.reused import ReusedGuidance
from composer_plugins.guidance.slg import SLG
from composer_plugins.guidance.tcfg import TCFG
from composer_plugins.guidance.thresholding import DynamicThreshold
from composer_plugins.illusions.decompositions import Bands
from composer_plugins.solvers.adams_bashforth import AdamsBashforth
from composer_plugins.solvers.spaced import Spaced
from composer_plugins.solvers.unipc import UniPC

MAX_ROWS = 32
SHAPE = 1, 28, 28
BLOCK = 250
"""Images per block: sampled and saved together."""

SOLVERS: Mapping[str, Solver] = {
    "euler": Euler(),
    "heun": Heun(),
    "dpm_pp": DPMSolverPP(),
    "unipc": UniPC(2),
    "ab2": AdamsBashforth(2),
    "ab3": AdamsBashforth(3),
    "ddpm": DDPM(),
    "spaced ddpm": Spaced(DDPM()),
    "course": DDPM("fixed_large"),
}
"""{name: solver}; Euler on the DDPM model's schedule is DDIM, ab2 and ab3 are Adams-Bashforth's
method of that order. The course takes 300 steps of its solver with guidance 5."""

LATE = (0.0, 0.45)
AUTOGUIDANCE = "autoguidance"
GUIDANCES: Mapping[str, Callable[[float], list[object]]] = {
    "none": lambda scale: [],
    "cfg": lambda scale: [CFG(scale)],
    "interval": lambda scale: [CFG(scale, LATE)],
    "adaptive": lambda scale: [AdaptiveGuidance(scale)],
    "reused": lambda scale: [ReusedGuidance(scale)],
    "apg": lambda scale: [APG(CFG(scale))],
    "rescale": lambda scale: [Rescale(CFG(scale))],
    "threshold": lambda scale: [DynamicThreshold(), CFG(scale)],
    "cfg-zero*": lambda scale: [CFGZeroStar(scale, zero_steps=0)],
    "tcfg": lambda scale: [TCFG(scale)],
    "fdg": lambda scale: [FDG((1.0, scale), Bands((4.0,)))],
    "slg": lambda scale: [SLG(scale - 1, "down2.1.1")],
    "cfg++": lambda scale: [CFGPlusPlus(_paper_scale(scale))],
    AUTOGUIDANCE: lambda scale: [Autoguidance(scale)],
}
"""{name: the plugins for a guidance scale}. FDG guides the finer of two bands alone. SLG
skips a layer at the coarsest scale; as for autoguidance, scale 1 is the model. CFG++ takes its own
scale, from 0 to 1, as its paper converts it. Autoguidance needs a model with a weak one beside it.
"""

UNGUIDED = "none", AUTOGUIDANCE, "slg"
"""Guidances that need no class."""

SHIPPED = {
    "mnist": "flow",
    "mnist-few-step": "few-step",
    "mnist-ddpm": "ddpm",
    "mnist-latent": "latent",
}
"""{backend: the folder of its weights}."""


@dataclass(frozen=True)
class Setting:
    """How digits are sampled.

    Args:
        solver: its name in SOLVERS.
        steps: num_inference_steps; one row per step, or two with Heun.
        scale: the guidance scale; 1 for none.
        guidance: its name in GUIDANCES.
    """

    solver: str
    steps: int
    scale: float = 1.0
    guidance: str = "none"

    def sampler(self, backend: Backend) -> Sampler:
        plugins = GUIDANCES[self.guidance](self.scale)
        return Sampler(backend, plugins, SOLVERS[self.solver], self.steps, MAX_ROWS)

    def require_possible(self, model: Model) -> None:
        """Raise the errors that sampling would raise, without sampling.

        Raises:
            ValueError: a plugin raises one, or the setting guides a model that was trained without
                classes.
        """
        self.sampler(model.backend)
        if self.guidance not in UNGUIDED and not model.conditional:
            raise ValueError(
                f"--guidance {self.guidance} needs classes, and {model.name} was trained without. "
                "Use --scale 1, or --guidance autoguidance."
            )


@dataclass(frozen=True, eq=False)
class Model:
    """A backend of digits, with an identity of its weights.

    Args:
        name: as the user wrote it.
        backend: the loaded backend.
        weights: sha256 of its files.
        dtype: of the network.
    """

    name: str
    backend: Backend
    weights: str
    dtype: str = "float32"

    @property
    def conditional(self) -> bool:
        """Whether the model takes a digit as its condition."""
        try:
            self.backend.encode(0)
        except ValueError:
            return False
        return True

    def require_classes(self, purpose: str) -> None:
        """Raise a ValueError if the model was trained without classes."""
        if not self.conditional:
            raise ValueError(
                f"{purpose} needs classes, and {self.name} was trained without. Name a model that "
                "was trained with classes."
            )


class Samples(NamedTuple):
    """Images uint8 (N, 28, 28), their conditions (digits, (N,)), and their rows.

    digits is None for a model without classes.
    """

    images: Tensor
    digits: Tensor | None
    rows: int


def load_model(name: str, dtype: str = "float32", weak: str | None = None) -> Model:
    """Load a backend of digits by name or from the folder of a trained model.

    ``dtype`` is that of the network. A backend that is not shipped keeps its own dtype, and the
    identity of its weights is unknown.

    Args:
        weak: name or folder of a second model, the weaker model of autoguidance.
    """
    if weak is not None:
        return with_weaker(load_model(name, dtype), load_model(weak, dtype))
    if name in SHIPPED:
        with as_file(
            files("composer_plugins.backends.mnist") / "weights" / SHIPPED[name]
        ) as folder:
            return Model(name, load_backend(name, dtype=dtype), _hash(folder), dtype)
    if ("backend", name) in installed().offers:
        other = load_backend(name)
        shape = image_shape_of(other)
        if shape != SHAPE:
            raise ValueError(f"{name} must make digits of {SHAPE}, got images of {shape}.")
        return Model(name, other, f"of {name}", dtype)
    kind = "mnist-latent" if (Path(name) / "vae").is_dir() else "mnist"
    return Model(name, load_backend(kind, weights=name, dtype=dtype), _hash(Path(name)), dtype)


def with_weaker(main: Model, weak: Model) -> Model:
    """``main`` with the weaker model of autoguidance beside it."""
    if main.conditional:
        weak.require_classes(f"the weaker model of {main.name}")
    both = hashlib.sha256(f"{main.weights}{weak.weights}".encode()).hexdigest()
    return Model(main.name, WithWeak(main.backend, weak.backend), both, main.dtype)


def _hash(folder: Path) -> str:
    whole = hashlib.sha256()
    for file in (*sorted(folder.rglob("*.safetensors")), *folder.glob("path.json")):
        whole.update(file.read_bytes())
    return whole.hexdigest()


def sampled(model: Model, setting: Setting, seeds: range, keep: Path | None = None) -> Samples:
    """Sample one image per seed; its condition is the digit seed % 10 if the model has classes.

    Args:
        seeds: consecutive ones.
        keep: a folder to save blocks in, and to reuse blocks from.
    """
    images, rows = [], 0
    for first in range(seeds.start, seeds.stop, BLOCK):
        block = range(first, min(first + BLOCK, seeds.stop))
        made, cost = _block(model, setting, block, keep)
        images.append(made)
        rows += cost
    digits = torch.tensor(seeds) % 10 if model.conditional else None
    return Samples(torch.cat(images), digits, rows)


def _block(model: Model, setting: Setting, seeds: range, keep: Path | None) -> tuple[Tensor, int]:
    """The images of some seeds and their rows, read from the folder if it has them."""
    if keep is None:
        return _made(model, setting, seeds)
    file = keep / _folder(model, setting) / f"{seeds.start}-{seeds.stop}.safetensors"
    recipe = json.dumps(recipe_of(setting.sampler(model.backend)))
    if file.is_file():
        return _read(file, recipe)
    images, rows = _made(model, setting, seeds)
    make_folder(file.parent)
    metadata = {"rows": str(rows), "recipe": recipe}
    write_atomically(file, lambda path: save_file({"images": images}, path, metadata))
    return images, rows


def _made(model: Model, setting: Setting, seeds: range) -> tuple[Tensor, int]:
    sampler = setting.sampler(model.backend)
    if not model.conditional:
        result = sampler.sample(seeds=seeds)
        return to_pixels(result.x)[:, 0], result.stats.rows
    images, rows = torch.empty(len(seeds), 28, 28, dtype=torch.uint8), 0
    for digit in range(10):
        places = [place for place, seed in enumerate(seeds) if seed % 10 == digit]
        if places:
            result = sampler.sample(digit, [seeds[place] for place in places])
            images[places], rows = to_pixels(result.x)[:, 0], rows + result.stats.rows
    return images, rows


def _paper_scale(scale: float) -> float:
    if not 0 <= scale <= 12.5:
        raise ValueError(f"--scale must be from 0 to 12.5 for cfg++, got {scale:g}.")
    return scale / 12.5


def _folder(model: Model, setting: Setting) -> str:
    words = (
        *(model.weights[:12], model.dtype),
        *(setting.solver, setting.steps, setting.guidance, setting.scale),
    )
    return "-".join(f"{word}".replace(" ", "_") for word in words)


def _read(file: Path, recipe: str) -> tuple[Tensor, int]:
    try:
        with safe_open(file, "pt") as kept:
            images, metadata = kept.get_tensor("images"), kept.metadata()
        rows, made_by = int(metadata["rows"]), metadata["recipe"]
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{file} must be a file of samples ({error}). Remove it.") from error
    if made_by != recipe:
        raise ValueError(f"{file} was made by another recipe of the same name. Remove it.")
    return images, rows
