"""Folders that ``composer train`` wrote: the losses, and the networks after some epochs."""

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
        name: its folder, as it was given.
        log: of its log.json.
        epochs: {epoch: folder of the network after it}.
    """

    name: str
    log: Mapping[str, Any]
    epochs: Mapping[int, Path]

    @classmethod
    def read(cls, folder: Path) -> Run:
        """The training of a folder.

        Raises:
            ValueError: it holds no intact log.
        """
        try:
            log = json.loads((folder / "log.json").read_text())
        except OSError as error:
            raise ValueError(
                f"{folder / 'log.json'} cannot be read ({error.strerror}); name a folder that "
                "`composer train` wrote"
            ) from error
        except ValueError:
            log = None
        if not _is_log(log):
            raise ValueError(
                f"{folder} holds no intact log.json of a training; name a folder that "
                "`composer train` wrote"
            )
        snapshots = (path for path in folder.glob("epoch-*") if path.name[6:].isdecimal())
        found = {int(path.name[6:]): path / MODEL for path in snapshots}
        found[log["epochs"]] = folder / MODEL  # written when the last epoch is done
        whole = {epoch: found[epoch] for epoch in sorted(found) if _description(found[epoch])}
        return cls(str(folder), log, whole)

    @property
    def kind(self) -> str | None:
        """One of COMMANDS; None for another training, or if there is no epoch to show."""
        return None if self.model is None else COMMANDS[str(_description(self.model))]

    @cached_property
    def place(self) -> str | None:
        """The shipped network whose place its last one can take in the figures, if any."""
        if self.kind == "denoiser":
            return "pure noise" if self.log.get("pure_noise") else "denoiser"
        if self.kind != "mnist" or self.model is None or not read_unet(self.model).num_classes:
            return None
        return "mnist" if self.log["prediction"] == "flow" else "mnist-ddpm"

    def kept(self, name: str) -> str:
        """The name that titles have for the shipped one, with what differs in this."""
        sigma = self.log.get("sigma", 0.5)
        return f"σ = {sigma:g}" if self.place == "denoiser" else name

    @property
    def model(self) -> Path | None:
        """The folder of the network as it is at the last epoch there is."""
        return list(self.epochs.values())[-1] if self.epochs else None


def _description(model: Path) -> str | None:
    """The file, of COMMANDS, that a training writes last into the folder of a network."""
    return next((name for name in COMMANDS if (model / name).is_file()), None)


def _is_log(log: object) -> bool:
    """Whether this is what a training writes, as far as figures read it."""
    if not isinstance(log, dict):
        return False
    loss = log.get("loss")
    numbers = isinstance(loss, list) and all(type(value) in (int, float) for value in loss)
    names = isinstance(log.get("prediction"), str) and isinstance(log.get("epochs"), int)
    return bool(loss) and numbers and names
