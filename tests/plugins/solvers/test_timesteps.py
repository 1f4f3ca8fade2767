"""Times of one's own choice."""

import json

import pytest
import torch
from conftest import mixture
from diffusers import DDPMScheduler, DPMSolverMultistepScheduler

from composer import Sampler, UnknownNameError, installed, recipes
from composer.schedules import DiscreteSchedule
from composer.solvers import DDIM, DDPM, DiffusersSolver, Heun
from composer_plugins import SDEdit, Timesteps
from composer_plugins.solvers.timesteps import presets


@pytest.mark.parametrize("name", presets())
def test_presets_are_planned_as_diffusers_does(name):
    scheduler = DDPMScheduler()
    scheduler.set_timesteps(timesteps=presets()[name])
    count = int(name.removeprefix("smart").removeprefix("super").removeprefix("fast"))
    times = Timesteps(name).times(DiscreteSchedule(scheduler.alphas_cumprod), count)
    assert times == [*scheduler.timesteps.tolist(), -1]


@pytest.mark.parametrize("solver", [DDIM(), DDPM(), Heun()], ids=repr)
def test_the_solver_s_own_times_change_nothing(solver):
    backend = mixture(DiscreteSchedule.linear())
    plain = Sampler(backend, solver=solver, num_inference_steps=5)
    given = Sampler(backend, [], Timesteps(plain.times[:-1], solver), num_inference_steps=5)
    assert torch.equal(given.sample(1).x, plain.sample(1).x)


def test_flows_have_their_own_clock():
    sampler = Sampler(mixture(), [], Timesteps([0, 0.25, 0.9], DDIM()), num_inference_steps=3)
    assert sampler.times == [0, 0.25, 0.9, 1]


def test_plugins_see_the_plan():
    backend = mixture(DiscreteSchedule.linear())
    image = SDEdit(torch.zeros(1, 8, 8, dtype=torch.float64), i_start=20)
    sampler = Sampler(backend, [image], Timesteps("smart27"), num_inference_steps=27)
    states = list(sampler.stream(1))
    assert states[0].times == [*presets()["smart27"][20:], -1]


@pytest.mark.parametrize("times", ["smart27", (900.0, 300.0, 0.0)])
def test_a_recipe_keeps_them(times):
    solver = Timesteps(times, DDIM(0.5))
    written = json.loads(json.dumps(recipes.encode(solver, installed())))
    read = recipes.decode(written, installed())
    assert (read.timesteps, read.solver) == (times, DDIM(0.5))


@pytest.mark.parametrize(
    ("make", "error", "sentence"),
    [
        (lambda: Timesteps("smart26"), UnknownNameError, "Did you mean smart27"),
        (lambda: Timesteps([1, "2"]), TypeError, "must be a number"),
        (lambda: Timesteps(3), TypeError, "must be a list or tuple"),
        (lambda: Timesteps([1], "ddim"), TypeError, "solver must be a solver object"),
        (
            lambda: Timesteps("fast27", DiffusersSolver(DPMSolverMultistepScheduler())),
            ValueError,
            "must not plan its own times, got DiffusersSolver",
        ),
    ],
)
def test_bad_arguments_raise(make, error, sentence):
    with pytest.raises(error, match=sentence):
        make()


@pytest.mark.parametrize(
    ("times", "steps", "sentence"),
    [
        ("smart27", 20, "must be 20 times, got 27. Set num_inference_steps=27"),
        ([900, 900], 2, "noise must fall at every step, got 900 to 900"),
        ([0, 900], 2, "noise must fall at every step, got 0 to 900"),
        ([900, -1], 2, "noise must fall at every step, got -1 to -1"),
        ([1000, 0], 2, r"times must be in \[-1, 999\]"),
    ],
)
def test_what_is_not_a_plan_raises_when_built(times, steps, sentence):
    with pytest.raises(ValueError, match=sentence):
        Sampler(mixture(DiscreteSchedule.linear()), [], Timesteps(times), num_inference_steps=steps)
