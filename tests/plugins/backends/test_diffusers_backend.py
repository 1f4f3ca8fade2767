"""load_backend("diffusers"): equal to diffusers' own pipelines, clipped whatever the solver."""

import pytest
import torch
from diffusers import (
    DDIMPipeline,
    DDIMScheduler,
    DDPMPipeline,
    DDPMScheduler,
    DPMSolverMultistepScheduler,
)
from tiny_unet import SEEDS, assert_same, generators, load, ours, run_pipeline, tiny_unet, write

from composer import UNCONDITIONAL, Request, Sampler
from composer.model import evaluated
from composer.solvers import DDIM, DDPM, DiffusersSolver, DPMSolverPP, Euler, Heun
from composer_plugins import Anagram


@pytest.mark.parametrize("steps", [1, 2, 7, 30])
@pytest.mark.parametrize("spacing", ["leading", "trailing", "linspace"])
def test_equal_to_ddpm_pipeline(tmp_path, spacing, steps):
    if (spacing, steps) == ("linspace", 1):
        return  # diffusers' one linspace step starts at the image, not at the noise
    write(tmp_path, DDPMScheduler(timestep_spacing=spacing))
    assert_same(ours(tmp_path, steps), run_pipeline(DDPMPipeline.from_pretrained(tmp_path), steps))


CONFIGS = {
    "scaled_linear": {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012},
    "cosine": {"beta_schedule": "squaredcos_cap_v2"},
    "trained_betas": {
        "trained_betas": torch.linspace(0.001, 0.2, 50).tolist(),
        "num_train_timesteps": 50,
    },
    "sample": {"prediction_type": "sample"},
    "v": {"prediction_type": "v_prediction"},
    "v, zero terminal SNR": {
        "prediction_type": "v_prediction",
        "rescale_betas_zero_snr": True,
        "timestep_spacing": "trailing",
    },
    "not clipped": {"clip_sample": False},
    "v, not clipped": {"prediction_type": "v_prediction", "clip_sample": False},
    "clipped to 0.5": {"clip_sample_range": 0.5},
    "thresholded": {"thresholding": True, "sample_max_value": 1.5},
    "thresholded at .9": {"thresholding": True, "dynamic_thresholding_ratio": 0.9},
    "fixed_large": {"variance_type": "fixed_large"},
    "fixed_small_log": {"variance_type": "fixed_small_log"},
    "offset": {"steps_offset": 1},
}


@pytest.mark.parametrize("name", CONFIGS)
def test_every_configuration_is_honoured(tmp_path, name):
    write(tmp_path, DDPMScheduler(**CONFIGS[name]))
    assert_same(ours(tmp_path, 7), run_pipeline(DDPMPipeline.from_pretrained(tmp_path), 7))


def test_a_learned_variance_is_split_off_and_used(tmp_path):
    write(tmp_path, DDPMScheduler(variance_type="learned_range"), out_channels=6)
    assert_same(ours(tmp_path, 7), run_pipeline(DDPMPipeline.from_pretrained(tmp_path), 7))
    fixed = tmp_path / "fixed"
    write(fixed, DDPMScheduler(variance_type="fixed_small"), out_channels=6)
    x = ours(fixed, 7)  # the same weights, their variance dropped
    assert x.shape == (3, 3, 8, 8)
    assert (x - ours(tmp_path, 7)).abs().mean() > 0.01


def ddim(folder, **config):
    DDIMPipeline(tiny_unet(), DDIMScheduler(**config)).save_pretrained(folder)
    return DDIMPipeline.from_pretrained(folder)


@pytest.mark.parametrize(("steps", "eta"), [(1, 0.0), (2, 0.7), (7, 0.7), (30, 0.0)])
def test_equal_to_ddim_pipeline(tmp_path, steps, eta):
    pipeline = ddim(tmp_path, clip_sample=False)
    assert_same(ours(tmp_path, steps, DDIM(eta)), run_pipeline(pipeline, steps, eta=eta))


@pytest.mark.parametrize("config", [{}, {"thresholding": True}, {"clip_sample_range": 0.7}])
def test_ddim_takes_its_noise_from_the_clipped_image(tmp_path, config):
    pipeline = ddim(tmp_path, **config)
    theirs = run_pipeline(pipeline, 7, use_clipped_model_output=True)
    assert_same(ours(tmp_path, 7), theirs)


@pytest.mark.parametrize("steps", [3, 7])
@pytest.mark.parametrize("spacing", ["trailing", "linspace"])
def test_ddim_where_diffusers_strides_past_its_own_plan(tmp_path, spacing, steps):
    """DDIMScheduler goes from t to t - T // n whatever the next time of its plan is; driven by
    DiffusersSolver it still does, and DDIM() goes where the plan says."""
    pipeline = ddim(tmp_path, clip_sample=False, timestep_spacing=spacing)
    solver = DiffusersSolver(DDIMScheduler.from_config(pipeline.scheduler.config))
    adapted = ours(tmp_path, steps, solver)
    assert_same(adapted, run_pipeline(pipeline, steps))
    assert (adapted - ours(tmp_path, steps)).abs().max() > 1e-4


