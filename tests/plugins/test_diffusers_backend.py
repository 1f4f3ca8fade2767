"""load_backend("diffusers"): equal to diffusers' own pipelines, and sentences for what is none."""

import json
import shutil
from types import SimpleNamespace

import pytest
import torch
from diffusers import (
    DDIMPipeline,
    DDIMScheduler,
    DDPMPipeline,
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    ScoreSdeVeScheduler,
    UNet2DModel,
)
from safetensors.torch import load as load_tensors
from safetensors.torch import load_file, save_file

import composer
from composer import UNCONDITIONAL, Request, Sampler
from composer.solvers import DDIM, DDPM, DiffusersSolver, DPMSolverPP, Euler, Heun
from composer_plugins import CFG, Anagram
from composer_plugins.backends.diffusers_unet import DiffusersBackend, load_diffusers
from composer_plugins.backends.diffusers_unet.files import Source

SEEDS = (4, 0, 7)


def tiny_unet(**options):
    """A random UNet2DModel whose output varies about as much as noise does."""
    torch.manual_seed(0)
    layout = {
        "sample_size": 8,
        "block_out_channels": (8, 16),
        "layers_per_block": 1,
        "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
        "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
        "norm_num_groups": 4,
        "attention_head_dim": 4,
    }
    unet = UNet2DModel(**{**layout, **options}).eval()
    with torch.no_grad():
        unet.conv_out.weight.mul_(2)
        if unet.class_embedding is not None:
            unet.class_embedding.weight.mul_(3)
    return unet


def write(folder, scheduler=None, **unet):
    DDPMPipeline(tiny_unet(**unet), scheduler or DDPMScheduler()).save_pretrained(folder)
    return folder


def load(folder, **options):
    return composer.load_backend("diffusers", model=str(folder), **options)


def generators():
    return [torch.Generator().manual_seed(seed) for seed in SEEDS]


def run_pipeline(pipeline, steps, **options):
    """The pipeline's last image before it is clamped and scaled for PIL."""
    pipeline.set_progress_bar_config(disable=True)
    images, step = [], pipeline.scheduler.step

    def recorded(*args, **kwargs):
        out = step(*args, **kwargs)
        images.append(out.prev_sample)
        return out

    pipeline.scheduler.step = recorded
    batch = {"batch_size": len(SEEDS), "generator": generators(), "num_inference_steps": steps}
    shown = pipeline(**batch, output_type="pt", **options).images
    assert torch.equal(shown, (images[-1] / 2 + 0.5).clamp(0, 1))
    return images[-1]


def assert_same(ours, theirs, within=1e-5):
    assert theirs.std() > 0.1
    assert theirs[0].sub(theirs[1]).abs().mean() > 0.05  # the seeds matter
    # Of an untrained network, what is not clipped grows: the tolerance is in units of the image.
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=within * max(1, theirs.std().item()))


def ours(folder, steps, solver=None, **options):
    return Sampler(load(folder, **options), [], solver, steps).sample(seeds=SEEDS).x


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
    pipeline.scheduler.set_timesteps(7)
    x = torch.cat([torch.randn(1, 3, 8, 8, generator=g) for g in generators()])
    with torch.no_grad():
        for t in pipeline.scheduler.timesteps:
            x = pipeline.scheduler.step(pipeline.unet(x, t).sample, t, x).prev_sample
    # The adapter hands x_0 over as epsilon, whose way back is 160 times as coarse at alpha = .006.
    assert_same(ours(tmp_path, 7), x, within=1e-4)


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


# Layouts of files.


def test_old_folders_keep_everything_in_one_place(tmp_path):
    expected = ours(write(tmp_path / "new"), 3)
    old = tmp_path / "old"
    shutil.copytree(tmp_path / "new" / "unet", old)
    shutil.copy(tmp_path / "new" / "scheduler" / "scheduler_config.json", old)
    assert torch.equal(ours(old, 3), expected)
    shutil.copy(tmp_path / "new" / "model_index.json", old)
    assert torch.equal(ours(old, 3), expected)


