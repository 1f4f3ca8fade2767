"""Figures of a training: its losses, and the outputs of its network after each epoch."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from composer import load_backend
from composer_lab.figures.curves import Curves, Line, Panel, smoothed
from composer_lab.figures.denoiser import MEAN_DIGIT
from composer_lab.figures.drawn import shipped
from composer_lab.figures.lab import Lab
from composer_lab.figures.runs import Run
from composer_lab.figures.sampling import SCALE, of_each_class
from composer_lab.figures.sheets import Row, Sheet
from composer_lab.training.denoiser import load_denoiser
from composer_plugins.backends import mnist
from composer_plugins.backends.mnist.backend import read_unet

Log = Mapping[str, Any]
STAGED = "  The loss of a model trained in stages jumps where a stage begins."


def shipped_logs() -> dict[str, Log]:
    """{folder of weights: its log.json}."""
    weights = (files(mnist) / "weights").iterdir()
    logs = {folder.name: folder / "log.json" for folder in weights if folder.is_dir()}
    return {
        name: json.loads(log.read_text()) for name, log in sorted(logs.items()) if log.is_file()
    }


def losses(lab: Lab) -> Curves:
    """The loss at each step of the given runs, or else of the shipped models."""
    logs: Mapping[str, Log] = {run.name: run.log for run in lab.runs} or shipped_logs()
    panels: dict[str, dict[str, list[Line]]] = defaultdict(dict)
    for name, log in logs.items():
        stages = log.get("stages", [log])  # a model may be trained in several stages
        loss = [value for stage in stages for value in stage["loss"]]
        raw = Line(torch.arange(len(loss)), torch.tensor(loss), faint=True)
        panels[stages[0]["prediction"]][name] = [smoothed(loss), raw]
    staged = any(len(log.get("stages", [])) > 1 for log in logs.values())
    return Curves(
        "Loss: mean squared error, and its running mean",
        [
            Panel(f"what is predicted: {prediction}", lines, "step", "loss", log=True)
            for prediction, lines in panels.items()
        ],
        f"Each point is the mean over a batch.{STAGED if staged else ''}",
    )


def denoiser_epochs(lab: Lab) -> Sheet:
    """A one-step denoiser's estimates from noisy digits, or from pure noise, after each epoch."""
    runs = _of_kind(lab, "denoiser")
    of_noise = [run for run in runs if run.place == "pure noise"]
    captions = {
        "The same noisy digits in each row; a longer training sharpens the strokes and clears the "
        "ground.": len(of_noise) < len(runs),
        "Pure noise is independent of the digit: the estimates approach the mean of all digits, "
        "E[x], for every input.": bool(of_noise),
    }
    return Sheet(
        "The one-step denoiser, epoch by epoch",
        [_answers(lab, run) for run in runs],
        caption=" ".join(words for words, said in captions.items() if said),
    )


def _answers(lab: Lab, run: Run) -> list[Row]:
    """The input and the estimate of each epoch's network, beside the target."""
    digits = lab.digits(range(10))
    networks = {epoch: load_denoiser(model) for epoch, model in run.epochs.items()}
    shown = next(iter(networks.values())).show(digits, lab.seed)
    answers = [Row(_label(lab, run, epoch), net(shown)) for epoch, net in networks.items()]
    if run.place == "pure noise":
        mean = shipped(MEAN_DIGIT).expand(len(digits), -1, -1, -1)
        return [Row("noise z", shown), *answers, Row("E[x]", mean)]
    return [Row("digit", digits), Row("input", shown), *answers]


def samples_epochs(lab: Lab) -> Sheet:
    """Samples of a model from the same noises after each epoch."""
    groups = [
        [Row(_label(lab, run, epoch), _samples(lab, model)) for epoch, model in run.epochs.items()]
        for run in _of_kind(lab, "mnist")
    ]
    return Sheet(
        "Samples, epoch by epoch",
        groups,
        caption=f"Each column starts from one noise and takes {lab.effort.steps} steps, or every "
        "step of a DDPM whose path does not end in noise. Models with classes are conditioned on "
        f"0 to 9, guidance {SCALE:g}; models without start from ten noises.",
    )


def _samples(lab: Lab, model: Path) -> Tensor:
    """Ten images (10, 1, 28, 28)."""
    of_this = lab.with_model("trained", lambda: load_backend("mnist", weights=str(model)))
    if read_unet(model).num_classes:
        return of_each_class(of_this, "trained", SCALE, 1)[:, 0]
    return of_this.sample("trained", [], None, lab.seeds(10))


def _of_kind(lab: Lab, kind: str) -> list[Run]:
    return [run for run in lab.runs if run.kind == kind]


def _label(lab: Lab, run: Run, epoch: int) -> str:
    return f"epoch {epoch}" if len(lab.runs) == 1 else f"{run.name}, epoch {epoch}"
