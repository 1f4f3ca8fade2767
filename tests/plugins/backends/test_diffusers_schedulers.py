"""Schedulers that a model of load_backend("diffusers") is sampled by, one trait at a time."""

import dataclasses

import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DDPMParallelScheduler,
    DDPMScheduler,
    DPMSolverSinglestepScheduler,
    EDMEulerScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    IPNDMScheduler,
    KDPM2DiscreteScheduler,
    PNDMScheduler,
    UnCLIPScheduler,
    UniPCMultistepScheduler,
)
from scheduled_unet import backend_of, between, folders_in
from tiny_unet import load, write

from composer import Sampler
from composer.solvers import DDIM, DDPM, DiffusersSolver
from composer_plugins import Langevin, LanPaint


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return folders_in(tmp_path_factory)


@pytest.mark.parametrize(
    "kind", [EulerAncestralDiscreteScheduler, KDPM2DiscreteScheduler, PNDMScheduler]
)
def test_a_prediction_that_a_scheduler_does_not_take_raises_when_loaded(folders, kind):
    sentence = (
        f"{kind.__name__} does not support prediction_type='sample'. Configure it with 'epsilon'"
    )
    with pytest.raises(ValueError, match=sentence):
        backend_of(folders, kind(prediction_type="sample"))


def test_a_last_time_other_than_the_image_s_is_honoured(folders):
    """The default DDIM was off by .0017 here."""
    scheduler = DDIMScheduler(set_alpha_to_one=False)
    backend = backend_of(folders, scheduler)
    assert between(backend, scheduler) < 1e-6
    ours = dataclasses.replace(backend, default_solver=DDIM())
    assert between(ours, scheduler) > 1e-5
    assert backend_of(folders, DDIMScheduler()).default_solver == DDIM()


def test_a_word_of_another_scheduler_in_the_file_changes_nothing(folders):
    """``from_config`` keeps all that stood in the other's."""
    scheduler = EulerDiscreteScheduler.from_config(
        DDPMScheduler(clip_sample=True, thresholding=True).config
    )
    assert scheduler.config.clip_sample
    assert scheduler.config.thresholding
    backend = backend_of(folders, scheduler)
    assert backend.clip is None
    assert between(backend, scheduler) < 1e-6


def test_a_scheduler_thresholds_once(folders):
    """In the backend, for any solver; not again in the solver, where it thresholds what is."""
    scheduler = DPMSolverSinglestepScheduler(thresholding=True, sample_max_value=1.5)
    backend = backend_of(folders, scheduler)
    assert not backend.default_solver.scheduler.config.thresholding
    assert between(backend, scheduler) < 1e-5


def test_logarithms_of_variances_are_those_variances(folders):
    """fixed_large_log is NaN in diffusers: it takes the square root of a logarithm."""
    for kind in (DDPMScheduler, DDPMParallelScheduler):
        backend = backend_of(folders, kind(variance_type="fixed_large_log"))
        assert backend.default_solver == DDPM("fixed_large")


@pytest.mark.parametrize("solver", [EDMEulerScheduler, FlowMatchEulerDiscreteScheduler])
def test_learned_time_embeddings_round_to_the_nearest_time(tmp_path, solver):
    """Schedulers of other paths ask at times between the first and the image's."""
    write(tmp_path, time_embedding_type="learned", num_train_timesteps=1000)
    backend, seen = load(tmp_path), []
    backend.unet.time_proj.register_forward_hook(lambda m, args, out: seen.append(args[0]))
    sampler = Sampler(backend, [], DiffusersSolver(solver()), 30)
    assert sampler.times[-2] < -0.5
    assert sampler.sample().x.isfinite().all()
    assert torch.cat(seen).tolist() == [max(0, round(t)) for t in sampler.times[:-1]]


@pytest.mark.parametrize("walker", [Langevin(1), LanPaint(torch.zeros(3, 8, 8), torch.ones(8, 8))])
@pytest.mark.parametrize(
    "scheduler",
    [
        DDIMScheduler(set_alpha_to_one=False),
        DDPMScheduler(),
        EulerAncestralDiscreteScheduler(),
        EulerDiscreteScheduler(use_karras_sigmas=True),
        UnCLIPScheduler(),
        UniPCMultistepScheduler(use_karras_sigmas=True, beta_schedule="squaredcos_cap_v2"),
    ],
    ids=lambda s: type(s).__name__,
)
def test_a_model_s_own_scheduler_walks(folders, scheduler, walker):
    backend = backend_of(folders, scheduler)
    result = Sampler(backend, [walker], num_inference_steps=4).sample(seeds=[0])
    assert result.stats.calls == 4 + 3 * walker.steps
    assert result.x.isfinite().all()


@pytest.mark.parametrize("kind", [KDPM2DiscreteScheduler, PNDMScheduler])
def test_a_model_s_own_scheduler_of_several_evaluations_says_that_it_cannot_walk(folders, kind):
    backend = backend_of(folders, kind())
    with pytest.raises(ValueError, match=r"several times a step.* Use Heun\(\)"):
        Sampler(backend, [Langevin(1)], num_inference_steps=6).sample()


def test_betas_of_1_before_the_last_raise(folders):
    """Without a signal no step is defined; they were divisions by zero in the first step."""
    betas = [0.1] * 5 + [1.0] + [0.1] * 4
    with pytest.raises(ValueError, match="Make every beta but the last less than 1"):
        backend_of(folders, DDPMScheduler(num_train_timesteps=10, trained_betas=betas))
    last = DDPMScheduler(num_train_timesteps=10, trained_betas=[0.1] * 9 + [1.0])
    x = Sampler(backend_of(folders, last), [], DDIM(1.0), 10).sample().x
    assert x.isfinite().all()


def test_times_that_are_not_those_of_the_levels_are_not_taken(folders):
    """Of log_linear levels diffusers tells the network the times of linear ones."""
    backend = backend_of(folders, EulerDiscreteScheduler(interpolation_type="log_linear"))
    plan, sampler = EulerDiscreteScheduler(interpolation_type="log_linear"), Sampler(backend)
    plan.set_timesteps(20)
    levels = [backend.schedule.noise_level(t) for t in sampler.times[:-1]]
    assert levels == pytest.approx([float(s / (1 + s)) for s in plan.sigmas[:20]], abs=1e-6)
    assert max(abs(t - s) for t, s in zip(sampler.times, plan.timesteps, strict=False)) > 100


def test_ipndm_and_its_kind_have_no_betas_to_read(folders):
    IPNDMScheduler().save_pretrained(folders[3] / "scheduler")
    with pytest.raises(ValueError, match="got IPNDMScheduler .* Use for example a DDPMScheduler"):
        load(folders[3])