def test_names_of_weights_from_before_2023_are_read(tmp_path):
    """google/ddpm-* call their attention query, key, value and proj_attn."""
    expected = ours(write(tmp_path), 3)
    file = tmp_path / "unet" / "diffusion_pytorch_model.safetensors"
    names = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}

    def before(name):
        for new, old in names.items():
            name = name.replace(f".{new}.", f".{old}.")
        return name

    weights = {before(name): value for name, value in load_file(file).items()}
    assert any(".query." in key for key in weights)
    save_file(weights, file, {"format": "pt"})
    assert torch.equal(ours(tmp_path, 3), expected)


def test_half_precision_weights_run_in_float32_and_the_other_way_round(tmp_path):
    write(tmp_path / "full")
    half = DDPMPipeline.from_pretrained(tmp_path / "full")
    half.unet.to(torch.float16)
    half.save_pretrained(tmp_path / "half")
    wide, narrow = load(tmp_path / "half"), load(tmp_path / "full", dtype="bfloat16")
    assert {p.dtype for p in wide.unet.parameters()} == {torch.float32}
    assert {p.dtype for p in narrow.unet.parameters()} == {torch.bfloat16}
    x = torch.randn(2, 3, 8, 8)
    exact = Sampler(load(tmp_path / "full")).denoise(x, 300).x0
    torch.testing.assert_close(Sampler(wide).denoise(x, 300).x0, exact, rtol=0.01, atol=0.01)
    estimate = Sampler(narrow).denoise(x, 300)
    assert estimate.prediction.dtype == torch.float32
    torch.testing.assert_close(estimate.x0, exact, rtol=0.1, atol=0.1)


def test_times_reach_a_bfloat16_network_whole(tmp_path):
    """Rounded to bfloat16, 999 and 997 would be 1000 and 996."""
    backend = load(write(tmp_path), dtype="bfloat16")
    seen = []
    backend.unet.time_proj.register_forward_hook(lambda m, args, out: seen.append(args[0].tolist()))
    x = torch.randn(1, 3, 8, 8)
    backend.evaluate([Request(x, 999.0, UNCONDITIONAL), Request(x, 997.0, UNCONDITIONAL)])
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


def test_pickled_weights_only_on_demand(tmp_path):
    expected = ours(write(tmp_path), 2)
    DDPMPipeline.from_pretrained(tmp_path).save_pretrained(tmp_path, safe_serialization=False)
    (tmp_path / "unet" / "diffusion_pytorch_model.safetensors").unlink()
    with pytest.raises(
        ValueError, match=r"has no .*\.safetensors; use_safetensors=False reads its"
    ):
        load(tmp_path)
    assert torch.equal(ours(tmp_path, 2, use_safetensors=False), expected)


# Labels.


@pytest.fixture
def labelled(tmp_path):
    return write(tmp_path, num_class_embeds=5)


def test_labels_reach_the_network(labelled):
    backend = load(labelled)
    x = torch.randn(2, 3, 8, 8)
    with torch.no_grad():
        expected = [backend.unet(x, 300, torch.tensor([k, k])).sample for k in (3, 1)]
    answers = backend.evaluate([Request(x, 300.0, k) for k in (3, 1)])
    for answer, right in zip(answers, expected, strict=True):
        torch.testing.assert_close(answer.prediction, right)
    assert (expected[0] - expected[1]).abs().mean() > 0.01


def test_the_last_label_may_mean_no_label(labelled):
    backend = load(labelled, unconditional_label=4)
    assert backend.encode(UNCONDITIONAL) == backend.encode(4) == 4
    free = Sampler(backend, num_inference_steps=2).sample().x  # None: not decided by anybody
    assert torch.equal(free, Sampler(backend, num_inference_steps=2).sample(UNCONDITIONAL).x)
    x, scale = torch.randn(2, 3, 8, 8), 3.0
    unclipped = DiffusersBackend(
        backend.unet, backend.schedule, backend.prediction, DDIM(), unconditional_label=4
    )
    guided = Sampler(unclipped, [CFG(scale)]).denoise(x, 900, 2)
    with torch.no_grad():
        cond, uncond = (backend.unet(x, 900, torch.full((2,), label)).sample for label in (2, 4))
    torch.testing.assert_close(guided.prediction, uncond + scale * (cond - uncond))
    result = Sampler(backend, [CFG(scale)], num_inference_steps=3).sample(2, SEEDS)
    assert (result.stats.calls, result.stats.evaluated) == (3, 6)


