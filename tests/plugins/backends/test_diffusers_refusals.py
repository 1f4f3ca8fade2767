"""load_backend("diffusers"): what it refuses, each in a sentence."""

import json
import re

import pytest
import torch
from diffusers import DDPMScheduler, ScoreSdeVeScheduler
from safetensors.torch import load as load_tensors
from safetensors.torch import save_file
from tiny_unet import load, write

from composer import UNCONDITIONAL, Request
from composer.model import evaluated
from composer_plugins.backends.files import Source


def edit(file, **changes):
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


def test_no_such_folder():
    for name in ("./nowhere", "a/b/c", "nowhere", "/nowhere/at/all"):
        with pytest.raises(ValueError, match=f"there is no folder {name!r}. Name"):
            load(name)
    with pytest.raises(ValueError, match="there is no folder"):
        Source("a//b").fetch(())


def test_missing_files(tmp_path):
    with pytest.raises(ValueError, match=r"has neither unet/config\.json nor config\.json"):
        load(tmp_path)
    write(tmp_path)
    weights = tmp_path / "unet" / "diffusion_pytorch_model.safetensors"
    weights.rename(weights.with_stem(f"{weights.stem}.fp16"))
    with pytest.raises(ValueError, match=r"has no diffusion_pytorch_model\.safetensors. Download"):
        load(tmp_path)
    (tmp_path / "scheduler" / "scheduler_config.json").unlink()
    with pytest.raises(ValueError, match=r"neither scheduler/scheduler_config\.json.*scheduler="):
        load(tmp_path)


def test_damaged_files(tmp_path):
    write(tmp_path)
    weights = tmp_path / "unet" / "diffusion_pytorch_model.safetensors"
    content = weights.read_bytes()
    weights.write_bytes(content[: len(content) // 2])
    with pytest.raises(
        ValueError, match="unet cannot be read .* damaged .*Download or write it again"
    ):
        load(tmp_path)
    tensors = {k: v for k, v in load_tensors(content).items() if k != "conv_in.bias"}
    save_file(tensors, weights, {"format": "pt"})
    with pytest.raises(
        ValueError, match=r"lack 1 of the tensors .* such as conv_in\.bias. The two"
    ):
        load(tmp_path)
    weights.write_bytes(content)
    edit(tmp_path / "unet" / "config.json", block_out_channels=[16, 16])
    with pytest.raises(
        ValueError, match=r"do not fit its config\.json .size mismatch for conv_in\.\w+.. The two"
    ):
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
            "of pixels, got StableDiffusionPipeline .UNet2DConditionModel beside vae",
        ),
        (
            {"_class_name": "LDMPipeline", "vqvae": ["diffusers", "VQModel"]},
            "LDMPipeline .UNet2DModel beside vqvae.",
        ),
        ({"_class_name": "IFPipeline"}, r"got IFPipeline. Use load_backend\('deepf"),
        (
            {"_class_name": "FluxPipeline", "unet": [None, None], "transformer": ["d", "Flux"]},
            "FluxPipeline .no UNet beside transformer.",
        ),
        ({"unet": ["x"]}, r"json: unet must be \[library, class\], got \['x'\]"),
        ({"scheduler": []}, r"json: scheduler must be \[library, class\], got \[\]"),
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
        (
            {"_class_name": "UNet2DConditionModel"},
            "must describe a UNet2DModel, got UNet2DConditionModel",
        ),
        ({"out_channels": 4}, "out_channels must be 3 as in_channels, .* got 4"),
        ({"in_channels": 6}, "out_channels must be 6 as in_channels, .* got 3"),
        ({"sample_size": None}, r"sample_size must be .* multiples of 2, got None"),
        ({"sample_size": 9}, "multiples of 2, got 9"),
        ({"sample_size": [8, 9]}, r"multiples of 2, got \[8, 9\]"),
        ({"sample_size": [8, 8, 8]}, "one number or .height, width."),
        ({"sample_size": "8"}, "got '8'"),
        ({"class_embed_type": "timestep"}, "class_embed_type must be None, got 'timestep'"),
        ({"block_out_channels": None}, r"json cannot be used .block_out_channels must be a list"),
        ({"block_out_channels": []}, "block_out_channels must not be empty.*Correct it."),
        ({"block_out_channels": ["a"]}, "each of block_out_channels must be an integer, got 'a'"),
        ({"time_embedding_type": "foo"}, "time_embedding_type must be one of .*, got 'foo'"),
        ({"norm_num_groups": 3}, "unet cannot be read .*Download or write it again"),
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
        ({"_class_name": "UNet2DModel"}, "must be a scheduler of diffusers, got UNet2DModel"),
        ({"beta_schedule": "wavy"}, "cannot be used .wavy is not implemented"),
        (
            {"prediction_type": "flow"},
            "must have betas and a prediction_type .* got DDPMScheduler with 'flow'",
        ),
        (
            {"variance_type": "learned_range"},
            "variance_type 'learned_range' does not fit the UNet's 3",
        ),
        ({"variance_type": "learned"}, "variance_type 'learned' does not fit"),
        ({"timestep_spacing": "dense"}, "spacing must be one of"),
        (
            {"prediction_type": ["epsilon"]},
            r"must have betas and a prediction_type .* with \['epsilon'\]",
        ),
        ({"_class_name": "SchedulerMixin"}, "must be a scheduler of diffusers, got SchedulerMixin"),
        ({"_class_name": "RePaintScheduler"}, "needs original_image and mask, wh"),
        ({"trained_betas": []}, "cannot be used .alphas_cumprod must be a list of T numbers"),
    ],
)
def test_schedulers_that_the_loop_cannot_follow(tmp_path, change, sentence):
    write(tmp_path)
    edit(tmp_path / "scheduler" / "scheduler_config.json", **change)
    with pytest.raises(ValueError, match=sentence):
        load(tmp_path)


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("num_train_timesteps", 0, "an integer of at least 1"),
        ("num_train_timesteps", "a", "an integer"),
        ("steps_offset", "a", "an integer"),
        ("steps_offset", -5, "an integer of at least 0"),
        ("beta_start", "a", "a number"),
        ("beta_start", -3, "from 0 to 1"),
        ("beta_end", 2, "from 0 to 1"),
        ("variance_type", "foo", "one of .*"),
        ("clip_sample", "no", "True or False"),
        ("clip_sample_range", "a", "a number"),
        ("clip_sample_range", 0, "a positive number"),
        ("clip_sample_range", -1, "a positive number"),
        ("thresholding", "no", "True or False"),
        ("rescale_betas_zero_snr", 1, "True or False"),
        ("dynamic_thresholding_ratio", 2, "from 0 to 1"),
        ("dynamic_thresholding_ratio", "a", "a number"),
        ("sample_max_value", 0.5, "at least 1"),
    ],
)
def test_settings_that_no_scheduler_follows(tmp_path, key, value, words):
    write(
        tmp_path,
        DDPMScheduler(thresholding=key in ("dynamic_thresholding_ratio", "sample_max_value")),
    )
    edit(tmp_path / "scheduler" / "scheduler_config.json", **{key: value})
    sentence = (
        f"scheduler_config.json cannot be used ({key} must be {words}, got {value!r}). Correct it."
    )
    pattern = re.escape(sentence).replace(re.escape(".*"), ".*") + "$"
    with pytest.raises(ValueError, match=pattern):
        load(tmp_path)


