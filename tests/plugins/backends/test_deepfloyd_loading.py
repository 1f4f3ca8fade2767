"""Loading DeepFloyd IF: what is read, in what, and a sentence for each thing that goes wrong."""

import contextlib
import json
import sys

import huggingface_hub
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from tiny_if import cut, empty, rewrite

import composer
from composer import Sampler
from composer_plugins import CFG
from composer_plugins.backends.deepfloyd import load_deepfloyd

PROMPT = "a photo of a cat"


def test_a_recipe_loads_it_again(tiny_if, embedded):
    backend = composer.load_backend("deepfloyd", model=str(tiny_if[1]), embeddings=str(embedded))
    result = Sampler(backend, [CFG(3.0)], num_inference_steps=2).sample(PROMPT)
    recipe = json.loads(json.dumps(result.recipe))
    again = Sampler.from_recipe(recipe, trust=True).sample(**composer.call_of(recipe))
    assert torch.equal(again.x, result.x)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_is_near(tiny_if, embedded, dtype):
    """float32 in the loop, so no step of the schedule is lost; the network's own error remains."""
    x = torch.randn(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    exact, half = (
        Sampler(load_deepfloyd(tiny_if[1], embeddings=embedded, dtype=d)).denoise(x, 500.0, PROMPT)
        for d in ("float32", dtype)
    )
    assert half.x0.dtype == torch.float32
    assert (half.x0 - exact.x0).abs().max() < 0.1
    assert (half.x0 - exact.x0).abs().max() > 0


def test_a_text_encoder_that_says_float16_is_read_in_the_dtype_asked(folder, tmp_path):
    """Its own dtype beside a float32 UNet would be a crash of Half and Float."""
    rewrite(folder / "text_encoder" / "config.json", dtype="float16", torch_dtype="float16")
    backend = load_deepfloyd(folder, embeddings=tmp_path / "x.safetensors")
    Sampler(backend, [CFG(3.0)], num_inference_steps=1).sample(PROMPT)
    assert backend.embeddings[PROMPT].dtype == torch.float32


def test_a_safety_checker_that_cannot_be_read_does_not_matter(folder, embedded):
    """transformers 5 cannot read IF's; here it is never tried, nor a watermarker."""
    rewrite(
        folder / "model_index.json",
        safety_checker=["deepfloyd_if", "IFSafetyChecker"],
        feature_extractor=["transformers", "CLIPImageProcessor"],
        watermarker=["deepfloyd_if", "IFWatermarker"],
    )
    (folder / "safety_checker").mkdir()
    (folder / "safety_checker" / "config.json").write_text("{")
    backend = load_deepfloyd(folder, embeddings=embedded)
    assert Sampler(backend, num_inference_steps=1).sample(PROMPT).images[0].size == (16, 16)


def test_offload_brings_layers_to_the_device(tiny_if, embedded):
    """On one device it changes nothing but where the weights wait."""
    plain = load_deepfloyd(tiny_if[1], embeddings=embedded)
    offloaded = load_deepfloyd(tiny_if[1], embeddings=embedded, offload=True)
    assert offloaded.unet.conv_in.weight.device.type == "meta"
    images = [
        Sampler(b, [CFG(3.0)], num_inference_steps=2).sample(PROMPT).x for b in (plain, offloaded)
    ]
    assert torch.equal(*images)


def test_other_sizes_are_multiples(tiny_if, embedded):
    backend = load_deepfloyd(tiny_if[1], embeddings=embedded, size=24)
    assert Sampler(backend, num_inference_steps=1).sample(PROMPT).x.shape == (1, 3, 24, 24)
    with pytest.raises(ValueError, match="size must be a multiple of 2, got 17"):
        load_deepfloyd(tiny_if[1], embeddings=embedded, size=17)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"stage": 4}, "stage must be 1 .* 2 .* or 3"),
        ({"stage": [1]}, "stage must be 1 .* 2 .* or 3"),
        ({"stage": True}, "stage must be 1 .* 2 .* or 3"),
        ({"model": ""}, "model must not be empty. Name a folder"),
        ({"stage": 3}, "got stage 1. Load it with stage=1"),
        ({"stage": 2}, "got stage 1. Load it with stage=1"),
        (
            {"variant": "fp16"},
            r"no .*\.fp16\.safetensors. It has .*model\.safetensors: choose anot",
        ),
        ({"dtype": "half"}, "dtype must be one of"),
        ({"device": "cuda:99"}, "device 'cuda:99' is not available"),
        ({"model": "no/such/folder"}, "there is no folder 'no/such/folder'"),
    ],
)
def test_bad_options_raise(tiny_if, embedded, options, sentence):
    with pytest.raises(ValueError, match=sentence):
        load_deepfloyd(**{"model": tiny_if[1], "embeddings": embedded, **options})


def spoil_weights(folder):
    file = folder / "unet" / "diffusion_pytorch_model.safetensors"
    weights = load_file(file)
    weights.pop("conv_in.weight")
    save_file(weights, file)


def no_weights(folder):
    (folder / "unet" / "diffusion_pytorch_model.safetensors").unlink()


