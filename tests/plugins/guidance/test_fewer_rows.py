"""Guidance at fewer rows: adaptive, and reused over steps."""

import json
import math
from itertools import pairwise

import pytest
import torch
from conftest import mixture
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from composer import UNCONDITIONAL, Request, Sampler, installed
from composer.predictions import PREDICTIONS
from composer.recipes import decode, encode
from composer.schedules import DiscreteSchedule, FlowSchedule
from composer.solvers import DDIM, DDPM, Euler, Heun
from composer.testing.reads import Reads
from composer_plugins import (
    CFG,
    AdaptiveGuidance,
    Anagram,
    Hybrid,
    Particles,
    ReusedGuidance,
)

SCHEDULES = [FlowSchedule(), DiscreteSchedule.linear()]
VIEWS = {"identity": 0, "rotate_180": 1}
SEEDS = range(6)


def rows(plugins, steps=8, seeds=SEEDS, solver=None):
    """The images, of the condition 1 if no plugin sets one, and the rows of all of them."""
    condition = None if any(isinstance(p, Anagram | Hybrid) for p in plugins) else 1
    made = Sampler(mixture(), plugins, solver, steps).sample(condition, seeds=seeds)
    return made.x, made.stats.rows


def adaptive(backend, scale, threshold, steps, x, condition):
    """One image, written out: guided until the clean images of both branches agree."""
    plain, agreed, count = Sampler(backend), False, 0
    for t, s in pairwise(backend.schedule.times(steps)):
        cond = plain.denoise(x, t, condition)
        guided, count = cond, count + 1
        if not agreed:
            uncond = plain.denoise(x, t, UNCONDITIONAL).replace(x=cond.x)
            guided, count = uncond + scale * (cond - uncond), count + 1
            agreed = (
                float(F.cosine_similarity(cond.x0.flatten(), uncond.x0.flatten(), 0)) >= threshold
            )
        alpha, sigma = backend.schedule.at(s)
        x = alpha * guided.x0 + sigma * guided.noise
    return x, count


@pytest.mark.parametrize("schedule", SCHEDULES, ids=["flow", "discrete"])
@pytest.mark.parametrize("threshold", [0.3, 0.8, 0.99])
def test_each_image_stops_by_itself_as_written_out(schedule, threshold):
    backend = mixture(schedule)
    sampler = Sampler(backend, [AdaptiveGuidance(3.0, threshold)], Euler(), 8)
    made, count = sampler.sample(1, seeds=SEEDS), 0
    for seed, image in zip(SEEDS, made.x.split(1), strict=True):
        noise = torch.randn(
            1, 1, 8, 8, generator=torch.Generator().manual_seed(seed), dtype=torch.float64
        )
        expected, used = adaptive(backend, 3.0, threshold, 8, noise, 1)
        torch.testing.assert_close(image, expected)
        count += used
    assert made.stats.rows == count


def test_the_threshold_goes_from_one_guided_step_to_all():
    images, most = rows([AdaptiveGuidance(3.0, 1.1)])
    guided, all_rows = rows([CFG(3.0)])
    torch.testing.assert_close(images, guided)
    assert most == all_rows == 2 * 8 * len(SEEDS)
    _, least = rows([AdaptiveGuidance(3.0, -1.0)])
    assert least == (8 + 1) * len(SEEDS)
    counts = [rows([AdaptiveGuidance(3.0, level)])[1] for level in (0.2, 0.6, 0.9, 0.99)]
    assert counts == sorted(counts)
    assert least < counts[-1] < most
    assert rows([AdaptiveGuidance(1.0)])[1] == 8 * len(SEEDS)


def test_each_view_decides_for_itself():
    """Where the views of an image agree at different steps, each drops its row at its own."""
    plugins = [Anagram(VIEWS), AdaptiveGuidance(3.0, 0.9)]
    sampler = Sampler(mixture(), plugins, num_inference_steps=8)
    state = [*sampler.stream(seeds=SEEDS)][-1]
    one, other = (value for key, value in state.carried.items() if key[0] is plugins[1])
    assert not torch.equal(one, other)
    # From the level 1 - k / 8 at which it agreed, a view of an image has k + 1 guided steps.
    guided = sum(int((8 * (1 - level) + 1).round().sum()) for level in (one, other))
    assert rows(plugins)[1] == 2 * 8 * len(SEEDS) + guided


@pytest.mark.parametrize("plugin", [AdaptiveGuidance(3.0, 0.9), ReusedGuidance(3.0, 3)], ids=repr)
def test_an_image_depends_on_its_own_seed_alone(plugin):
    """Also where candidates of a seed are dropped: what is kept of an image goes with it."""
    best = Particles(lambda x: x.mean((1, 2, 3)), ((1, 3), (0.5, 1), (0, 1)))
    for plugins in ([plugin], [best, Anagram(VIEWS), plugin], [Hybrid(0, 1), plugin]):
        together, _ = rows(plugins)
        for seed in (1, 4):
            torch.testing.assert_close(together[seed : seed + 1], rows(plugins, seeds=[seed])[0])