def test_the_folder_may_say_which_label_means_none(labelled):
    (labelled / "labels.json").write_text('{"unconditional_label": 4}')
    assert load(labelled).encode(UNCONDITIONAL) == 4
    assert load(labelled, unconditional_label=0).encode(UNCONDITIONAL) == 0


def test_without_such_a_label_a_label_is_needed(labelled):
    sampler = Sampler(load(labelled), num_inference_steps=2)
    assert sampler.sample(4).x.isfinite().all()
    sampler.backend.unet.register_forward_pre_hook(lambda *a: pytest.fail("the model was called"))
    with pytest.raises(ValueError, match="needs a label.*from 0 to 4.*unconditional_label=4"):
        sampler.sample()


@pytest.mark.parametrize("bad", [5, -1, True, 1.5, "cat"])
def test_what_is_no_label(labelled, bad):
    with pytest.raises(ValueError, match=f"label from 0 to 4, got {bad!r}"):
        Sampler(load(labelled)).sample(bad)


def test_an_unconditional_model_takes_no_condition(tmp_path):
    with pytest.raises(ValueError, match="model is unconditional and cannot make 3; leave"):
        Sampler(load(write(tmp_path))).sample(3)


# Recipes.


def test_a_recipe_makes_the_same_call_again(labelled):
    backend = load(labelled, unconditional_label=4)
    sampler = Sampler(backend, [CFG(2.0)], DDPM("fixed_large"), num_inference_steps=2)
    result = sampler.sample(1, SEEDS)
    recipe = json.loads(json.dumps(result.recipe))
    assert recipe["backend"]["name"] == "diffusers"
    assert recipe["solver"] == {"solver": "ddpm", "options": {"variance": "fixed_large"}}
    again = Sampler.from_recipe(recipe).sample(**composer.call_of(recipe))
    assert torch.equal(again.x, result.x)


# The hub. Nothing is downloaded: the cache is laid out by hand, errors are raised by a stand-in.


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    return tmp_path


def test_a_hub_id_is_read_from_the_cache(cache):
    commit = "0123456789abcdef0123456789abcdef01234567"
    folder = cache / "models--someone--tiny"
    expected = ours(write(folder / "snapshots" / commit), 2)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text(commit)
    for options in ({}, {"revision": commit}):
        backend = load_diffusers("someone/tiny", local_files_only=True, **options)
        x = Sampler(backend, num_inference_steps=2).sample(seeds=SEEDS).x
        assert torch.equal(x, expected)
    with pytest.raises(ValueError, match="someone/tiny is no folder, and not all of it is in"):
        load_diffusers("someone/tiny", local_files_only=True, revision="other")


def test_a_hub_id_that_is_not_cached(cache):
    with pytest.raises(ValueError, match="not all of it is in the cache.*local_files_only=False"):
        load_diffusers("someone/nothing", local_files_only=True)


RESPONSE = SimpleNamespace(status_code=403, headers={}, request=None, text="")


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        ("GatedRepoError", "someone/it is gated: accept its licence at .*/someone/it and log in"),
        ("RepositoryNotFoundError", "neither a folder 'someone/it' nor such a model on the hub"),
        ("RevisionNotFoundError", "someone/it has no revision 'v2' on the hub"),
        ("HfHubHTTPError", "someone/it could not be downloaded .*; try again"),
    ],
)
def test_errors_of_the_hub_are_sentences(monkeypatch, error, sentence):
    from huggingface_hub import errors

    def fail(*args, **kwargs):
        raise getattr(errors, error)("the hub's own words", response=RESPONSE)

    monkeypatch.setattr("composer_plugins.backends.diffusers_unet.files.snapshot_download", fail)
    with pytest.raises(ValueError, match=sentence):
        load_diffusers("someone/it", revision="v2")