def other(file, **changes):
    return lambda folder: rewrite(folder / file, **changes)


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (empty("unet"), "IF has no unet/config.json. Name a folder written by save_pretrained"),
        (empty("scheduler"), "IF has no scheduler/scheduler_config.json"),
        (
            cut("unet/config.json"),
            r"config.json is damaged \(Unterm[^;]*. Download or write it again.$",
        ),
        (
            cut("unet/diffusion_pytorch_model.safetensors"),
            "cannot be read .its weights are damaged",
        ),
        (cut("scheduler/scheduler_config.json"), "damaged"),
        (no_weights, r"unet has no diffusion_pytorch_model\.safetensors. Download it again"),
        (spoil_weights, "lack 1 of the tensors .* such as conv_in.weight"),
        (
            other("unet/config.json", block_out_channels=[32, 96]),
            "its weights have other shapes",
        ),
        (other("unet/config.json", in_channels=[3]), "must be a stage of IF"),
        (
            other("unet/config.json", sample_size=None),
            "json: sample_size must be a whole number",
        ),
        (
            other("unet/config.json", encoder_hid_dim="x"),
            "encoder_hid_dim or .* must be a whole",
        ),
        (other("unet/config.json", in_channels=4), "must be a stage of IF .* got a .* with 4 in"),
        (
            other("unet/config.json", _class_name="UNet2DModel"),
            "must be a stage of IF .* got a UNet2DModel",
        ),
        (other("scheduler/scheduler_config.json", variance_type="fixed_small"), "'learned_range'"),
        (other("scheduler/scheduler_config.json", beta_schedule="cubic"), "cannot be used"),
        (other("scheduler/scheduler_config.json", num_train_timesteps=0), "cannot be used"),
        (other("scheduler/scheduler_config.json", timestep_spacing="foo"), "cannot be used"),
        (other("scheduler/scheduler_config.json", steps_offset="foo"), "cannot be used"),
        (other("scheduler/scheduler_config.json", sample_max_value=0.5), "cannot be used"),
        (
            other("scheduler/scheduler_config.json", beta_start="a", beta_schedule="linear"),
            "cannot be used",
        ),
    ],
)
def test_wrong_or_missing_parts_are_a_sentence(folder, embedded, spoil, sentence):
    spoil(folder)
    with pytest.raises(ValueError, match=sentence):
        load_deepfloyd(folder, embeddings=embedded)


def test_offload_without_accelerate_says_so(tiny_if, embedded, monkeypatch):
    monkeypatch.setitem(sys.modules, "accelerate", None)
    with pytest.raises(ValueError, match=r"offload=True needs accelerate: pip install"):
        load_deepfloyd(tiny_if[1], embeddings=embedded, offload=True)


def test_a_gated_repository_says_what_to_do(monkeypatch, embedded):
    def gated(*args, **options):
        error = huggingface_hub.errors.GatedRepoError.__new__(huggingface_hub.errors.GatedRepoError)
        raise error

    monkeypatch.setattr(huggingface_hub, "snapshot_download", gated)
    with pytest.raises(ValueError, match="IF-I-XL-v1.0 is gated. Accept its licence .* log in"):
        load_deepfloyd(embeddings=embedded)


def test_what_is_not_in_the_cache_of_the_hub_says_so(monkeypatch, tmp_path, embedded):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ValueError, match=r"neither a folder nor complete in the cache of the hub"):
        load_deepfloyd(embeddings=embedded, local_files_only=True)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.\nGPU 0"),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"),
    ],
)
def test_weights_that_do_not_fit_say_what_takes_less(tiny_if, tmp_path, monkeypatch, error):
    """It is no fault of the files, and fetching them anew would not help."""
    backend = load_deepfloyd(tiny_if[1], embeddings=tmp_path / "x.safetensors")

    def exhausted(*args, **options):
        raise error

    monkeypatch.setattr(transformers.T5EncoderModel, "from_pretrained", exhausted)
    with pytest.raises(torch.OutOfMemoryError, match="text_encoder exceed .* text_8bit=True"):
        backend.encode(PROMPT)
    monkeypatch.setattr(torch.nn.Module, "to", exhausted)
    with pytest.raises(torch.OutOfMemoryError, match="unet exceed the memory. .* offload=True"):
        load_deepfloyd(tiny_if[1], embeddings=tmp_path / "x.safetensors")


def test_a_model_is_a_folder_or_a_name(embedded):
    with pytest.raises(TypeError, match="model must be a folder, or a model of the hub .* got int"):
        load_deepfloyd(3, embeddings=embedded)


@pytest.mark.parametrize("switch", ["offload", "local_files_only", "thresholding", "text_8bit"])
def test_switches_are_true_or_false(folder, switch):
    with pytest.raises(TypeError, match=f"{switch} must be True or False, got 'no'"):
        load_deepfloyd(folder, **{switch: "no"})


def test_code_in_a_model_s_folder_is_not_run(folder, tmp_path, monkeypatch):
    """transformers asks at the terminal whether to run it, and runs it after a "y"."""
    ran = tmp_path / "ran"
    (folder / "tokenizer" / "mine.py").write_text(f"open({str(ran)!r}, 'w')\nclass Mine: ...\n")
    rewrite(
        folder / "tokenizer" / "tokenizer_config.json",
        tokenizer_class="Mine",
        auto_map={"AutoTokenizer": ["mine.Mine", None]},
    )
    monkeypatch.setattr("builtins.input", lambda *_: "y")
    backend = load_deepfloyd(folder, embeddings=tmp_path / "x.safetensors")
    with contextlib.suppress(ValueError):  # or it is read as what it is without the code
        backend.encode(PROMPT)
    assert not ran.exists()
