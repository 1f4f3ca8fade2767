"""Whole runs on a device that has no float64, as Apple's MPS, which a stand-in plays."""

import pytest
import torch
from conftest import mixture
from device_without_float64 import DEVICE, DeviceWithoutFloat64
from diffusers import (
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    EDMEulerScheduler,
    FlowMatchEulerDiscreteScheduler,
    LMSDiscreteScheduler,
    UniPCMultistepScheduler,
)

from composer import Sampler
from composer.schedules import DiscreteSchedule, FlowSchedule
from composer.solvers import DDIM, DDPM, DiffusersSolver, DPMSolverPP, Euler, Heun
from composer.testing import GaussianMixtureBackend
from composer_plugins import (
    CFG,
    DDNM,
    BlockMean,
    FeynmanKac,
    Inpaint,
    Langevin,
    LanPaint,
    Particles,
    Reference,
    SDEdit,
)

IMAGE, MASK = torch.zeros(1, 8, 8), torch.eye(8)


def brightness(x):
    return x.flatten(1).sum(1)


RUNS = {
    "DDIM": (DDIM(1.0), CFG(2.0)),
    "DDPM": (DDPM(), FeynmanKac(brightness, 1.0, 4)),
    "Euler": (Euler(), SDEdit(IMAGE, 0.5)),
    "Heun": (Heun(), Inpaint(IMAGE, MASK, "repaint", 2, 2)),
    "DPM-Solver++": (DPMSolverPP(), Particles(brightness)),
    "Langevin": (None, Langevin()),
    "LanPaint": (None, LanPaint(IMAGE, MASK)),
    "DDNM": (None, DDNM(torch.zeros(1, 4, 4), BlockMean(2))),
    "Reference": (None, Reference(IMAGE)),
    "diffusers' DDIM": (DDIMScheduler(clip_sample=False), CFG(2.0)),
    "diffusers' SDE": (DPMSolverMultistepScheduler(algorithm_type="sde-dpmsolver++"), CFG(2.0)),
    "EDM": (EDMEulerScheduler(), SDEdit(IMAGE, 0.9)),
    "FlowMatch": (FlowMatchEulerDiscreteScheduler(), CFG(2.0)),
    "LMS": (LMSDiscreteScheduler(), CFG(2.0)),
    "UniPC": (UniPCMultistepScheduler(), Inpaint(IMAGE, MASK)),
}


@pytest.mark.parametrize("path", [FlowSchedule(), DiscreteSchedule.linear()], ids=["flow", "ddpm"])
@pytest.mark.parametrize("name", RUNS)
def test_a_run_makes_no_float64_on_the_device(name, path):
    """The same image as on the CPU."""
    solver, plugin = RUNS[name]
    if hasattr(solver, "set_timesteps"):
        solver = DiffusersSolver(solver)
    exact = mixture()
    backend = GaussianMixtureBackend(
        exact.means.float(), exact.stds, schedule=path, dtype=torch.float32
    )
    condition = 1 if isinstance(plugin, CFG) else None
    expected = Sampler(backend, [plugin], solver, 8).sample(condition).x
    with DeviceWithoutFloat64():
        there = GaussianMixtureBackend(
            backend.means.to(DEVICE), exact.stds, schedule=path, dtype=torch.float32
        )
        x = Sampler(there, [plugin], solver, 8).sample(condition).x
        assert x.device == DEVICE
    assert torch.equal(x.as_subclass(torch.Tensor), expected)
