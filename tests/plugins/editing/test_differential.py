"""Differential edits: a strength for each pixel is SDEdit where it is constant."""

import pytest
import torch
from conftest import mixture
from hypothesis import given, settings
from hypothesis import strategies as st

from composer import Sampler
from composer.solvers import DDPM, Heun
from composer.testing import GaussianMixtureBackend
from composer_plugins import CFG, DifferentialEdit, Inpaint, Particles, SDEdit

IMAGE = torch.linspace(-1, 1, 64, dtype=torch.float64).reshape(1, 8, 8)


@settings(max_examples=15)
@given(st.integers(15, 100), st.integers(7, 12), st.sampled_from([torch.float32, torch.float64]))
def test_a_constant_map_is_sdedit(percent, steps, dtype):
    strength = percent / 100
    everywhere = DifferentialEdit(IMAGE, torch.full((8, 8), strength, dtype=dtype))
    x, y = (
        Sampler(mixture(), [plugin, CFG(2.0)], num_inference_steps=steps).sample(1, seeds=[0, 5]).x
        for plugin in (everywhere, SDEdit(IMAGE, strength))
    )
    torch.testing.assert_close(x, y)


def test_independent_pixels_follow_their_own_strength(schedule):
    """Over one Gaussian, each region is that of SDEdit with its strength."""
    generator = torch.Generator().manual_seed(0)
    means = 0.3 * torch.randn(1, 1, 8, 8, generator=generator, dtype=torch.float64)
    backend = GaussianMixtureBackend(means, [0.4], schedule=schedule)
    strengths = torch.tensor([0.0, 0.3, 0.5, 1.0]).repeat_interleave(2).expand(8, 8).contiguous()
    x = Sampler(backend, [DifferentialEdit(IMAGE, strengths)], num_inference_steps=10).sample().x
    for strength in (0.3, 0.5, 1.0):
        edit = SDEdit(IMAGE, strength)
        alone = Sampler(backend, [edit], num_inference_steps=10).sample().x
        here = strengths == torch.tensor(strength)
        torch.testing.assert_close(x[..., here], alone[..., here])
    assert torch.equal(x[..., strengths == 0], IMAGE[None][..., strengths == 0])


@pytest.mark.parametrize("solver", [None, DDPM(), Heun()], ids=lambda s: type(s).__name__)
def test_it_starts_at_the_largest_strength(solver):
    strengths = torch.zeros(8, 8)
    strengths[2:, 2:] = 0.5
    plugins = [DifferentialEdit(IMAGE, strengths)]
    states = [*Sampler(mixture(), plugins, solver, 8).stream(1, seeds=[0])]
    assert len(states) == 4
    assert torch.equal(states[-1].x[0, 0, :2], IMAGE[0, :2])
    assert (states[-1].x[0, 0, 2:, 2:] - IMAGE[0, 2:, 2:]).abs().max() > 0.05


def test_before_its_time_a_pixel_is_the_noised_image():
    """A soft map: after each step the pixels not yet free are alpha y + sigma n, n the first
    noise."""
    strengths = torch.linspace(0.05, 1.0, 64, dtype=torch.float64).reshape(8, 8)
    backend = mixture()
    first = torch.randn(1, 8, 8, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    sampler = Sampler(backend, [DifferentialEdit(IMAGE, strengths)], num_inference_steps=8)
    for state in sampler.stream(1, seeds=[3]):
        left = len(state.times) - 1 - state.position
        waiting = (strengths * 8).floor() <= left
        noised = backend.schedule.add_noise(IMAGE[None], first[None], state.t)
        torch.testing.assert_close(state.x[0, 0][waiting], noised[0, 0][waiting])


def test_candidates_and_inpainting():
    strengths = torch.linspace(0, 1, 64).reshape(8, 8)
    chosen = Particles(lambda x: x.flatten(1).mean(1), ((1, 3), (0, 1)))
    x = Sampler(mixture(), [DifferentialEdit(IMAGE, strengths), chosen]).sample(seeds=[0, 1]).x
    assert torch.equal(x[:, 0, 0, 0], IMAGE[0, 0, 0].expand(2))
    stack = [DifferentialEdit(IMAGE, strengths), Inpaint(IMAGE, torch.eye(8), "repaint", 2)]
    assert Sampler(mixture(), stack, num_inference_steps=8).sample().x.isfinite().all()


def test_impossible_maps_raise():
    with pytest.raises(ValueError, match="DifferentialEdit: strengths must leave a step"):
        Sampler(mixture(), [DifferentialEdit(IMAGE, torch.full((8, 8), 0.04))])
    with pytest.raises(ValueError, match="DifferentialEdit: strengths"):
        Sampler(mixture(), [DifferentialEdit(IMAGE, torch.zeros(4, 4))])
    with pytest.raises(ValueError, match="set the start"):
        Sampler(mixture(), [DifferentialEdit(IMAGE, torch.ones(8, 8)), SDEdit(IMAGE)])