@pytest.mark.parametrize(
    "settings",
    [
        {"sample_max_value": 0.5, "dynamic_thresholding_ratio": 2},
        {"clip_sample": False, "clip_sample_range": None},
        {"variance_type": None},
    ],
)
def test_settings_that_are_off_are_no_matter(tmp_path, settings):
    write(tmp_path)
    edit(tmp_path / "scheduler" / "scheduler_config.json", **settings)
    assert load(tmp_path).shape == (3, 8, 8)


def test_a_learned_time_embedding_knows_all_times_of_the_scheduler(tmp_path):
    learned = {"time_embedding_type": "learned", "num_train_timesteps": 1000}
    write(tmp_path, DDPMScheduler(num_train_timesteps=2000), **learned)
    with pytest.raises(
        ValueError, match="must have 2000 times .* got num_train_timesteps=1000. The two"
    ):
        load(tmp_path)


def test_a_scheduler_without_betas(tmp_path):
    write(tmp_path)
    ScoreSdeVeScheduler().save_pretrained(tmp_path / "scheduler")
    with pytest.raises(ValueError, match="ScoreSdeVeScheduler .* Use for example a DDPMScheduler"):
        load(tmp_path)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"dtype": "float8"}, "dtype must be one of"),
        ({"device": "toaster"}, "device must be a name that torch knows, got 'toaster'"),
        ({"unconditional_label": 0}, "unconditional_label must be .*none.*, got 0"),
        ({"revision": "main"}, "revision must be None for the folder"),
    ],
)
def test_options_that_cannot_be(tmp_path, options, sentence):
    write(tmp_path)
    with pytest.raises(ValueError, match=sentence):
        load(tmp_path, **options)
    with pytest.raises(TypeError, match="has no option .attention_slicing"):
        load(tmp_path, attention_slicing=True)


@pytest.mark.parametrize(
    ("scheduler", "got"), [(DDPMScheduler(), "DDPMScheduler"), (3, "int"), ("", "an empty name")]
)
def test_a_scheduler_is_named(tmp_path, scheduler, got):
    with pytest.raises(
        TypeError, match=f"scheduler must be the name of a folder, got {got}. Correct"
    ):
        load(write(tmp_path), scheduler=scheduler)


def test_a_label_beyond_the_embedding(tmp_path):
    with pytest.raises(ValueError, match="unconditional_label must be .*0 to 4.*, got 5"):
        load(write(tmp_path, num_class_embeds=5), unconditional_label=5)


def test_other_errors_of_the_network_are_its_own(tmp_path):
    backend = load(write(tmp_path))
    with pytest.raises(RuntimeError, match="channels"):
        evaluated(backend, [Request(torch.zeros(1, 2, 8, 8), 3.0, UNCONDITIONAL)])


@pytest.mark.parametrize(
    "names", ["cat", ["cat", "cat"], ["cat", 3], ["a", "b", "c", "d", "e", "f"]]
)
def test_names_that_cannot_be_the_labels(tmp_path, names):
    write(tmp_path, num_class_embeds=5)
    (tmp_path / "labels.json").write_text(json.dumps({"labels": names}))
    with pytest.raises(
        ValueError, match=r"labels\.json: labels must be different names, at most 5"
    ):
        load(tmp_path)


@pytest.mark.parametrize(
    "settings",
    [
        {"beta_schedule": "squaredcos_cap_v2", "beta_start": None, "beta_end": 2.0},
        {"trained_betas": [0.01] * 1000, "beta_start": -1.0},
        {"sample_max_value": 0.1},
        {"clip_sample": False, "clip_sample_range": None},
    ],
)
def test_what_a_scheduler_does_not_look_at_may_be_anything(tmp_path, settings):
    write(tmp_path)
    edit(tmp_path / "scheduler" / "scheduler_config.json", **settings)
    assert load(tmp_path).schedule.at(0)[0] > 0.9
