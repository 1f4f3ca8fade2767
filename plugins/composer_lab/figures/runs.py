"""Folders that ``composer train`` wrote: losses, and networks after some epochs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from composer_lab.training.trainer import MODEL
from composer_plugins.backends.mnist.backend import COMMANDS, read_unet


@dataclass(frozen=True, eq=False)
class Run:
    """A training.

    Args:
        name: its folder, as the user wrote it.
        log: the content of its log.json.
        epochs: {epoch: folder of the network after that epoch}.
    """

    name: str
    log: Mapping[str, Any]
    epochs: Mapping[int, Path]

    @classmethod
    def read(cls, folder: Path) -> Run:
        """Read the training of a folder.

        Raises:
            ValueError: the folder has no intact log.
        """
        try:
            log = json.loads((folder / "log.json").read_text())
        except OSError as error:
            raise ValueError(
                f"{folder / 'log.json'} cannot be read ({error.strerror}). Name a folder that "
                "`composer train` wrote."
            ) from error
        except ValueError:
            log = None
        if not _is_log(log):
            raise ValueError(
                f"{folder} must have an intact log.json of a training. Name a folder that "
                "`composer train` wrote."
            )
        snapshots = (path for path in folder.glob("epoch-*") if path.name[6:].isdecimal())
        found = {int(path.name[6:]): path / MODEL for path in snapshots}
        found[log["epochs"]] = folder / MODEL  # written when the last epoch is done
        whole = {epoch: found[epoch] for epoch in sorted(found) if _description(found[epoch])}
        return cls(str(folder), log, whole)

    @property
    def kind(self) -> str | None:
        """A key of COMMANDS; None for another training, or without an epoch to draw."""
        return None if self.model is None else COMMANDS[str(_description(self.model))]

    @cached_property
    def place(self) -> str | None:
        """The shipped network that the last network can replace in the figures, if any."""
        if self.kind == "denoiser":
            return "pure noise" if self.log.get("pure_noise") else "denoiser"
        if self.kind != "mnist" or self.model is None or not read_unet(self.model).num_classes:
            return None
        return "mnist" if self.log["prediction"] == "flow" else "mnist-ddpm"

    def kept(self, name: str) -> str:
        """The name in titles: the shipped network's, with the settings that differ."""
        sigma = self.log.get("sigma", 0.5)
        return f"σ = {sigma:g}" if self.place == "denoiser" else name

    @property
    def model(self) -> Path | None:
        """The folder of the network after the last epoch."""
        return list(self.epochs.values())[-1] if self.epochs else None


def _description(model: Path) -> str | None:
    """The file of COMMANDS that a training writes last into the folder of a network."""
    return next((name for name in COMMANDS if (model / name).is_file()), None)


def _is_log(log: object) -> bool:
    """Whether ``log`` has the fields that figures read."""
    if not isinstance(log, dict):
        return False
    loss = log.get("loss")
    numbers = isinstance(loss, list) and all(type(value) in (int, float) for value in loss)
    names = isinstance(log.get("prediction"), str) and isinstance(log.get("epochs"), int)
    return bool(loss) and numbers and names
