"""Test whether a function changes the global state of the process, or depends on it."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

Answers = Callable[[], Sequence[Tensor]]
UNUSUAL_THREADS = 3


def _torch_state() -> bytes:
    return bytes(torch.get_rng_state().tolist())


def _restore_torch(state: bytes) -> None:
    torch.set_rng_state(torch.tensor(list(state), dtype=torch.uint8))


def _numpy_state() -> tuple[object, ...]:
    name, keys, *rest = np.random.get_state()
    return (name, tuple(np.asarray(keys).tolist()), *rest)


_GLOBALS: dict[str, tuple[Callable[[], object], Callable[[Any], object]]] = {
    "the global generator of torch": (_torch_state, _restore_torch),
    "the global generator of numpy": (_numpy_state, np.random.set_state),
    "the global generator of random": (random.getstate, random.setstate),
    "torch's default dtype": (torch.get_default_dtype, torch.set_default_dtype),
    "torch's number of threads": (torch.get_num_threads, torch.set_num_threads),
}
"""Functions that read each state, as a value to compare with ==, and set it."""


def global_trouble(answers: Answers) -> str:
    """Say whether a function changes global state, or depends on the seed of a global generator."""
    one, moved = _answered(answers, 1)
    if moved:
        return f"it changes {moved}"
    other, _ = _answered(answers, 2)
    same = all(torch.equal(a, b) for a, b in zip(one, other, strict=True))
    return "" if same else "its answer depends on the seed of a global generator"


def _answered(answers: Answers, seed: int) -> tuple[Sequence[Tensor], str]:
    """The results of a function with global generators seeded, and the state that it changed."""
    kept = _states()
    try:
        torch.default_generator.manual_seed(seed)
        np.random.seed(seed)
        random.seed(seed)
        # Start from other values: an earlier call may already have set its own.
        torch.set_default_dtype(torch.float32)
        torch.set_num_threads(UNUSUAL_THREADS)
        before = _states()
        seen = answers()
        after = _states()
        return seen, next((name for name in before if before[name] != after[name]), "")
    finally:
        for name, state in kept.items():
            _GLOBALS[name][1](state)


def _states() -> dict[str, object]:
    return {name: read() for name, (read, _) in _GLOBALS.items()}
