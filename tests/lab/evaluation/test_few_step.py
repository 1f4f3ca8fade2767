"""The shipped few-step model beside the flow that it straightens."""

import pytest
import torch

import composer
from composer import Sampler
from composer_lab.evaluation.quality import quality, shipped_reference
from composer_lab.evaluation.samples import Setting, load_model, sampled
from composer_plugins.backends.mnist.judge import load_judge


@pytest.mark.parametrize("steps", [1, 2])
def test_it_has_a_lower_fid_than_the_flow_at_equal_rows(steps):
    """100 samples of fixed seeds, whose FID of train digits is 5.1."""
    judge, reference = load_judge(), shipped_reference()
    found = {}
    for name in ("mnist-few-step", "mnist"):
        samples = sampled(load_model(name), Setting("euler", steps), range(100))
        assert samples.rows == 100 * steps
        found[name] = quality(judge, samples.images, samples.digits, reference)
    assert found["mnist-few-step"].frechet < found["mnist"].frechet
    accuracy = found["mnist-few-step"].accuracy
    assert sum(accuracy) / len(accuracy) > 0.9


def test_its_paths_are_straighter_than_the_flows():
    """The part of x_0's estimate that changes on the way from noise: 0 on a straight path."""
    bends = {}
    for name in ("mnist-few-step", "mnist"):
        sampler = Sampler(composer.load_backend(name), num_inference_steps=8)
        noise = torch.randn(20, 1, 28, 28, generator=torch.Generator().manual_seed(0))
        conditions, seeds = [k % 10 for k in range(20)], range(20)
        whole = sampler.sample(conditions, seeds, x=noise).x
        at_once = sampler.replace(num_inference_steps=1).sample(conditions, seeds, x=noise).x
        bends[name] = (whole - at_once).square().mean()
    assert bends["mnist-few-step"] < 0.5 * bends["mnist"]
