"""Schedulers that are noisier than the model, that clip, and that learned a variance."""

import inspect
import warnings

import diffusers
import pytest
import torch
from conftest import mixture
from diffusers import (
    DDIMScheduler,
    DDPMScheduler,
    DEISMultistepScheduler,
    DPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
    HeunDiscreteScheduler,
    KDPM2DiscreteScheduler,
    LCMScheduler,
    LMSDiscreteScheduler,
    PNDMScheduler,
    SASolverScheduler,
    TCDScheduler,
    UnCLIPScheduler,
    UniPCMultistepScheduler,
)
from schedulers import COSINE, FREE, path_of

from composer import Output, Sampler
from composer.predictions import PREDICTIONS
from composer.schedules import DiscreteSchedule, FlowSchedule
from composer.solvers import DiffusersSolver
from composer.solvers._families import family_of
from composer.solvers._schedulers import clips, thresholds
from composer.testing import GaussianMixtureBackend

NOISY = [
    DDIMScheduler(**COSINE, **FREE),
    DDPMScheduler(**COSINE, **FREE),
    DEISMultistepScheduler(**COSINE),
    DPMSolverMultistepScheduler(**COSINE),
    EulerDiscreteScheduler(**COSINE),
    HeunDiscreteScheduler(**COSINE),
    KDPM2DiscreteScheduler(**COSINE),
    LCMScheduler(**COSINE),
    LMSDiscreteScheduler(**COSINE),
    PNDMScheduler(**COSINE),
    PNDMScheduler(**COSINE, skip_prk_steps=True),
    TCDScheduler(**COSINE),
    UnCLIPScheduler(**FREE),
    UniPCMultistepScheduler(**COSINE),
]
"""They begin with a signal of 5e-5, where the linear schedule's last is 6e-3."""


@pytest.mark.parametrize("scheduler", NOISY, ids=lambda s: type(s).__name__)
def test_a_scheduler_noisier_than_the_model_makes_the_same_images(scheduler):
    """In float32 as models are, whatever they predict; the linear schedule's last time differs
    from noise by .006 of the image. Heun and KDPM2 step from a sigma of 20,000 by half of a
    slope there and half of one beyond, and multiply such differences, and those of rounding."""
    one = getattr(scheduler, "order", 1) == 1
    dtype, tolerance = (torch.float32, 0.01) if one else (torch.float64, 0.15)
    images = []
    for schedule, kind in [
        (FlowSchedule(), "flow"),  # as noisy as any
        (path_of(scheduler), "v"),
        (DiscreteSchedule.linear(), "v"),
        (DiscreteSchedule.linear(), "epsilon"),
        (DiscreteSchedule.linear(), "sample"),
    ]:
        backend = GaussianMixtureBackend(
            torch.full((1, 1, 8, 8), 0.3, dtype=dtype),
            [0.2],
            schedule=schedule,
            prediction=PREDICTIONS[kind],
            dtype=dtype,
        )
        sampler = Sampler(backend, [], DiffusersSolver(scheduler), 20)
        images.append(sampler.sample(seeds=range(4)).x)
    assert images[0].sub(0.3).abs().max() < 1.5
    for x in images[1:]:
        torch.testing.assert_close(x, images[0], rtol=0, atol=tolerance)


def configured():
    """Schedulers of diffusers that are driven, by default; each prints to nobody."""
    for name in sorted(dir(diffusers)):
        kind = getattr(diffusers, name) if name.endswith("Scheduler") else None
        try:
            scheduler = kind()
            family_of(scheduler)
        except (TypeError, ValueError, ImportError):
            continue
        if "Inverse" not in name:
            yield kind


def first_step(kind, x, **config):
    """Of an epsilon that makes x_0 large everywhere."""
    scheduler = kind(**config)
    scheduler.set_timesteps(10)
    t = scheduler.timesteps[0]
    if hasattr(scheduler, "scale_model_input"):
        scheduler.scale_model_input(x, t)
    accepts = "generator" in inspect.signature(scheduler.step).parameters
    further = {"generator": torch.Generator().manual_seed(0)} if accepts else {}
    return scheduler.step(-x, t, x, **further).prev_sample


@pytest.mark.parametrize("kind", configured(), ids=lambda kind: kind.__name__)
def test_which_schedulers_clip_is_known(kind):
    """As their steps do: some take the word and do nothing."""
    x = torch.linspace(-9, 9, 64).reshape(1, 1, 8, 8)
    for name, reads in (("clip_sample", clips), ("thresholding", thresholds)):
        if name not in inspect.signature(kind.__init__).parameters:
            assert not reads(kind.from_config({"clip_sample": True, "thresholding": True}))
            continue
        off = dict.fromkeys(("clip_sample", "thresholding"), False)
        off = {n: v for n, v in off.items() if n in inspect.signature(kind.__init__).parameters}
        on = {**off, name: True}
        does = not torch.equal(first_step(kind, x, **on), first_step(kind, x, **off))
        assert reads(kind(**on)) == does
        assert not reads(kind(**off))


@pytest.mark.parametrize("kind", [DDIMScheduler, DDPMScheduler, UnCLIPScheduler])
def test_clipping_is_warned_of_with_what_to_do(kind):
    with pytest.warns(
        UserWarning, match=f"{kind.__name__} clips .* with clip_sample=False; a back"
    ):
        DiffusersSolver(kind())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        DiffusersSolver(kind(clip_sample=False))
        DiffusersSolver(EulerDiscreteScheduler.from_config(kind().config))  # which knows no such
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        for _ in range(3):
            DiffusersSolver(kind())
    assert len(caught) == 1
    assert caught[0].filename == __file__


class Learned(GaussianMixtureBackend):
    """A model of four channels that learned a variance."""

    def evaluate(self, batch):
        prediction = super().evaluate(batch).prediction
        return Output(prediction, torch.zeros_like(prediction))


@pytest.mark.parametrize(
    "kind", [DPMSolverMultistepScheduler, SASolverScheduler], ids=lambda kind: kind.__name__
)
def test_a_learned_variance_that_a_scheduler_throws_away_is_not_asked_for(kind):
    """It would keep three channels of any image, and so break one of another number."""
    plain = mixture(DiscreteSchedule.linear(), "epsilon", shape=(4, 8, 8))
    backend = Learned(plain.means, plain.stds, schedule=plain.schedule, prediction=plain.prediction)
    with_it, without = (
        Sampler(model, [], DiffusersSolver(kind(variance_type=said)), 8).sample(1, seeds=[3]).x
        for model, said in ((backend, "learned_range"), (plain, None))
    )
    assert torch.equal(with_it, without)
    both = Sampler(plain, [], DiffusersSolver(kind(variance_type="learned_range")), 8)
    assert torch.equal(both.sample(1, seeds=[3]).x, without)
