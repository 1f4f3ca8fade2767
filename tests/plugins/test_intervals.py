"""An interval of noise levels holds the steps at its ends, on every schedule."""

from dataclasses import dataclass

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from composer import Sampler
from composer.arguments import within
from composer.schedules import DiscreteSchedule, FlowSchedule
from composer.testing import GaussianMixtureBackend
from composer_plugins import (
    CFG,
    FDG,
    TCFG,
    Anagram,
    Autoguidance,
    CFGZeroStar,
    Conjunction,
    Langevin,
    LanPaint,
    Particles,
    Scales,
)

SCHEDULES = {"flow": FlowSchedule(), "discrete": DiscreteSchedule.linear()}
IMAGE = torch.zeros(1, 2, 2)


def level_of(schedule, k, n):
    """The noise level of step k of n, as somebody writes it."""
    if schedule is SCHEDULES["flow"]:
        return (n - k) / n
    return schedule.noise_level(schedule.times(n)[k])


@given(st.sampled_from([*SCHEDULES.values()]), st.integers(1, 1000), st.data())
@settings(max_examples=200)
def test_a_step_lies_in_the_intervals_that_begin_or_end_at_its_level(schedule, n, data):
    k = data.draw(st.integers(0, n - 1))
    level = level_of(schedule, k, n)
    levels = [schedule.noise_level(t) for t in schedule.times(n)]
    assert [within(a, (0.0, level)) for a in levels] == [step >= k for step in range(n + 1)]
    assert [within(a, (level, 1.0)) for a in levels] == [step <= k for step in range(n + 1)]


@dataclass(frozen=True, eq=False)
class Two(GaussianMixtureBackend):
    """The mixture, and a weaker model that is the same."""

    models = ("weak",)


# By plugin: what it asks beyond a step's own row, at each step that lies in the interval.
ASKED = {
    "CFG": lambda ends: [CFG(3.0, ends)],
    "Autoguidance": lambda ends: [Autoguidance(3.0, ends)],
    "CFGZeroStar": lambda ends: [CFGZeroStar(3.0, 0, ends)],
    "TCFG": lambda ends: [TCFG(3.0, ends)],
    "FDG": lambda ends: [FDG((2.0, 4.0), Scales(), ends)],
    "Anagram": lambda ends: [Anagram({"identity": 0, "flip": 1}, intervals=[(0.0, 1.0), ends])],
    "Conjunction": lambda ends: [Conjunction({0: 3.0}, [ends])],
    "Langevin": lambda ends: [Langevin(1, 0.1, ends)],
    "LanPaint": lambda ends: [LanPaint(IMAGE, torch.ones(2, 2), 1, interval=ends)],
}


# Where x comes from, and the clean image, need no walk.
WALKS = ("Langevin", "LanPaint")


@pytest.mark.parametrize("path", SCHEDULES)
@pytest.mark.parametrize("plugin", ASKED)
def test_plugins_act_on_the_steps_at_which_their_interval_begins_and_ends(plugin, path):
    n, schedule = 10, SCHEDULES[path]
    backend = Two(torch.zeros(2, 1, 2, 2), [0.5, 0.5], schedule=schedule)
    condition = None if plugin in ("Anagram", "Conjunction") else 0
    for k in range(1, n):
        level = level_of(schedule, k, n)
        for ends, acts in (((0.0, level), n - k), ((level, 1.0), k + (plugin not in WALKS))):
            sampler = Sampler(backend, ASKED[plugin](ends), num_inference_steps=n)
            assert sampler.sample(condition).stats.evaluated == n + acts


@pytest.mark.parametrize("path", SCHEDULES)
def test_particles_drop_images_at_the_step_of_their_level(path):
    backend = Two(torch.zeros(1, 1, 2, 2), [0.5], schedule=SCHEDULES[path])
    for k in range(1, 10):
        level = level_of(backend.schedule, k, 10)
        plugin = Particles(lambda x: x.flatten(1).sum(1), ((1.0, 2), (level, 1), (0.0, 1)))
        states = Sampler(backend, [plugin], num_inference_steps=10).stream()
        assert [len(state.x) for state in states] == [2] * (k - 1) + [1] * (11 - k)
