"""Latent models from their folders: options, embeddings, and what is no such model."""

import json
import shutil

import huggingface_hub
import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import save_file
from tiny_if import cut, empty, rewrite
from tiny_latent import SIZE, guided, load, run

import composer
from composer import Sampler
from composer_plugins import CFG
from composer_plugins.backends.deepfloyd.command import embed
from composer_plugins.backends.deepfloyd.embedding_files import read_embeddings
from composer_plugins.backends.latent import load_latent
from composer_plugins.backends.latent.text import packed, unpacked

PROMPT = "a photo of a Cat"
SCHEDULER = "scheduler/scheduler_config.json"
TOLERANCE = {"rtol": 0, "atol": 1e-5}


@pytest.fixture
def file(tmp_path):
    return tmp_path / "embeddings.safetensors"


@pytest.fixture
def spoilt(tiny_latent, tmp_path):
    """A function of a family, and of what is done to a copy of its folder -> the copy."""

    def copied(name, spoil):
        folder = shutil.copytree(tiny_latent(name)[1], tmp_path / name)
        spoil(folder)
        return folder

    return copied


def lacking(part, entry):
    """A function that takes an entry out of the configuration of a part."""

    def spoil(folder):
        file = folder / part / "config.json"
        config = json.loads(file.read_text())
        del config[entry]
        file.write_text(json.dumps(config))

    return spoil


def without_encoders(folder):
    for part in folder.glob("text_encoder*"):
        shutil.rmtree(part)
    for part in folder.glob("tokenizer*"):
        shutil.rmtree(part)


def sample(backend, steps=2, seeds=(0,)):
    return Sampler(backend, [CFG(3.0)], num_inference_steps=steps).sample(PROMPT, seeds)