@given(st.floats(0.1, 0.9), st.floats(0.05, 0.95))
def test_above_the_level_at_which_it_agreed_an_image_is_guided_again(agreed, level):
    """As after a jump back to noise."""
    schedule, plugin = FlowSchedule(), AdaptiveGuidance(3.0)
    x = torch.zeros(1, 1, 8, 8)
    asked = Request(x, schedule.time_at(level), 1, schedule=schedule)
    asked.carried[plugin, asked.place] = torch.tensor([agreed])
    requests = next(plugin.noise_estimate(asked))
    assert len(requests) == (2 if level >= agreed else 1) or level == pytest.approx(agreed)


def test_adaptive_guidance_reads_once_a_step_and_reused_guidance_never():
    for plugin, expected in ((AdaptiveGuidance(3.0), 4 + 1 - 1), (ReusedGuidance(3.0), 1)):
        sampler = Sampler(mixture(), [plugin], num_inference_steps=4)
        with Reads() as seen:
            sampler.sample(1)
        assert seen.total == expected  # the first step has nothing to read


def reused(backend, scale, every, steps, x, condition):
    """Written out in clean images."""
    plain = Sampler(backend)
    for step, (t, s) in enumerate(pairwise(backend.schedule.times(steps))):
        cond = plain.denoise(x, t, condition)
        if step % every == 0:
            direction = cond.x0 - plain.denoise(x, t, UNCONDITIONAL).x0
        x0 = cond.x0 + (scale - 1) * direction
        alpha_t, sigma_t = backend.schedule.at(t)
        alpha, sigma = backend.schedule.at(s)
        x = alpha * x0 + sigma * (x - alpha_t * x0) / sigma_t
    return x


@pytest.mark.parametrize("schedule", SCHEDULES, ids=["flow", "discrete"])
@pytest.mark.parametrize("every", [1, 2, 3])
def test_reused_guidance_is_as_written_out(schedule, every):
    backend = mixture(schedule)
    sampler = Sampler(backend, [ReusedGuidance(2.5, every)], DDIM(), 7)
    made = sampler.sample(1, seeds=[4])
    noise = torch.randn(1, 1, 8, 8, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    torch.testing.assert_close(made.x, reused(backend, 2.5, every, 7, noise, 1))
    assert made.stats.rows == 7 + math.ceil(7 / every)


@settings(max_examples=10)
@given(st.floats(0, 4), st.sampled_from([Euler(), DDPM(), Heun()]))
def test_refreshed_at_every_step_it_is_cfg(scale, solver):
    ours, plain = ([p(scale)] for p in (lambda s: ReusedGuidance(s, 1), CFG))
    torch.testing.assert_close(rows(ours, 4, [1], solver)[0], rows(plain, 4, [1], solver)[0])


def test_reused_guidance_is_the_same_for_every_prediction_type():
    made = [
        Sampler(
            mixture(DiscreteSchedule.linear(), kind), [ReusedGuidance(2.0)], num_inference_steps=6
        )
        .sample(1, seeds=[2])
        .x
        for kind in PREDICTIONS
    ]
    for x in made[1:]:
        torch.testing.assert_close(x, made[0], rtol=1e-6, atol=1e-6)


def test_each_view_reuses_its_own_direction():
    """With one view only, an Anagram seen through a half-turn is the turned plain image."""
    turned = [Anagram({"rotate_180": 1}), ReusedGuidance(2.0, 3)]
    together = [Anagram({"identity": 1, "rotate_180": 1}), ReusedGuidance(2.0, 3)]
    sampler = Sampler(mixture(), together, num_inference_steps=6)
    state = [*sampler.stream(seeds=[1])][-1]
    assert len([key for key in state.carried if key[0] is together[1]]) == 2
    noise = torch.randn(1, 1, 8, 8, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    plain = Sampler(mixture(), [ReusedGuidance(2.0, 3)], num_inference_steps=6)
    seen = Sampler(mixture(), turned, num_inference_steps=6).sample(x=noise.flip(2, 3)).x
    torch.testing.assert_close(seen.flip(2, 3), plain.sample(1, x=noise).x)


def test_they_are_written_in_recipes_and_wrong_numbers_raise():
    for plugin in (AdaptiveGuidance(2.0, 0.9), ReusedGuidance(2.0, 3, (0.1, 0.9))):
        again = decode(json.loads(json.dumps(encode(plugin, installed()))), installed())
        assert {**vars(again)} == {**vars(plugin)} or vars(again)["interval"] == [0.1, 0.9]
    with pytest.raises(ValueError, match="threshold must be at least"):
        AdaptiveGuidance(2.0, -2.0)
    with pytest.raises(ValueError, match="every must be"):
        ReusedGuidance(2.0, 0)