def test_no_network_is_a_sentence(monkeypatch):
    from huggingface_hub.errors import LocalEntryNotFoundError

    def fail(*args, **kwargs):
        raise LocalEntryNotFoundError("no network")

    monkeypatch.setattr("composer_plugins.backends.diffusers_unet.files.snapshot_download", fail)
    with pytest.raises(ValueError, match="the hub cannot be reached; connect, or name a folder"):
        load_diffusers("someone/it")


def test_only_what_is_needed_is_downloaded(tmp_path, monkeypatch):
    write(tmp_path)
    asked = []

    def snapshot(model, allow_patterns, **options):
        asked.append(allow_patterns)
        return str(tmp_path)

    monkeypatch.setattr(
        "composer_plugins.backends.diffusers_unet.files.snapshot_download", snapshot
    )
    load_diffusers("someone/it")
    configs, weights = asked
    assert all(pattern.endswith(".json") for pattern in configs)  # looked at before any weight
    assert all(p.endswith((".json", ".safetensors")) for p in weights)
    (tmp_path / "model_index.json").write_text('{"_class_name": "IFPipeline"}')
    asked.clear()
    with pytest.raises(ValueError, match="deepfloyd"):
        load_diffusers("someone/it")
    assert len(asked) == 1


# What is refused, each before any weight is read.


def edit(file, **changes):
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


def test_no_such_folder():
    for name in ("./nowhere", "a/b/c", "nowhere", "/nowhere/at/all"):
        with pytest.raises(ValueError, match=f"there is no folder {name!r}; name"):
            load(name)
    with pytest.raises(ValueError, match="there is no folder"):
        Source("a//b").fetch(())


def test_missing_files(tmp_path):
    with pytest.raises(ValueError, match=r"has neither unet/config\.json nor config\.json"):
        load(tmp_path)
    write(tmp_path)
    (tmp_path / "unet" / "diffusion_pytorch_model.safetensors").unlink()
    with pytest.raises(ValueError, match=r"has no diffusion_pytorch_model\.safetensors; fetch"):
        load(tmp_path)
    (tmp_path / "scheduler" / "scheduler_config.json").unlink()
    with pytest.raises(ValueError, match=r"neither scheduler/scheduler_config\.json.*scheduler="):
        load(tmp_path)


def test_damaged_files(tmp_path):
    write(tmp_path)
    weights = tmp_path / "unet" / "diffusion_pytorch_model.safetensors"
    content = weights.read_bytes()
    weights.write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match="unet cannot be read .*; fetch or write it anew"):
        load(tmp_path)
    tensors = {k: v for k, v in load_tensors(content).items() if k != "conv_in.bias"}
    save_file(tensors, weights, {"format": "pt"})
    with pytest.raises(
        ValueError, match=r"lack 1 of the tensors .* such as conv_in\.bias; the two"
    ):
        load(tmp_path)
    weights.write_bytes(content)
    edit(tmp_path / "unet" / "config.json", block_out_channels=[16, 16])
    with pytest.raises(ValueError, match="unet cannot be read"):
        load(tmp_path)
    for file in ("scheduler/scheduler_config.json", "unet/config.json", "model_index.json"):
        (tmp_path / file).write_text("{")
        with pytest.raises(ValueError, match=f"{file} is damaged"):
            load(tmp_path)


LATENT = {"vae": ["diffusers", "AutoencoderKL"], "unet": ["diffusers", "UNet2DConditionModel"]}