@pytest.mark.parametrize("pooled", [0, 3, 8, 19])
def test_what_is_packed_is_unpacked(pooled):
    tokens, whole = torch.randn(1, 5, 8), torch.randn(1, pooled)
    text = packed((tokens, whole if pooled else None))
    assert text.shape == (1, 5 + -(-pooled // 8), 8)
    back, rest = unpacked(text, pooled)
    assert torch.equal(back, tokens[0])
    assert torch.equal(rest, whole[0])


@pytest.mark.parametrize("name", ["sd", "sdxl", "sd3", "flux-dev", "z-image"])
def test_kept_embeddings_need_no_encoder(tiny_latent, spoilt, name, file):
    """They are written by the command; prompts in other letters are other prompts."""
    folder = tiny_latent(name)[1]
    command = [PROMPT, PROMPT.lower(), "--model", str(folder), "--cache", str(file)]
    done = CliRunner().invoke(embed, command)
    assert "encoded 3 prompts, 3 are now in" in done.output
    kept = load(spoilt(name, without_encoders), file)
    assert kept.embeddings.encoder is None
    whole = load(folder, file.with_name("other.safetensors"))
    assert torch.equal(sample(kept).x, sample(whole).x)
    assert read_embeddings(file, str).keys() == {"", PROMPT, PROMPT.lower()}
    with pytest.raises(ValueError, match="'a dog' has no embedding .* and there is no text enc"):
        Sampler(kept).sample("a dog")


def test_embeddings_of_another_model_are_no_embeddings_of_this_one(tiny_latent, file):
    sample(load(tiny_latent("sd3")[1], file))
    with pytest.raises(ValueError, match="for a FluxPipeline, got .*sd3.*, for a StableDiffusion3"):
        load(tiny_latent("flux-dev")[1], file)
    save_file({"": torch.zeros(1, 5, 16)}, file.with_name("narrow.safetensors"))
    with pytest.raises(ValueError, match="Make it with the text encoder of this model"):
        load(tiny_latent("sd")[1], file.with_name("narrow.safetensors"))
    save_file({"": torch.zeros(1, 5, 32)}, file.with_name("nameless.safetensors"))
    load(tiny_latent("sd")[1], file.with_name("nameless.safetensors"))  # by hand, of any kind


def test_prompts_of_a_file_may_have_several_lengths(tiny_latent, file):
    """Each length is a call of the denoiser."""
    generator = torch.Generator().manual_seed(0)
    lengths = {"": 5, "short": 5, "long": 9}
    save_file({p: torch.randn(1, n, 32, generator=generator) for p, n in lengths.items()}, file)
    sampler = Sampler(load(tiny_latent("sd")[1], file), [CFG(3.0)], None, 2)
    together = sampler.sample(["long", "short"], [0, 1]).x
    alone = [sampler.sample(p, [seed]).x for seed, p in enumerate(("long", "short"))]
    torch.testing.assert_close(together, torch.cat(alone), **TOLERANCE)


def test_a_long_prompt_says_how_many_tokens_are_cut(tiny_latent, file):
    backend = load(tiny_latent("sd")[1], file)
    with pytest.warns(UserWarning, match="tokenizer reads 77 tokens .* the last 25 of the 102 of"):
        backend.encode("x" * 100)


def test_a_model_saved_without_t5_takes_zeros_in_its_place(tiny_latent, spoilt, file):
    def light(folder):
        shutil.rmtree(folder / "text_encoder_3")
        shutil.rmtree(folder / "tokenizer_3")
        none = [None, None]
        rewrite(folder / "model_index.json", text_encoder_3=none, tokenizer_3=none)

    pipeline = tiny_latent("sd3")[0]
    absent = {"text_encoder_3": None, "tokenizer_3": None}
    lighter = type(pipeline)(**{**pipeline.components, **absent})
    image, _ = run(lighter, "", PROMPT, 2, 3.0, (0,))
    ours = sample(load(spoilt("sd3", light), file)).x
    torch.testing.assert_close(ours.clamp(-1, 1), image, **TOLERANCE)


@pytest.mark.parametrize("name", ["sd", "sdxl", "sd3", "flux-dev", "z-image"])
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_is_near(tiny_latent, name, dtype, file):
    folder = tiny_latent(name)[1]
    exactly = load(folder, file)
    near = sample(exactly).x
    half = load(folder, file, dtype=dtype)
    far = sample(half).x
    assert next(half.network.parameters()).dtype == getattr(torch, dtype)
    kept = torch.bfloat16 if dtype == "bfloat16" else torch.float32  # it would overflow
    assert half.autoencoder.vae.dtype == kept
    assert 0 < (near - far).abs().max() < 0.3
    assert far.dtype == torch.float32


@pytest.mark.parametrize("name", ["sd", "sdxl", "sd3", "flux-dev", "z-image"])
def test_double_precision_is_exact(tiny_latent, name, file):
    """float32 rounds around it, and rows alone are the rows of a call to its rounding."""
    folder = tiny_latent(name)[1]
    single, double = (
        load(folder, file.with_name(f"{dtype}.safetensors"), dtype=dtype)
        for dtype in ("float32", "float64")
    )
    x = torch.randn(2, *single.shape, generator=torch.Generator().manual_seed(0))
    near, exactly, alone = (
        Sampler(backend, [CFG(3.0)], None, 2, max_rows).sample(PROMPT, (0, 1), x=noise).x
        for backend, max_rows, noise in (
            (single, None, x),
            (double, None, x.double()),
            (double, 1, x.double()),
        )
    )
    assert exactly.dtype == torch.float64
    torch.testing.assert_close(near, exactly.float(), rtol=0, atol=1e-4)
    torch.testing.assert_close(alone, exactly, rtol=0, atol=1e-12)


def test_offload_brings_layers_to_the_device(tiny_latent, file):
    folder = tiny_latent("sdxl")[1]
    plain, offloaded = (load(folder, file, offload=offload) for offload in (False, True))
    assert next(offloaded.network.parameters()).device.type == "meta"
    assert torch.equal(sample(plain).x, sample(offloaded).x)


def test_slices_are_the_whole_and_tiles_are_those_of_diffusers(tiny_latent, file):
    folder = tiny_latent("sd3")[1]
    images = torch.rand(2, 3, 48, 64, generator=torch.Generator().manual_seed(1)) * 2 - 1
    sliced, whole, tiled = (
        load(folder, file, size=(48, 64), vae_slicing=slicing, vae_tiling=tiling)
        for slicing, tiling in ((True, False), (False, False), (True, True))
    )
    latents = [backend.encode_image(images) for backend in (sliced, whole, tiled)]
    assert sliced.image_shape == (3, 48, 64)
    rows = []
    for backend in (sliced, whole):
        counted = backend.autoencoder.vae.decoder.register_forward_pre_hook(
            lambda _, given: rows.append(len(given[0]))
        )
        backend.decode(latents[0])
        counted.remove()
    assert rows == [1, 1, 2]
    assert latents[0].shape == (2, *sliced.shape) == (2, 16, 24, 32)
    torch.testing.assert_close(latents[0], latents[1], **TOLERANCE)
    torch.testing.assert_close(sliced.decode(latents[0]), whole.decode(latents[0]), **TOLERANCE)
    vae, gain, shift = whole.autoencoder.vae, whole.autoencoder.gain, whole.autoencoder.shift
    with torch.no_grad():  # random weights make of a tile another picture than of the whole
        expected = vae.tiled_decode(latents[0] * gain + shift).sample
    torch.testing.assert_close(tiled.decode(latents[0]), expected, **TOLERANCE)
    assert (expected - whole.decode(latents[0])).abs().max() > 0.01


@pytest.mark.parametrize("name", ["sd", "sdxl", "sd3", "flux-dev", "z-image"])
def test_an_image_may_be_higher_than_wide(tiny_latent, name, file):
    """As in the pipeline, which tells SDXL both sides, and Flux the places and a shift by them."""
    pipeline, folder = tiny_latent(name)
    image = pipeline(
        PROMPT,
        height=32,
        width=16,
        num_inference_steps=2,
        **guided(pipeline, 1.0),
        generator=torch.Generator().manual_seed(0),
        output_type="pt",
    ).images
    backend = load(folder, file, size=(32, 16))
    ours = Sampler(backend, num_inference_steps=2).sample(PROMPT).x
    torch.testing.assert_close(ours.clamp(-1, 1), image * 2 - 1, **TOLERANCE)


def test_a_recipe_loads_it_again(tiny_latent, file):
    options = {"model": str(tiny_latent("sd2")[1]), "size": SIZE, "embeddings": str(file)}
    result = sample(composer.load_backend("latent", **options))
    recipe = json.loads(json.dumps(result.recipe))
    again = Sampler.from_recipe(recipe, trust=True).sample(**composer.call_of(recipe))
    assert torch.equal(again.x, result.x)


@pytest.mark.parametrize(
    ("name", "spoil", "sentence"),
    [
        ("sd", lambda f: (f / "model_index.json").unlink(), "has no model_index.json. Name a fold"),
        (
            "sd",
            lambda f: rewrite(f / "model_index.json", _class_name="KolorsPipeline"),
            "is a KolorsPipeline, which no adapter knows. Load a pipeline of FluxPipeline, Stable",
        ),
        (
            "flux-dev",
            lambda f: rewrite(f / "model_index.json", transformer=["diffusers", "OtherModel"]),
            "transformer is 'OtherModel', and the adapter of FluxPipeline knows FluxTransformer2D",
        ),
        (
            "sd3",
            lambda f: rewrite(f / "model_index.json", vae=["diffusers", "AutoencoderTiny"]),
            "vae is 'AutoencoderTiny', and the adapter of StableDiffusion3Pipeline knows Autoencod",
        ),
        (
            "sdxl",
            lambda f: rewrite(f / "model_index.json", requires_aesthetics_score=True),
            "is a refiner",
        ),
        (
            "sd",
            lambda f: rewrite(f / "unet" / "config.json", time_cond_proj_dim=8),
            "time_cond_proj_dim",
        ),
        (
            "sd",
            lambda f: rewrite(f / "unet" / "config.json", in_channels=9),
            "the denoiser must take the 4 channels of the latents, got 9",
        ),
        (
            "flux-dev",
            lambda f: rewrite(
                f / "scheduler" / "scheduler_config.json", _class_name="DDIMScheduler"
            ),
            "must describe FlowMatchEulerDiscreteScheduler .* got DDIMScheduler",
        ),
        (
            "z-image",
            lambda f: rewrite(f / SCHEDULER, stochastic_sampling=True),
            "without stochastic_sampling",
        ),
        ("sd3", empty("scheduler"), "no file .*scheduler_config.json. Download or save the whole"),
        ("sd", empty("scheduler"), "no file .*scheduler_config.json. Download or save the whole"),
        ("sd", lacking("unet", "in_channels"), "unet/config.json has no entry 'in_channels'"),
        ("sd", lacking("unet", "cross_attention_dim"), "has no entry 'cross_attention_dim'"),
        ("flux-dev", lacking("vae", "block_out_channels"), "no entry 'block_out_channels'"),
        (
            "sdxl",
            lambda f: rewrite(f / "vae" / "config.json", scaling_factor=0),
            "vae/config.json cannot be used .scaling_factor must be a positive number, got 0",
        ),
        (
            "sd",
            lambda f: rewrite(f / "unet" / "config.json", in_channels="four"),
            "unet/config.json cannot be used .invalid literal",
        ),
        ("sd", empty("vae"), "has no vae/config.json"),
        ("sd", empty("unet"), "has no unet/config.json"),
        ("sd", cut("unet/diffusion_pytorch_model.safetensors"), "unet cannot be read"),
        ("z-image", cut("vae/diffusion_pytorch_model.safetensors"), "vae cannot be read"),
    ],
)
def test_what_is_no_such_model_is_said(spoilt, name, spoil, sentence, file):
    with pytest.raises(ValueError, match=sentence):
        load(spoilt(name, spoil), file)


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("sd", "tokenizer"),
        ("sdxl", "tokenizer_2"),
        ("sd3", "tokenizer_3"),
        ("flux-dev", "tokenizer"),
        ("flux-dev", "tokenizer_2"),
        ("z-image", "tokenizer"),
    ],
)
def test_a_tokenizer_without_its_files_encodes_nothing(spoilt, name, place, file):
    """diffusers would read an empty vocabulary, and its embeddings would be kept."""
    folder = spoilt(name, lambda folder: None)
    settings = folder / place / "tokenizer_config.json"
    kept = settings.read_bytes()
    settings.unlink()
    with pytest.raises(ValueError, match=f"no file .*{place}/tokenizer_config.json. Download it"):
        load(folder, file).encode(PROMPT)
    empty(place)(folder)
    settings.parent.mkdir(exist_ok=True)
    settings.write_bytes(kept)
    with pytest.raises(ValueError, match=f"{place} must have one of spiece.model, tokenizer.json"):
        load(folder, file).encode(PROMPT)
    assert not file.exists()


