"""Steps of unequal length."""

import json
import math
from itertools import pairwise

import pytest
import torch
from conftest import mixture
from diffusers import DPMSolverMultistepScheduler
from hypothesis import given
from hypothesis import strategies as st

from composer import Sampler, installed, recipes
from composer.schedules import DiscreteSchedule, FlowSchedule
from composer.solvers import DDIM, DiffusersSolver, DPMSolverPP, Euler, Heun
from composer_plugins import Spaced, Timesteps

SCHEDULES = [FlowSchedule(), DiscreteSchedule.linear(), DiscreteSchedule.linear(spacing="leading")]


@given(st.sampled_from(SCHEDULES), st.integers(1, 100), st.floats(0.5, 4))
def test_levels_fall_as_said_within_what_was_trained(schedule, steps, power):
    times = Spaced(Euler(), power).times(schedule, steps)
    levels = [schedule.noise_level(t) for t in times]
    ends = (1.0, 0.0) if isinstance(schedule, FlowSchedule) else map(schedule.noise_level, (999, 0))
    high, low = ends
    expected = [low + (high - low) * (1 - k / steps) ** power for k in range(steps)]
    assert levels == pytest.approx([*expected, 0.0], abs=1e-6)
    assert all(level > cleaner for level, cleaner in pairwise(levels))
    if isinstance(schedule, DiscreteSchedule):
        assert times[0] == 999
        assert times[-2] >= 0
        assert times[-1] == -1


@pytest.mark.parametrize("solver", [Euler(), Heun(), DPMSolverPP()], ids=repr)
def test_an_even_spacing_of_a_flow_changes_nothing(solver):
    plain = Sampler(mixture(), [], solver, 5).sample(1).x
    torch.testing.assert_close(Sampler(mixture(), [], Spaced(solver, 1.0), 5).sample(1).x, plain)


def test_more_and_more_steps_arrive_where_even_ones_do():
    backend = mixture(DiscreteSchedule.linear(), "epsilon")
    fine = Sampler(backend, [], Euler(), 1000).sample(1).x
    errors = [
        (Sampler(backend, [], Spaced(Euler()), n).sample(1).x - fine).abs().max() for n in (20, 320)
    ]
    assert errors[1] < errors[0] / 8


def test_a_recipe_keeps_it():
    written = json.loads(json.dumps(recipes.encode(Spaced(DDIM(0.5), 3.0), installed())))
    read = recipes.decode(written, installed())
    assert (read.solver, read.power) == (DDIM(0.5), 3.0)


@pytest.mark.parametrize(
    ("make", "error", "sentence"),
    [
        (lambda: Spaced("ddim"), TypeError, "solver must be a solver object"),
        (lambda: Spaced(Spaced()), ValueError, "must not plan its own times, got Spaced"),
        (lambda: Timesteps([0.0], Spaced()), ValueError, "must not plan its own times, got Spaced"),
        (
            lambda: Sampler(mixture(), [], Spaced(Euler(), 1000.0), 10),
            ValueError,
            "power=1000 nearer to 1",
        ),
        (lambda: Spaced(Euler(), 0.0), ValueError, "power must be"),
        (lambda: Spaced(Euler(), math.inf), ValueError, "power must be"),
        (
            lambda: Spaced(DiffusersSolver(DPMSolverMultistepScheduler())),
            ValueError,
            "Spaced: solver must not plan its own times, got DiffusersSolver",
        ),
    ],
)
def test_bad_arguments_raise(make, error, sentence):
    with pytest.raises(error, match=sentence):
        make()
