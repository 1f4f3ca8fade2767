"""The checkpoint of a training: written whole or not at all, and read by its own run alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch

from composer_plugins.training_config import TrainingConfig
from composer_plugins.writing import write_atomically

_DEFAULTS = {field.name: field.default for field in fields(TrainingConfig)}


def write_checkpoint(path: Path, state: Mapping[str, Any]) -> None:
    """Write ``state``, whose "step" says where the training is."""
    try:
        write_atomically(path, lambda file: torch.save(state, file))
    except (OSError, RuntimeError) as error:  # torch's own of a full disk is no OSError
        raise OSError(
            f"{path} could not be written at step {state['step']} "
            f"({str(error).splitlines()[0].rstrip('.')}); make room and start the same command "
            "again, which resumes the checkpoint before"
        ) from error


def read_checkpoint(
    path: Path, identity: Mapping[str, Any], device: torch.device
) -> dict[str, Any] | None:
    """The state at ``path``, None if there is none.

    Args:
        identity: what the state's "identity" must equal.
    """
    if not path.exists():
        return None
    try:
        state: dict[str, Any] = torch.load(path, map_location=device, weights_only=True)
        theirs = state["identity"]
    except Exception as error:  # reading junk raises whatever the junk looks like
        raise ValueError(f"{path} is no intact checkpoint; remove it to start anew") from error
    # A setting that an older checkpoint does not know had its default then.
    before, now = {**_DEFAULTS, **theirs}, {**_DEFAULTS, **identity}
    if differing := sorted(k for k in {*before, *now} if before.get(k) != now.get(k)):
        raise ValueError(
            f"{path} belongs to another run, which differs in {', '.join(differing)}; choose "
            "another folder, or the same settings to resume"
        )
    return state
