"""load_backend("diffusers"): what it refuses, each in a sentence."""

import json

import pytest
import torch
from diffusers import ScoreSdeVeScheduler
from safetensors.torch import load as load_tensors
from safetensors.torch import save_file
from tiny_unet import load, write

from composer import UNCONDITIONAL, Request
from composer_plugins.backends.files import Source


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
    weights = tmp_path / "unet" / "diffusion_pytorch_model.safetensors"
    weights.rename(weights.with_stem(f"{weights.stem}.fp16"))
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


def test_a_label_beyond_the_embedding(tmp_path):
    with pytest.raises(ValueError, match="unconditional_label is 5, but .* are 0 to 4"):
        load(write(tmp_path, num_class_embeds=5), unconditional_label=5)


def test_other_errors_of_the_network_are_its_own(tmp_path):
    backend = load(write(tmp_path))
    with pytest.raises(RuntimeError, match="channels"):
        backend.evaluate([Request(torch.zeros(1, 2, 8, 8), 3.0, UNCONDITIONAL)])


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
