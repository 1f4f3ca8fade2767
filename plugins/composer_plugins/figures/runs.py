"""Folders that ``composer train`` wrote: the losses, and the networks after some epochs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from composer_plugins.backends.mnist.denoiser import DESCRIPTION

KINDS = {DESCRIPTION: "denoiser", "path.json": "mnist"}
"""The command of ``composer train``, by the file it writes beside the weights."""


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
            log["loss"], log["prediction"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ValueError(
                f"{folder} holds no intact log.json of a training; name a folder that "
                "`composer train` wrote"
            ) from error
        found = {
            int(path.name[6:]): path / "model" for path in folder.glob("epoch-[0-9][0-9][0-9]")
        }
        return cls(str(folder), log, dict(sorted(found.items())))

    @property
    def kind(self) -> str | None:
        """One of KINDS; None for another training, or if there is no epoch to show."""
        models = list(self.epochs.values())[:1]
        found = [kind for file, kind in KINDS.items() for m in models if (m / file).is_file()]
        return found[0] if found else None
