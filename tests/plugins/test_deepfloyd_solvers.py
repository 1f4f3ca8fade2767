"""Every solver, the library's and diffusers', on the six channels of DeepFloyd IF."""

import contextlib

import diffusers
import pytest
import torch
from tiny_if import computing

from composer import Sampler
from composer.schedules import DiscreteSchedule
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
    "FlowMatchHeunDiscreteScheduler": 11,
    "HeunDiscreteScheduler": 11,
    "KDPM2AncestralDiscreteScheduler": 11,
    "KDPM2DiscreteScheduler": 11,
    "PNDMScheduler": 15,  # a Runge-Kutta start, of four evaluations a step
}
"""Of schedulers that evaluate several times a step."""
DRIVEN = {
    *("CogVideoXDDIMScheduler", "DDIMParallelScheduler", "DDIMScheduler", "DDPMParallelScheduler"),
    *("DDPMScheduler", "DEISMultistepScheduler", "DPMSolverMultistepScheduler"),
    *("DPMSolverSinglestepScheduler", "EDMDPMSolverMultistepScheduler", "EDMEulerScheduler"),
    *("EulerAncestralDiscreteScheduler", "EulerDiscreteScheduler", "IPNDMScheduler"),
    *("FlowMatchEulerDiscreteScheduler", "LCMScheduler", "LMSDiscreteScheduler"),
    *("SASolverScheduler", "TCDScheduler", "UnCLIPScheduler", "UniPCMultistepScheduler"),
    *CALLS,
}


def schedulers():
    """All of diffusers' that need no argument and no further package."""
    made = []
    for name in dir(diffusers):
        if name.endswith("Scheduler") and not name.startswith("Flax"):
            with contextlib.suppress(TypeError, ImportError):
                made.append(getattr(diffusers, name)())
    return made


@pytest.fixture(scope="module")
def backend(tiny_if, tmp_path_factory):
    file = tmp_path_factory.mktemp("embeddings") / "cache.safetensors"
    return computing(load_deepfloyd(tiny_if[1], embeddings=file))


def sampler_of(backend, solver):
    return Sampler(backend, [CFG(9.0)], solver, num_inference_steps=STEPS)


def require_thresholded(sampler, calls):
    """Before, the 95th percentile of |x_0| was above 1."""
    result = sampler.sample(PROMPT, (0, 1))
    assert result.stats.calls == calls
    for state in sampler.stream(PROMPT, (0, 1)):
        assert state.estimate.x0.abs().max() <= 1
    assert torch.equal(state.x, result.x)
    assert state.x.abs().max() < 1.5  # some extrapolate a little in their last step


@pytest.mark.parametrize("name", OURS)
def test_ours_run_and_every_clean_image_is_thresholded(backend, name):
    solver, calls = OURS[name]
    require_thresholded(sampler_of(backend, solver), calls)


def refusal(scheduler):
    try:
        DiffusersSolver(scheduler).times(DiscreteSchedule.linear(), STEPS)
    except (TypeError, ValueError) as error:
        return error
    return None


@pytest.mark.parametrize("scheduler", schedulers(), ids=lambda s: type(s).__name__)
def test_every_scheduler_of_diffusers_does_so_or_is_refused(backend, scheduler):
    name, refused = type(scheduler).__name__, refusal(scheduler)
    if refused is None:
        sampler = sampler_of(backend, DiffusersSolver(scheduler))
        require_thresholded(sampler, CALLS.get(name, STEPS))
    else:
        assert name in str(refused)


def test_the_usual_ones_are_driven():
    """In the versions of diffusers from the lowest to today's."""
    driven = {type(scheduler).__name__ for scheduler in schedulers() if refusal(scheduler) is None}
    assert driven >= DRIVEN


@pytest.mark.parametrize("solver", [DDIM(), Euler(), DPMSolverPP(), DDPM()], ids=repr)
def test_the_last_step_gives_the_thresholded_image_itself(backend, solver):
    sampler = Sampler(backend, [CFG(9.0)], solver, num_inference_steps=3)
    *_, last = sampler.stream(PROMPT)
    assert torch.equal(last.x, last.estimate.x0)
    assert last.x.abs().max() == 1
