"""Tangential guidance, against diffusers and against numpy's singular vectors."""

import json

import numpy as np
import pytest
import torch
from conftest import mixture
from diffusers.guiders import TangentialClassifierFreeGuidance
from hypothesis import given, settings
from hypothesis import strategies as st

from composer import UNCONDITIONAL, Request, Sampler, installed
from composer.predictions import FLOW
from composer.recipes import decode, encode
from composer.schedules import DiscreteSchedule, FlowSchedule
from composer_plugins import CFG, TCFG, Anagram
from composer_plugins.guidance.tcfg import tangential

X = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
SCHEDULES = {"flow": FlowSchedule(), "epsilon": DiscreteSchedule.linear()}


@settings(max_examples=20)
@given(st.floats(-2, 12), st.floats(0.1, 0.9), st.sampled_from([*SCHEDULES]))
def test_it_is_diffusers_own(scale, level, kind):
    backend = mixture(SCHEDULES[kind], kind)
    t = backend.schedule.time_at(level)
    cond, uncond = (Sampler(backend).denoise(X, t, c).prediction for c in (1, UNCONDITIONAL))
    ours = Sampler(backend, [TCFG(scale)]).denoise(X, t, 1).prediction
    theirs = TangentialClassifierFreeGuidance(scale).forward(cond, uncond).pred
    if scale == 1:  # there the guider leaves both alone
        theirs = cond
    # The guider computes u' in float32, and u' enters the prediction times 1 - scale.
    bound = 1e-5 * max(1.0, abs(1 - scale))
    torch.testing.assert_close(ours, theirs, rtol=0, atol=bound)


@settings(max_examples=50)
@given(st.integers(0, 2**31), st.floats(-1.5, 1.5))
def test_the_closed_form_is_the_first_singular_vector(seed, share):
    drawn = np.random.default_rng(seed).normal(size=(2, 3, 16))
    c, u = drawn[0], drawn[1] + share * drawn[0]
    cond, uncond = answers(*(torch.from_numpy(p).view(3, 1, 4, 4) for p in (c, u)))
    made = tangential(uncond, cond).prediction.view(3, 16).numpy()
    for row in range(3):
        first = np.linalg.svd(np.stack([c[row], u[row]]), full_matrices=False)[2][0]
        np.testing.assert_allclose(made[row], (u[row] @ first) * first, atol=1e-6)


def answers(*predictions):
    request = Request(torch.zeros_like(predictions[0]), 0.5, schedule=FlowSchedule())
    return [request.answer(prediction, None, FLOW) for prediction in predictions]


def test_equal_branches_stay_as_they_are():
    torch.testing.assert_close(tangential(*answers(X, X)).prediction, X)
    zero = torch.zeros_like(X)
    assert torch.equal(tangential(*answers(zero, zero)).prediction, zero)


def test_it_asks_the_rows_of_guidance():
    for plugin, rows in ((TCFG(4.0), 20), (TCFG(1.0), 10), (TCFG(4.0, (0.0, 0.5)), 15)):
        stats = Sampler(mixture(), [plugin], num_inference_steps=10).sample(1).stats
        assert (stats.evaluated, stats.calls) == (rows, 10)


def test_a_scale_a_seed():
    both = Sampler(mixture(), [TCFG([2.0, 5.0])], num_inference_steps=4).sample(1, seeds=[0, 1]).x
    for seed, scale in enumerate((2.0, 5.0)):
        one = Sampler(mixture(), [TCFG(scale)], num_inference_steps=4).sample(1, seeds=[seed]).x
        torch.testing.assert_close(both[seed : seed + 1], one)


def test_inside_an_anagram_it_sees_each_view():
    inside = Sampler(mixture(), [Anagram({"identity": 0, "flip": 1}), TCFG(4.0)]).denoise(X, 0.2)
    alone = Sampler(mixture(), [TCFG(4.0)])
    one, other = (alone.denoise(x, 0.2, c).prediction for x, c in ((X, 0), (X.flip(-2), 1)))
    torch.testing.assert_close(inside.prediction, (one + other.flip(-2)) / 2)


def test_it_leaves_the_law():
    tangent, plain = (
        Sampler(mixture(), [plugin]).denoise(X, 0.1, 1).x0 for plugin in (TCFG(3.0), CFG(3.0))
    )
    assert (tangent - plain).abs().max() > 1e-3


def test_it_is_in_the_recipe():
    plugin = TCFG(5.0, (0.1, 0.9))
    again = decode(json.loads(json.dumps(encode(plugin, installed()))), installed())
    assert (again.scale, again.interval) == (5.0, (0.1, 0.9))


@pytest.mark.parametrize(
    ("arguments", "error"), [(("a",), TypeError), ((2.0, (0.5, 0.2)), ValueError)]
)
def test_bad_arguments_raise(arguments, error):
    with pytest.raises(error, match="TCFG: "):
        TCFG(*arguments)
