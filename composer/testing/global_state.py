"""Whether a function leaves the state of the process alone, and does without it."""

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
"""How each is read, as something that == compares, and set."""


def global_trouble(answers: Answers) -> str:
    """What a function has to do with global state: it moves it, or depends on a seed of it."""
    one, moved = _answered(answers, 1)
    if moved:
        return f"it moves {moved}"
    other, _ = _answered(answers, 2)
    same = all(torch.equal(a, b) for a, b in zip(one, other, strict=True))
    return "" if same else "its answer depends on the seed of a global generator"


def _answered(answers: Answers, seed: int) -> tuple[Sequence[Tensor], str]:
    """What a function returns where the global generators are seeded so, and what it moved."""
    kept = _states()
    try:
        torch.default_generator.manual_seed(seed)
        np.random.seed(seed)
        random.seed(seed)
        # An earlier call may have set these already; from here it would set them again.
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
