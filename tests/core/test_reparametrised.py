"""A model shown on another path is the same model."""

import pytest
import torch
from conftest import mixture
from hypothesis import given
from hypothesis import strategies as st

from composer import Sampler
from composer.predictions import PREDICTIONS
from composer.reparametrised import Reparametrised
from composer.schedules import DiscreteSchedule, FlowSchedule
from composer.solvers import Euler
from composer_lab.training.objective import Objective
from composer_lab.training.preconditioned import Preconditioned
from composer_plugins import CFG
from composer_plugins.backends.mnist import MnistBackend, MnistUNet

kinds = st.sampled_from(sorted(PREDICTIONS))


@given(kinds, kinds, st.booleans(), st.integers(0, 900), st.sampled_from([0, 3]))
def test_it_is_the_exact_model_of_its_own_path(inside, outside, to_flow, step, component):
    """Over the Gaussian mixture, whose model is known on every path."""
    schedules = FlowSchedule(), DiscreteSchedule.linear()
    here, there = schedules if to_flow else schedules[::-1]
    t = 0.05 + step / 1000 if to_flow else step
    inner, exact = mixture(there, inside), mixture(here, outside)
    shown = Reparametrised(inner, here, PREDICTIONS[outside], Euler())
    x = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(step), dtype=torch.float64)
    ours = Sampler(shown, [CFG(2.0)]).denoise(x, t, component)
    theirs = Sampler(exact, [CFG(2.0)]).denoise(x, t, component)
    torch.testing.assert_close(ours.x0, theirs.x0, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(ours.prediction, theirs.prediction, rtol=1e-4, atol=1e-6)


def test_requests_about_one_image_stay_so():
    """Else the inner backend could not share what it computes for one image."""
    seen = []

    class Watched(type(mixture())):
        def evaluate(self, batch):
            seen.append(len({*batch.images}))
            return super().evaluate(batch)

    base = mixture()
    inner = Watched(base.means, base.stds)
    shown = Reparametrised(inner, DiscreteSchedule.linear(), PREDICTIONS["epsilon"], Euler())
    Sampler(shown, [CFG(3.0)], num_inference_steps=2).sample(1)
    assert seen == [1, 1]


@pytest.mark.parametrize("kind", sorted(PREDICTIONS))
def test_training_and_sampling_precondition_alike(kind):
    """The training wrapper of a network equals the sampling wrapper of its backend."""
    torch.manual_seed(0)
    unet = MnistUNet(hidden_size=4).eval()
    schedule, prediction = DiscreteSchedule.linear(), PREDICTIONS[kind]
    backend = MnistBackend(unet, FlowSchedule(), PREDICTIONS["flow"])
    shown = Reparametrised(backend, schedule, prediction, Euler())
    trained = Preconditioned(unet, Objective(schedule, prediction))
    for t in (0, 400, 999):
        x = torch.randn(2, 1, 28, 28)
        times = schedule.unit_time(torch.tensor([t, t])).float()
        expected = trained(x, times, torch.tensor([3, 3]))
        ours = Sampler(shown).denoise(x, t, 3).prediction
        torch.testing.assert_close(ours, expected.detach(), rtol=1e-4, atol=1e-4)


def test_a_flow_path_needs_no_preconditioning():
    with pytest.raises(
        TypeError, match="must have a discrete schedule. Train a flow network directly"
    ):
        Preconditioned(MnistUNet(hidden_size=4), Objective(FlowSchedule(), PREDICTIONS["flow"]))