def test_another_scheduler_of_the_folder_is_the_default_solver(tmp_path):
    write(tmp_path, DPMSolverMultistepScheduler(thresholding=True))
    pipeline = DDPMPipeline.from_pretrained(tmp_path)
    backend = load(tmp_path)
    assert isinstance(backend.default_solver, DiffusersSolver)
    pipeline.to(torch.float64).scheduler.set_timesteps(7)
    noise = [torch.randn(1, 3, 8, 8, generator=g, dtype=torch.float64) for g in generators()]
    x = torch.cat(noise)
    with torch.no_grad():
        for t in pipeline.scheduler.timesteps:
            x = pipeline.scheduler.step(pipeline.unet(x, t).sample, t, x).prev_sample
    assert_same(ours(tmp_path, 7), x)


def test_a_scheduler_of_another_folder(tmp_path):
    write(tmp_path)
    DDIMScheduler().save_pretrained(tmp_path / "other")
    backend = load(tmp_path, scheduler=str(tmp_path / "other"))
    assert isinstance(load(tmp_path).default_solver, DDPM)
    assert isinstance(backend.default_solver, DDIM)


@pytest.mark.parametrize("solver", [Euler(), DDIM(1.0), Heun(), DPMSolverPP()], ids=repr)
@pytest.mark.parametrize("config", [{"clip_sample_range": 0.5}, {"thresholding": True}])
def test_clipping_holds_whatever_the_solver_and_the_stack(tmp_path, solver, config):
    backend = load(write(tmp_path, DDPMScheduler(beta_schedule="squaredcos_cap_v2", **config)))
    bound = config.get("clip_sample_range", 1.0)
    stack = [Anagram({"identity": UNCONDITIONAL, "flip": UNCONDITIONAL})]
    for state in Sampler(backend, stack, solver, 5).stream(seeds=SEEDS):
        reached = state.estimate.x0.abs().amax((1, 2, 3))
        assert (reached <= bound).all()
        assert (reached == bound).all()  # exactly, also where alpha is 5e-5
        torch.testing.assert_close(  # and the noise is that of the clipped image
            backend.schedule.add_noise(state.estimate.x0, state.estimate.noise, state.estimate.t),
            state.estimate.x,
        )


def test_without_clipping_the_estimate_is_the_networks(tmp_path):
    backend = load(write(tmp_path, DDPMScheduler(clip_sample=False)))
    x = torch.randn(2, 3, 8, 8)
    with torch.no_grad():
        expected = backend.unet(x, 500).sample
    estimate = Sampler(backend).denoise(x, 500)
    torch.testing.assert_close(estimate.prediction, expected)
    assert estimate.kind is backend.prediction


def test_times_reach_a_bfloat16_network_whole(tmp_path):
    """Rounded to bfloat16, 999 and 997 would be 1000 and 996."""
    backend = load(write(tmp_path), dtype="bfloat16")
    seen = []
    backend.unet.time_proj.register_forward_hook(lambda m, args, out: seen.append(args[0].tolist()))
    x = torch.randn(1, 3, 8, 8)
    evaluated(backend, [Request(x, 999.0, UNCONDITIONAL), Request(x, 997.0, UNCONDITIONAL)])
    assert seen == [[999.0, 997.0]]


def test_learned_time_embeddings_get_whole_times(tmp_path):
    write(tmp_path, time_embedding_type="learned", num_train_timesteps=1000)
    assert_same(ours(tmp_path, 7), run_pipeline(DDPMPipeline.from_pretrained(tmp_path), 7))
    assert ours(tmp_path, 3, Heun()).isfinite().all()


def test_other_shapes(tmp_path):
    backend = load(write(tmp_path, sample_size=(8, 12), in_channels=1, out_channels=1))
    assert backend.shape == (1, 8, 12)
    assert Sampler(backend, num_inference_steps=2).sample().x.shape == (1, 1, 8, 12)
    pipeline = DDPMPipeline.from_pretrained(tmp_path)
    assert_same(ours(tmp_path, 7), run_pipeline(pipeline, 7))


def test_out_of_memory_says_what_to_lower(tmp_path):
    backend = load(write(tmp_path))

    def greedy(module, args):
        if len(args[0]) > 2:
            torch.empty(2**60)

    backend.unet.conv_in.register_forward_pre_hook(greedy)
    with pytest.raises(torch.OutOfMemoryError, match=r"3 images .* Set Sampler\(max_rows=1\)"):
        Sampler(backend, num_inference_steps=2).sample(seeds=SEEDS)
    x = Sampler(backend, num_inference_steps=2, max_rows=2).sample(seeds=SEEDS).x
    assert x.isfinite().all()


def test_out_of_memory_at_one_image_advises_what_there_is(tmp_path):
    backend = load(write(tmp_path))
    backend.unet.conv_in.register_forward_pre_hook(lambda *a: torch.empty(2**60))
    with pytest.raises(torch.OutOfMemoryError, match=r"1 images .* Load it with dtype=") as caught:
        Sampler(backend, num_inference_steps=2).sample()
    assert "offload" not in str(caught.value)  # which this backend has not
