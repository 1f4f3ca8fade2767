"""Every solver, the library's and diffusers', on the six channels of DeepFloyd IF."""

import contextlib

import diffusers
import pytest
import torch
from diffusers import DDPMScheduler
from tiny_if import computing

from composer import Sampler
from composer.solvers import DDIM, DDPM, DiffusersSolver, DPMSolverPP, Euler, Heun
from composer_plugins import CFG, Timesteps
from composer_plugins.backends.deepfloyd import load_deepfloyd

PROMPT = "a photo of a cat"
STEPS = 6
OURS = {
    "ddim": (DDIM(), 6),
    "ddim, stochastic": (DDIM(1.0), 6),
    "dpm++": (DPMSolverPP(), 6),
    "euler": (Euler(), 6),
    "heun": (Heun(), 11),
    "presets": (Timesteps([999, 800, 600, 400, 200, 0], DPMSolverPP()), 6),
}
CALLS = {
    "DPMSolverSDEScheduler": 11,
    "FlowMatchHeunDiscreteScheduler": 11,
    "HeunDiscreteScheduler": 11,
    "KDPM2AncestralDiscreteScheduler": 11,
    "KDPM2DiscreteScheduler": 11,
    "PNDMScheduler": 15,  # a Runge-Kutta start, of four evaluations a step
}
"""Of schedulers that evaluate several times a step."""
DRIVEN = [
    *("CogVideoXDDIMScheduler", "DDIMParallelScheduler", "DDIMScheduler", "DDPMParallelScheduler"),
    *("DDPMScheduler", "DEISMultistepScheduler", "DPMSolverMultistepScheduler"),
    *("DPMSolverSinglestepScheduler", "EDMDPMSolverMultistepScheduler", "EDMEulerScheduler"),
    *("EulerAncestralDiscreteScheduler", "EulerDiscreteScheduler", "IPNDMScheduler"),
    *("FlowMatchEulerDiscreteScheduler", "LCMScheduler", "LMSDiscreteScheduler"),
    *("SASolverScheduler", "TCDScheduler", "UnCLIPScheduler", "UniPCMultistepScheduler"),
    *CALLS,
]


@pytest.fixture(scope="module")
def backend(tiny_if, tmp_path_factory):
    file = tmp_path_factory.mktemp("embeddings") / "cache.safetensors"
    return computing(load_deepfloyd(tiny_if[1], embeddings=file))


def sampler_of(backend, solver):
    return Sampler(backend, [CFG(9.0)], solver, num_inference_steps=STEPS)


def require_thresholded(sampler, calls):
    """Clean images that a solver is given are, whatever it is; before, the 95th percentile of
    |x_0| was above 1. That schedulers go where they should is tested on exact models."""
    result = sampler.sample(PROMPT, (0, 1))
    assert result.stats.calls == calls
    for state in sampler.stream(PROMPT, (0, 1)):
        assert state.estimate.x0.abs().max() <= 1
    assert torch.equal(state.x, result.x)


@pytest.mark.parametrize("name", OURS)
def test_ours_run(backend, name):
    solver, calls = OURS[name]
    require_thresholded(sampler_of(backend, solver), calls)


def made(name):
    """A scheduler of diffusers, as it is by default."""
    try:
        return getattr(diffusers, name)()
    except ImportError as missing:  # DPMSolverSDE: torchsde
        pytest.skip(str(missing))


@pytest.mark.parametrize("name", DRIVEN)
def test_those_of_diffusers_run(backend, name):
    sampler = sampler_of(backend, DiffusersSolver(made(name)))
    require_thresholded(sampler, CALLS.get(name, STEPS))


@pytest.mark.parametrize("name", ["DDIMScheduler", "UniPCMultistepScheduler", "EDMEulerScheduler"])
def test_those_configured_as_the_model_s_scheduler_run(backend, tiny_if, name):
    """As diffusers exchanges schedulers; a learned variance is then said of one that has none."""
    folder = tiny_if[1] / "scheduler"
    scheduler = getattr(diffusers, name).from_config(DDPMScheduler.from_pretrained(folder).config)
    assert scheduler.config.variance_type == "learned_range"
    require_thresholded(sampler_of(backend, DiffusersSolver(scheduler)), STEPS)


def test_all_others_of_diffusers_raise_by_name_or_run(backend):
    found = [name for name in dir(diffusers) if name.endswith("Scheduler")]
    refused = 0
    for name in set(found) - set(DRIVEN):
        scheduler = None
        with contextlib.suppress(TypeError, ImportError):  # arguments or packages that it needs
            scheduler = getattr(diffusers, name)()
        if scheduler is None:
            continue
        try:
            sampler_of(backend, DiffusersSolver(scheduler)).sample(PROMPT)
        except (TypeError, ValueError) as refusal:
            refused += 1
            if name not in str(refusal):
                raise
    assert refused > 5


@pytest.mark.parametrize("solver", [DDIM(), Euler(), DPMSolverPP(), DDPM()], ids=repr)
def test_the_last_step_gives_the_thresholded_image_itself(backend, solver):
    sampler = Sampler(backend, [CFG(9.0)], solver, num_inference_steps=3)
    *_, last = sampler.stream(PROMPT)
    assert torch.equal(last.x, last.estimate.x0)
    assert last.x.abs().max() == 1
