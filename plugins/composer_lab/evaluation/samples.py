"""Samples of digits by named settings, in blocks that can be kept and taken up again."""

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
from composer.images import to_pixels
from composer.protocols import Backend
from composer.solvers import DDPM, DPMSolverPP, Euler, Heun, Solver
from composer.writing import make_folder, write_atomically
from composer_lab.evaluation.table import recipe_of
from composer_plugins.backends.with_weak import WithWeak
from composer_plugins.guidance.apg import APG
from composer_plugins.guidance.autoguidance import Autoguidance
from composer_plugins.guidance.cfg import CFG
from composer_plugins.guidance.cfg_plus_plus import CFGPlusPlus
from composer_plugins.guidance.rescale import Rescale
from composer_plugins.guidance.thresholding import DynamicThreshold
from composer_plugins.solvers.spaced import Spaced

MAX_ROWS = 32
SHAPE = 1, 28, 28
BLOCK = 250
"""Images that are sampled, and kept, at a time."""

SOLVERS: Mapping[str, Solver] = {
    "euler": Euler(),
    "heun": Heun(),
    "dpm_pp": DPMSolverPP(),
    "ddpm": DDPM(),
    "spaced ddpm": Spaced(DDPM()),
}
"""{name: solver}; Euler on the DDPM model's schedule is DDIM."""

LATE = (0.0, 0.45)
AUTOGUIDANCE = "autoguidance"
GUIDANCES: Mapping[str, Callable[[float], list[object]]] = {
    "none": lambda scale: [],
    "cfg": lambda scale: [CFG(scale)],
    "interval": lambda scale: [CFG(scale, LATE)],
    "apg": lambda scale: [APG(CFG(scale))],
    "rescale": lambda scale: [Rescale(CFG(scale))],
    "threshold": lambda scale: [DynamicThreshold(), CFG(scale)],
    "cfg++": lambda scale: [CFGPlusPlus(_paper_scale(scale))],
    AUTOGUIDANCE: lambda scale: [Autoguidance(scale)],
}
"""{name: the plugins for a guidance scale}; CFG++'s own scale, to 1, is that at which its paper
compares it. Autoguidance needs a model with a weak one beside it."""

UNGUIDED = "none", AUTOGUIDANCE
"""Those that lead towards no class."""

SHIPPED = {"mnist": "flow", "mnist-ddpm": "ddpm"}


@dataclass(frozen=True)
class Setting:
    """How digits are sampled.

    Args:
        solver: its name in SOLVERS.
        steps: num_inference_steps; a row each, or two by Heun.
        scale: of the guidance; 1 for none.
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
        """Raise what sampling would, before anything is sampled.

        Raises:
            ValueError: plugins refuse it, or it guides a model that was trained without classes.
        """
        self.sampler(model.backend)
        if self.guidance not in UNGUIDED and not model.conditional:
            raise ValueError(
                f"{model.name} was trained without classes, which {self.guidance} guides towards; "
                "take --scale 1, or --guidance autoguidance"
            )


@dataclass(frozen=True, eq=False)
class Model:
    """A backend of digits and what tells its weights from others.

    Args:
        name: as the user said it.
        backend: loaded.
        weights: sha256 of its files.
        dtype: of the network.
    """

    name: str
    backend: Backend
    weights: str
    dtype: str = "float32"

    @property
    def conditional(self) -> bool:
        """Whether it can be told the digit."""
        try:
            self.backend.encode(0)
        except ValueError:
            return False
        return True

    def require_classes(self, purpose: str) -> None:
        """Refuse a model without classes where something is asked for by its digit."""
        if not self.conditional:
            raise ValueError(
                f"{self.name} was trained without classes, and {purpose} asks for digits; name a "
                "model with them"
            )


class Samples(NamedTuple):
    """Images uint8 (N, 28, 28), the digits (N,) they were asked to be, and the rows they cost.

    digits is None if the model cannot be told them.
    """

    images: Tensor
    digits: Tensor | None
    rows: int


def load_model(name: str, dtype: str = "float32", weak: str | None = None) -> Model:
    """A backend of digits by name, or the folder of a trained model; its network in ``dtype``.

    Of a backend that is not shipped the weights are not known, and the dtype is its own.

    Args:
        weak: a second one by name or folder, the weaker model of autoguidance.
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
        if other.shape != SHAPE:
            raise ValueError(f"{name} makes images of {other.shape}, and the judge reads digits")
        return Model(name, other, f"of {name}", dtype)
    backend = load_backend("mnist", weights=name, dtype=dtype)
    return Model(name, backend, _hash(Path(name)), dtype)


def with_weaker(main: Model, weak: Model) -> Model:
    """``main`` with the weaker model of autoguidance beside it."""
    if main.conditional:
        weak.require_classes(f"the weaker model of {main.name}, which was trained with them,")
    both = hashlib.sha256(f"{main.weights}{weak.weights}".encode()).hexdigest()
    return Model(main.name, WithWeak(main.backend, weak.backend), both, main.dtype)


def _hash(folder: Path) -> str:
    whole = hashlib.sha256()
    for file in (*sorted(folder.glob("*.safetensors")), folder / "path.json"):
        whole.update(file.read_bytes())
    return whole.hexdigest()


def sampled(model: Model, setting: Setting, seeds: range, keep: Path | None = None) -> Samples:
    """One image a seed, of the digit seed % 10 if the model can be told it.

    Args:
        seeds: consecutive ones.
        keep: a folder in which blocks are kept, and looked for.
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
    """Images of some seeds and their rows, from the folder if they are there."""
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
        raise ValueError(f"guidance cfg++ takes scales from 0 to 12.5, got {scale:g}")
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
        raise ValueError(f"{file} holds no samples ({error}); remove it") from error
    if made_by != recipe:
        raise ValueError(f"{file} was made by another recipe of the same name; remove it")
    return images, rows