def test_no_weights_are_asked_for_before_the_embeddings_are_read(tiny_latent, file, monkeypatch):
    asked = []

    def download(model, *, allow_patterns, **options):
        asked.extend(allow_patterns)
        return str(tiny_latent("sd")[1])

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    file.write_bytes(b"junk")
    with pytest.raises(ValueError, match="embeddings.safetensors cannot be read"):
        load("owner/name", file)
    assert asked
    assert not [pattern for pattern in asked if "safetensors" in pattern]


def test_a_pipeline_of_no_backend_has_no_encoder_to_embed_with(spoilt, file):
    folder = spoilt("sd", lambda f: rewrite(f / "model_index.json", _class_name="KolorsPipeline"))
    done = CliRunner().invoke(embed, [PROMPT, "--model", str(folder), "--cache", str(file)])
    assert done.exit_code != 0
    assert "is a 'KolorsPipeline', whose text encoder no backend uses. Name a m" in done.output
    assert not file.exists()


@pytest.mark.parametrize("name", ["sd", "sd3", "z-image"])
def test_damaged_encoders_are_said_when_a_prompt_needs_them(spoilt, name, file):
    backend = load(spoilt(name, cut("text_encoder/model.safetensors")), file)
    with pytest.raises(ValueError, match="cannot be read .*Download it again"):
        backend.encode(PROMPT)