@pytest.mark.parametrize(
    ("index", "sentence"),
    [
        (
            {"_class_name": "StableDiffusionPipeline", **LATENT},
            "StableDiffusionPipeline .UNet2DConditionModel beside vae., which works on latents",
        ),
        (
            {"_class_name": "LDMPipeline", "vqvae": ["diffusers", "VQModel"]},
            "LDMPipeline .UNet2DModel beside vqvae.",
        ),
        ({"_class_name": "IFPipeline"}, r"IFPipeline: load_backend\('deepfloyd'\) is there for it"),
        (
            {"_class_name": "FluxPipeline", "unet": [None, None], "transformer": ["d", "Flux"]},
            "FluxPipeline .no UNet beside transformer.",
        ),
    ],
)
def test_other_pipelines(tmp_path, index, sentence):
    write(tmp_path)
    edit(tmp_path / "model_index.json", **index)
    with pytest.raises(ValueError, match=sentence):
        load(tmp_path)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"_class_name": "UNet2DConditionModel"}, "a UNet2DConditionModel, not a UNet2DModel"),
        ({"out_channels": 4}, "3 channels in and 4 out"),
        ({"in_channels": 6}, "6 channels in and 3 out"),
        ({"sample_size": None}, r"sample_size must be .* multiples of 2, got None"),
        ({"sample_size": 9}, "multiples of 2, got 9"),
        ({"sample_size": [8, 9]}, r"multiples of 2, got \[8, 9\]"),
        ({"sample_size": [8, 8, 8]}, "one number or .height, width."),
        ({"sample_size": "8"}, "got '8'"),
        ({"class_embed_type": "timestep"}, "class_embed_type 'timestep' is not supported"),
    ],
)
def test_unets_that_the_loop_cannot_drive(tmp_path, change, sentence):
    write(tmp_path)
    edit(tmp_path / "unet" / "config.json", **change)
    with pytest.raises(ValueError, match=sentence):
        load(tmp_path)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"_class_name": "UNet2DModel"}, "UNet2DModel is no scheduler of diffusers"),
        ({"beta_schedule": "wavy"}, "cannot be used .wavy is not implemented"),
        ({"prediction_type": "flow"}, "DDPMScheduler with prediction_type 'flow' has no path"),
        ({"variance_type": "learned_range"}, "variance_type is 'learned_range' and the UNet has 3"),
        ({"variance_type": "learned"}, "variance_type is 'learned'"),
        ({"timestep_spacing": "dense"}, "spacing must be one of"),
    ],
)
def test_schedulers_that_the_loop_cannot_follow(tmp_path, change, sentence):
    write(tmp_path)
    edit(tmp_path / "scheduler" / "scheduler_config.json", **change)
    with pytest.raises(ValueError, match=sentence):
        load(tmp_path)


def test_a_scheduler_without_betas(tmp_path):
    write(tmp_path)
    ScoreSdeVeScheduler().save_pretrained(tmp_path / "scheduler")
    with pytest.raises(ValueError, match="ScoreSdeVeScheduler .* use a DDPMScheduler"):
        load(tmp_path)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"dtype": "float8"}, "dtype must be one of"),
        ({"device": "toaster"}, "device 'toaster' is none that torch knows"),
        ({"unconditional_label": 0}, "unconditional_label is 0, but .* are none"),
        ({"revision": "main"}, "is a folder and has no revision"),
    ],
)
def test_options_that_cannot_be(tmp_path, options, sentence):
    write(tmp_path)
    with pytest.raises(ValueError, match=sentence):
        load(tmp_path, **options)
    with pytest.raises(TypeError, match="it takes"):
        load(tmp_path, attention_slicing=True)


def test_a_label_beyond_the_embedding(labelled):
    with pytest.raises(ValueError, match="unconditional_label is 5, but .* are 0 to 4"):
        load(labelled, unconditional_label=5)


def test_out_of_memory_says_what_to_lower(tmp_path):
    backend = load(write(tmp_path))

    def greedy(module, args):
        if len(args[0]) > 2:
            torch.empty(2**60)

    backend.unet.conv_in.register_forward_pre_hook(greedy)
    with pytest.raises(torch.OutOfMemoryError, match=r"3 images .* set Sampler\(max_rows=1\)"):
        Sampler(backend, num_inference_steps=2).sample(seeds=SEEDS)
    x = Sampler(backend, num_inference_steps=2, max_rows=2).sample(seeds=SEEDS).x
    assert x.isfinite().all()


def test_other_errors_of_the_network_are_its_own(tmp_path):
    backend = load(write(tmp_path))
    with pytest.raises(RuntimeError, match="channels"):
        backend.evaluate([Request(torch.zeros(1, 2, 8, 8), 3.0, UNCONDITIONAL)])
