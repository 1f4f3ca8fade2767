"""The course's trainings as options of ``composer train mnist``.

Each is a run of the reports on Berkeley's CS180/280A project 5: Adam with torch's moments and no
average of the weights. The learning rate falls to a tenth, by 0.1^(1/epochs) per epoch, unless the
name says constant. Images stay in [-1, 1].
"""

from __future__ import annotations

from typing import Any

_COURSE = {"lr_schedule": "exponential", "adam_betas": (0.9, 0.999), "ema_decay": 0.0, "width": 64}
_DDPM = _COURSE | {
    "objective": "ddpm-300",
    "batch_size": 128,
    "learning_rate": 1e-3,
    "epochs": 20,
}
_FLOW = _COURSE | {"objective": "flow", "batch_size": 64, "learning_rate": 1e-2, "epochs": 10}
_CONSTANT = _FLOW | {"conditioning": "class", "lr_schedule": "constant", "epochs": 15}

PRESETS: dict[str, dict[str, Any]] = {
    "ddpm-time": _DDPM | {"conditioning": "add"},
    "ddpm-class": _DDPM | {"conditioning": "class"},
    "flow-time": _FLOW | {"conditioning": "multiply"},
    "flow-class": _FLOW | {"conditioning": "class"},
    "flow-class-constant": _CONSTANT | {"learning_rate": 5e-3},
    "flow-class-constant-slow": _CONSTANT | {"learning_rate": 1e-4},
    "flow-time-wide": _FLOW
    | {"conditioning": "multiply", "width": 128, "learning_rate": 5e-2, "epochs": 50},
}
"""{preset: options}; options on the command line override them."""