@pytest.mark.parametrize(
    ("name", "options", "error", "sentence"),
    [
        ("sd", {"size": 15}, ValueError, r"must be a multiple of 2, .* got 15. Take 16 in place"),
        ("flux-dev", {"size": (16, 18)}, ValueError, r"a multiple of 4, .* Take 16 in place of 18"),
        ("sd", {"size": (16, 16, 16)}, TypeError, "size must be one number, or height and width"),
        ("sd", {"size": 0}, ValueError, "size must be"),
        (
            "sd",
            {"guidance": 3.0},
            ValueError,
            r"must be None, got 3.0: .* Guide it with CFG",
        ),
        ("flux-schnell", {"guidance": 3.0}, ValueError, "guidance must be None"),
        ("flux-dev", {"guidance": float("nan")}, ValueError, "guidance must be"),
        ("sd", {"dtype": "int8"}, ValueError, "dtype"),
        ("sd", {"vae_tiling": 1}, TypeError, "vae_tiling"),
        ("sd", {"embeddings": 3}, TypeError, "embeddings must be a file, got int"),
    ],
)
def test_options_that_are_none(tiny_latent, file, name, options, error, sentence):
    with pytest.raises(error, match=sentence):
        load(tiny_latent(name)[1], **{"file": file, **options})


