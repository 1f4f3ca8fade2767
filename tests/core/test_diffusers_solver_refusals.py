"""What DiffusersSolver refuses, and in which words."""

import pytest
import torch
from conftest import mixture
from diffusers import (
    CogVideoXDPMScheduler,
    DDIMInverseScheduler,
    DDIMScheduler,
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    EDMEulerScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    HeunDiscreteScheduler,
    IPNDMScheduler,
    KDPM2AncestralDiscreteScheduler,
    KDPM2DiscreteScheduler,
    PNDMScheduler,
    RePaintScheduler,
    UnCLIPScheduler,
    UniPCMultistepScheduler,
)

from composer import Sampler, hookimpl
from composer.solvers import DiffusersSolver
from composer_plugins import Inpaint, SDEdit

REFUSED = {
    "RePaint": (
        RePaintScheduler(),
        "RePaintScheduler in this configuration must be DDPM-like",
    ),
    "CogVideoX": (
        CogVideoXDPMScheduler(),
        "CogVideoXDPMScheduler needs old_pred_original_sample and timestep_back",
    ),
    "EDM of samples": (
        EDMEulerScheduler(prediction_type="sample"),
        "EDMEulerScheduler in this configuration must be DDPM-like",
    ),
    "flow sigmas": (
        UniPCMultistepScheduler(use_flow_sigmas=True, flow_shift=3.0),
        "UniPCMultistepScheduler in this configuration must be .* integer times",
    ),
    "times between": (
        EulerDiscreteScheduler(
            timestep_type="continuous",
            prediction_type="v_prediction",
            sigma_min=0.002,
            sigma_max=80.0,
        ),
        "EulerDiscreteScheduler in this configuration must be .* integer times",
    ),
    "a prediction that is not taken": (
        PNDMScheduler(prediction_type="sample"),
        "PNDMScheduler does not support prediction_type='sample'. Configure it with 'epsilon'",
    ),
    "a last step that divides by zero": (
        UniPCMultistepScheduler(solver_type="bh1"),
        "UniPCMultistepScheduler .* divides by zero in its last step. .* final_sigmas_type=",
    ),
    "own betas": (
        IPNDMScheduler(trained_betas=[0.9, 0.7, 0.5, 0.3, 0.1, 0.0]),
        "IPNDMScheduler in this configuration must be",
    ),
}


PLANS = {
    "more steps than times": (
        DPMSolverMultistepScheduler(num_train_timesteps=10),
        20,
        "has 10 times and no plan of 20 steps",
    ),
    "times that are no numbers": (
        KDPM2AncestralDiscreteScheduler(beta_schedule="squaredcos_cap_v2"),
        3,
        "has 1000 times and no plan of 3 steps",
    ),
    "a division by zero": (UnCLIPScheduler(), 1, "has no plan of 1 steps"),
    "noise at a clean time": (
        EulerDiscreteScheduler(),
        1,
        "in 1 steps must begin at noise, and begins at a nearly clean",
    ),
    "as many steps as times": (
        UniPCMultistepScheduler(num_train_timesteps=50),
        50,
        "in 50 steps has two steps at one noise level, and divides by the difference",
    ),
    "levels that are no numbers": (
        FlowMatchEulerDiscreteScheduler(shift_terminal=0.1),
        1,
        "has no plan of 1 steps, because a noise level is not finite. Take another number",
    ),
    **{
        f"a time below 0 of {steps}": (
            kind(timestep_spacing="trailing"),
            steps,
            "plans a time outside of 0 to 999, because it rounds its timestep_spacing. Take",
        )
        for steps in (61, 103, 121, 122)
        for kind in (DDIMScheduler, UniPCMultistepScheduler)
    },
    "epsilon without a signal": (
        DDIMScheduler(rescale_betas_zero_snr=True, timestep_spacing="trailing"),
        5,
        "begins at a signal of zero, where epsilon does not determine the image",
    ),
}


@pytest.mark.parametrize("name", PLANS)
def test_plans_that_end_in_nothing_are_refused_when_built(name):
    scheduler, steps, sentence = PLANS[name]
    with pytest.raises(ValueError, match=f"{type(scheduler).__name__} {sentence}"):
        Sampler(mixture(), solver=DiffusersSolver(scheduler), num_inference_steps=steps)


@pytest.mark.parametrize("name", REFUSED)
def test_schedulers_of_another_kind_are_refused(name):
    scheduler, sentence = REFUSED[name]
    with pytest.raises(ValueError, match=sentence):
        DiffusersSolver(scheduler)


def test_a_scheduler_that_adds_noise_is_refused():
    with pytest.raises(ValueError, match="DDIMInverseScheduler in .* goes from cleaner to noisier"):
        Sampler(mixture(), solver=DiffusersSolver(DDIMInverseScheduler()))


def test_a_number_of_steps_that_a_scheduler_cannot_plan_is_refused():
    with pytest.raises(ValueError, match="PNDMScheduler has no plan of 2 steps .*. Take another"):
        Sampler(mixture(), solver=DiffusersSolver(PNDMScheduler()), num_inference_steps=2)


def test_schedulers_that_cannot_start_or_jump_inside_their_plan_say_so():
    inpaint = Inpaint(torch.zeros(1, 8, 8), torch.ones(8, 8), "repaint")
    sdedit = SDEdit(torch.zeros(1, 8, 8), 0.5)
    several = [HeunDiscreteScheduler(), KDPM2DiscreteScheduler(), PNDMScheduler()]
    for scheduler in several:
        for plugin in (inpaint, sdedit):
            sampler = Sampler(mixture(), [plugin], DiffusersSolver(scheduler))
            name = type(scheduler).__name__
            with pytest.raises(ValueError, match=rf"{name} .* Use Heun\(\)"):
                sampler.sample(0)


def test_a_plan_with_foreign_times_is_refused():
    class Foreign:
        @hookimpl
        def start(self, state):
            state.times = [0.0, 0.123456, 1.0]

    sampler = Sampler(mixture(), [Foreign()], DiffusersSolver(DDIMScheduler()))
    with pytest.raises(ValueError, match="DDIMScheduler has no time .* in its plan"):
        sampler.sample(1)


def test_a_learned_variance_that_is_not_there_is_refused():
    solver = DiffusersSolver(DDPMScheduler(variance_type="learned_range"))
    with pytest.raises(ValueError, match="expects a learned variance and the backend has none"):
        Sampler(mixture(), solver=solver).sample(1)


@pytest.mark.parametrize("kind", [DPMSolverMultistepScheduler, UniPCMultistepScheduler])
@pytest.mark.parametrize("steps", [49, 50])
def test_a_plan_of_nearly_all_times_is_finite_or_refused(kind, steps):
    solver = DiffusersSolver(kind(num_train_timesteps=50, beta_end=0.4))
    if steps == 50:
        with pytest.raises(ValueError, match="Take fewer steps"):
            Sampler(mixture(), [], solver, steps)
    else:
        assert Sampler(mixture(), [], solver, steps).sample(1).x.isfinite().all()
