"""FlowEdit against its closed form and a transcription of the paper's algorithm."""

import pytest
import torch
from conftest import mixture

from composer import UNCONDITIONAL, Sampler
from composer.solvers import Euler
from composer.testing import GaussianMixtureBackend
from composer_plugins import CFG, Anagram, FlowEdit, Inpaint, Langevin, Particles

MEANS = torch.tensor([-0.4, 0.5], dtype=torch.float64).reshape(2, 1, 1, 1).expand(2, 1, 8, 8)
IMAGE = torch.linspace(-0.8, 0.4, 64, dtype=torch.float64).reshape(1, 8, 8)


@pytest.mark.parametrize("steps", [1, 2, 7])
@pytest.mark.parametrize("averages", [1, 3])
def test_between_gaussians_of_one_width_it_shifts_by_the_means(steps, averages):
    """On a flow z - y = (1 - tau) (mu' - mu) solves the edit whatever the noise, and Euler's step
    of a linear function is exact."""
    backend = GaussianMixtureBackend(MEANS.contiguous(), [0.3, 0.3])
    edit = FlowEdit(IMAGE, 0, 1.0, averages)
    result = Sampler(backend, [edit], num_inference_steps=steps).sample(1, seeds=[0, 1])
    torch.testing.assert_close(result.x, (IMAGE + 0.9).expand(2, 1, 8, 8))
    assert result.stats.evaluated == 2 * averages * steps


def test_equal_conditions_return_the_image(schedule):
    stack = [FlowEdit(IMAGE, 2, 0.8), CFG(3.0)]
    result = Sampler(mixture(schedule), stack, num_inference_steps=6).sample(2, seeds=[0, 1])
    torch.testing.assert_close(result.x, IMAGE.expand(2, 1, 8, 8))


def test_it_is_the_papers_algorithm():
    """Algorithm 1 of arXiv 2412.08629, whose t falls from 1 (noise) to 0 and whose velocity is
    noise - x_0; with the same draws."""
    backend, n, n_max = mixture(), 8, 6
    guided = Sampler(backend, [CFG(2.0)])

    def velocity(z, t, condition):
        return -guided.denoise(z, 1 - t, condition).prediction

    generator = torch.Generator().manual_seed(3)

    def draw():
        return torch.randn(1, 1, 8, 8, generator=generator, dtype=torch.float64)

    z = IMAGE[None]
    for i in range(n_max, 0, -1):
        t, t_next = i / n, (i - 1) / n
        noise = draw()
        source = (1 - t) * IMAGE + t * noise
        target = z + source - IMAGE
        z = z + (t_next - t) * (velocity(target, t, 1) - velocity(source, t, 3))
    ours = Sampler(backend, [FlowEdit(IMAGE, 3, n_max / n), CFG(2.0)], num_inference_steps=n)
    torch.testing.assert_close(ours.sample(1, seeds=[3]).x, z)


def test_below_stop_the_solver_goes_on():
    backend = mixture()
    edit = FlowEdit(IMAGE, 3, 1.0, stop=1.0 - 1e-9)  # the first step alone
    stack = [edit, CFG(2.0)]
    states = [*Sampler(backend, stack, Euler(), 5).stream(1, seeds=[0])]
    rest = Sampler(backend, [CFG(2.0)], Euler(), 5).sample(1, seeds=[0], x=states[0].x, t=0.2)
    torch.testing.assert_close(states[-1].x, rest.x)


def test_the_source_may_be_no_condition_and_views_are_seen():
    views = Anagram({"identity": None, "rotate_180": None})
    stack = [FlowEdit(IMAGE, UNCONDITIONAL, 0.6), views]
    x = Sampler(mixture(), stack, num_inference_steps=6).sample(1, seeds=[0, 1]).x
    assert (x - IMAGE).abs().max() > 0.1


def test_it_keeps_what_inpainting_keeps():
    mask = torch.eye(8)
    stack = [FlowEdit(IMAGE, 3, 0.8), Inpaint(IMAGE, mask), CFG(2.0)]
    x = Sampler(mixture(), stack, num_inference_steps=6).sample(1).x
    assert torch.equal(x[0, 0][mask == 0], IMAGE[0][mask == 0])


def test_walks_pass_by():
    stack = [FlowEdit(IMAGE, 3, 0.8), Langevin(1)]
    assert Sampler(mixture(), stack, num_inference_steps=4).sample(1).x.isfinite().all()


def test_impossible_edits_raise():
    with pytest.raises(ValueError, match="FlowEdit: stop"):
        FlowEdit(IMAGE, 1, stop=1.0)
    with pytest.raises(TypeError, match="FlowEdit: source must be a condition"):
        FlowEdit(IMAGE, None)
    with pytest.raises(ValueError, match="FlowEdit: strength=0.1 leaves none of the 5 steps"):
        Sampler(mixture(), [FlowEdit(IMAGE, 1, 0.1)], num_inference_steps=5)
    with pytest.raises(ValueError, match="a condition must be a component"):
        Sampler(mixture(), [FlowEdit(IMAGE, 99)])
    chosen = Particles(lambda x: x.flatten(1).mean(1), ((1, 3), (0, 1)))
    with pytest.raises(ValueError, match="FlowEdit: it cannot be combined with Particles"):
        Sampler(mixture(), [FlowEdit(IMAGE, 1), chosen])