def test_no_folder_and_no_model_of_the_hub():
    with pytest.raises(ValueError, match="there is no folder 'nowhere'"):
        load_latent("nowhere")
    with pytest.raises(ValueError, match="is neither a folder nor complete in the cache"):
        load_latent("owner/name", local_files_only=True)


@pytest.fixture(params=["latent", "prx"])
def name(request):
    return request.param


@pytest.mark.parametrize(
    ("kind", "sentence"),
    [
        ("GatedRepoError", "owner/name is gated. Accept its licence at .*owner/name and log in"),
        ("RepositoryNotFoundError", "there is neither a folder 'owner/name' nor such a model"),
        ("OfflineModeIsEnabled", "there is no folder 'owner/name', and the hub cannot be reached"),
    ],
)
def test_errors_of_the_hub_name_the_backend_and_what_to_do(monkeypatch, name, kind, sentence):
    def fails(*args, **options):
        error = getattr(huggingface_hub.errors, kind)
        raise error.__new__(error)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fails)
    with pytest.raises(ValueError, match=f"^{name}: {sentence}"):
        composer.load_backend(name, model="owner/name")


@pytest.mark.parametrize(
    "options",
    [
        {"size": "large"},
        {"size": 0},
        {"size": (64, 64, 64)},
        {"dtype": "int8"},
        {"device": "abacus"},
        {"offload": 1},
        {"embeddings": 3},
        {"local_files_only": "no"},
    ],
    ids=str,
)
def test_options_that_are_none_raise_before_any_download(monkeypatch, name, options):
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *a, **o: pytest.fail("asked"))
    with pytest.raises((TypeError, ValueError), match=f"^{name}: "):
        composer.load_backend(name, model="owner/name", **options)


def test_an_unknown_pipeline_raises_before_its_weights_are_downloaded(monkeypatch, spoilt, file):
    other = spoilt("sd", lambda f: rewrite(f / "model_index.json", _class_name="KolorsPipeline"))
    asked = []

    def downloaded(model, allow_patterns, **options):
        asked.extend(allow_patterns)
        return str(other)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", downloaded)
    with pytest.raises(ValueError, match="^latent: .* is a KolorsPipeline, which no adapter knows"):
        composer.load_backend("latent", model="owner/name", embeddings=file)
    assert asked
    assert all(pattern.endswith(".json") for pattern in asked)


@pytest.mark.parametrize(
    ("part", "seeds", "sentence"),
    [
        ("network", (0, 1), r"Sampler: 2 images of \(16, 8, 8\) .* Set Sampler.max_rows=1"),
        ("network", (0,), "Sampler: 1 images .* Load it with dtype='bfloat16' or offload=True."),
        ("vae", (0,), "Sampler: 1 images .* Load it with vae_tiling=True or with offload=True."),
    ],
)
def test_out_of_memory_says_what_to_change(tiny_latent, monkeypatch, file, part, seeds, sentence):
    def full(*args, **options):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")

    backend = load(tiny_latent("sd3")[1], file)
    backend.encode(PROMPT)
    network = backend.network if part == "network" else backend.autoencoder.vae.decoder
    monkeypatch.setattr(network, "forward", full)
    with pytest.raises(torch.OutOfMemoryError, match=sentence):
        Sampler(backend, [], num_inference_steps=2).sample(PROMPT, seeds)


def test_sizes_are_those_of_the_model(tiny_latent, file):
    for name, expected in (("sd", SIZE), ("sd3", SIZE), ("flux-dev", 256), ("z-image", 256)):
        backend = load_latent(
            tiny_latent(name)[1], embeddings=file.with_name(f"{name}.safetensors")
        )
        assert backend.image_shape == (3, expected, expected)
