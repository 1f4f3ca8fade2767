"""PRXPixel: equal to its pipeline, and what it refuses."""

import copy
import json
import pickle
import shutil

import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file, save_file

diffusers = pytest.importorskip("diffusers", minversion="0.42")
import tiny_prx  # noqa: E402

import composer  # noqa: E402
from composer import UNCONDITIONAL, Sampler  # noqa: E402
from composer.schedules import FlowSchedule  # noqa: E402
from composer.solvers import DDIM, DPMSolverPP, Heun  # noqa: E402
from composer.testing import check_backend  # noqa: E402
from composer_plugins import CFG, Anagram, Inpaint, SDEdit  # noqa: E402
from composer_plugins.backends.deepfloyd.command import embed  # noqa: E402
from composer_plugins.backends.pixel_flow import load_prx  # noqa: E402
from composer_plugins.backends.pixel_flow.backend import padded  # noqa: E402

PROMPT, OTHER = "a photo of a cat", "the old dog in the snow"


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """Folders of a tiny PRXPixel by whether a token ends its prompts."""
    place = tmp_path_factory.mktemp("prx")
    return {ending: tiny_prx.build(place / str(ending), ending) for ending in (True, False)}


@pytest.fixture(scope="module")
def backend(tiny, tmp_path_factory):
    return load_prx(tiny[True], embeddings=tmp_path_factory.mktemp("text") / "cache.safetensors")


def pipeline_of(folder):
    pipeline = diffusers.PRXPixelPipeline.from_pretrained(folder)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def theirs(folder, prompts, steps, scale, x):
    """The pipeline's images from the noise x."""
    return pipeline_of(folder)(
        prompts,
        num_inference_steps=steps,
        guidance_scale=scale,
        latents=x,
        height=x.shape[2],
        width=x.shape[3],
        use_resolution_binning=False,
        output_type="pt",
    ).images


def begun(sampler, seeds):
    """The noise that a run begins with."""
    return sampler.backend.schedule.noise_scale * torch.cat(
        [
            torch.randn(1, *sampler.backend.shape, generator=torch.Generator().manual_seed(seed))
            for seed in seeds
        ]
    )


@pytest.mark.parametrize("ending", [True, False])
@pytest.mark.parametrize(("steps", "scale"), [(4, 4.0), (12, 4.0), (28, 4.0), (12, 1.0)])
def test_samples_are_the_pipeline_s(tiny, tmp_path, steps, scale, ending):
    """Of two prompts in one call, where the empty one is a token, or none; the pipeline guides one
    prompt a call."""
    backend = load_prx(tiny[ending], embeddings=tmp_path / "x.safetensors")
    sampler = Sampler(backend, [CFG(scale)], num_inference_steps=steps)
    ours = sampler.sample([PROMPT, OTHER], seeds=[3, 8]).x
    right = torch.cat(
        [
            theirs(tiny[ending], prompt, steps, scale, begun(sampler, [seed]))
            for prompt, seed in ((PROMPT, 3), (OTHER, 8))
        ]
    )
    torch.testing.assert_close(ours, right, rtol=1e-5, atol=1e-5)
    assert right.std() > 0.1


def test_the_tiny_model_hears_its_prompts(backend):
    """Or equality would prove little."""
    sampler = Sampler(backend, num_inference_steps=4)
    images = [sampler.sample(c).x for c in (PROMPT, OTHER, "Hat", "hat", UNCONDITIONAL)]
    for k, one in enumerate(images):
        assert all((one - other).abs().max() > 1e-3 for other in images[:k])


def test_it_keeps_the_contract_of_backends(backend):
    check_backend(backend, [PROMPT, OTHER], trained=False)


def test_the_last_step_is_bounded_as_in_the_pipeline(backend):
    """x + (s' - s) (x - x_0) / max(s, .05): at s = .01 a fifth of the way."""
    x = torch.randn(1, *backend.shape)
    for s in (0.01, 0.05, 0.5):
        got = Sampler(backend).denoise(x, 1 - s, PROMPT).x0
        text = backend.embeddings[PROMPT]
        with torch.no_grad():
            x0 = backend.network(x, torch.tensor([s]), text, return_dict=False)[0]
        expected = x - s * (x - x0) / max(s, 0.05)
        torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)


def test_its_path_is_read_from_its_files(tiny, tmp_path):
    folder = shutil.copytree(tiny[True], tmp_path / "other")
    for name, key, value in (
        ("scheduler/scheduler_config.json", "shift", 5.0),
        ("model_index.json", "noise_scale", 8.0),
    ):
        written = json.loads((folder / name).read_text())
        (folder / name).write_text(json.dumps({**written, key: value}))
    backend = load_prx(folder, embeddings=tmp_path / "x.safetensors")
    least = 5 / 1000 / (1 + 4 / 1000)
    assert backend.schedule == FlowSchedule(noise_scale=8.0, shift=5.0, last=least)
    sampler = Sampler(backend, [CFG(4.0)], num_inference_steps=6)
    right = theirs(folder, PROMPT, 6, 4.0, begun(sampler, [0]))
    torch.testing.assert_close(sampler.sample(PROMPT).x, right, rtol=1e-4, atol=1e-4)


def test_images_need_not_be_square(tiny, tmp_path):
    backend = load_prx(tiny[True], size=(16, 24), embeddings=tmp_path / "x.safetensors")
    assert backend.shape == (3, 16, 24)
    sampler = Sampler(backend, [CFG(4.0)], num_inference_steps=4)
    right = theirs(tiny[True], PROMPT, 4, 4.0, begun(sampler, [0]))
    torch.testing.assert_close(sampler.sample(PROMPT).x, right, rtol=1e-5, atol=1e-5)


def test_views_are_exact(backend):
    """Of one view, the identity, an anagram is plain guidance; of two, it commutes with that and
    asks four rows a step."""
    plain = Sampler(backend, [CFG(4.0)], num_inference_steps=4).sample(PROMPT).x
    twice = Sampler(backend, [Anagram({"identity": PROMPT}), CFG(4.0)], num_inference_steps=4)
    torch.testing.assert_close(twice.sample().x, plain, rtol=1e-5, atol=1e-5)
    inner = [Anagram({"identity": PROMPT, "rotate_180": OTHER}), CFG(4.0)]
    inside, outside = (
        Sampler(backend, stack, num_inference_steps=4).sample() for stack in (inner, inner[::-1])
    )
    torch.testing.assert_close(inside.x, outside.x, rtol=1e-4, atol=1e-4)
    assert (inside.stats.calls, inside.stats.rows) == (4, 16)


@pytest.mark.parametrize("solver", [DDIM(1.0), Heun(), DPMSolverPP()])
def test_other_solvers_and_editing_run(backend, solver):
    image = torch.full((3, 16, 16), 0.5)
    mask = torch.zeros(16, 16)
    mask[:, 8:] = 1
    for plugin in (SDEdit(image, strength=0.7), Inpaint(image, mask)):
        x = Sampler(backend, [plugin, CFG(4.0)], solver, num_inference_steps=5).sample(PROMPT).x
        assert x.isfinite().all()
    assert torch.equal(x[0, :, :, :8], image[:, :, :8])


def test_embeddings_are_kept_without_padding(tiny, tmp_path):
    file = tmp_path / "kept.safetensors"
    arguments = [PROMPT, "--model", str(tiny[True]), "--cache", str(file)]
    assert "encoded 2 prompts" in CliRunner().invoke(embed, arguments).output
    stored = load_file(file)
    lengths = {prompt: text.shape[1] for prompt, text in stored.items()}
    assert lengths == {"": 1, PROMPT: 6}
    folder = shutil.copytree(tiny[True], tmp_path / "without")
    shutil.rmtree(folder / "text_encoder")
    known = load_prx(folder, embeddings=file)
    assert known.embeddings.encoder is None
    fresh = load_prx(tiny[True], embeddings=tmp_path / "fresh.safetensors")
    a, b = (Sampler(m, [CFG(4.0)], num_inference_steps=2).sample(PROMPT).x for m in (known, fresh))
    torch.testing.assert_close(a, b)
    with pytest.raises(ValueError, match="'the hat' has no embedding in .*composer embed"):
        known.encode("the hat")


def test_padding_is_masked():
    one, other = torch.ones(2, 3), torch.ones(4, 3)
    text, mask = padded([one, other])
    assert text.shape == (2, 4, 3)
    assert mask.tolist() == [[True, True, False, False], [True] * 4]
    assert padded([one, one])[1] is None


def test_a_long_prompt_says_how_much_is_cut(tiny, tmp_path):
    backend = load_prx(tiny[True], embeddings=tmp_path / "x.safetensors")
    with pytest.warns(UserWarning, match=r"reads 8 tokens of a prompt; the last 5 of 13 of 'a a a"):
        backend.encode("a " * 11 + "hat")


def test_prompts_are_cleaned_as_in_the_pipeline(tiny, tmp_path):
    backend = load_prx(tiny[True], embeddings=tmp_path / "x.safetensors")
    clean, raw = (backend.embeddings[backend.encode(p)] for p in ("the hat", " the&amp;#32;hat "))
    torch.testing.assert_close(clean, raw)


def spoilt(file, **changes):
    def spoil(folder):
        written = json.loads((folder / file).read_text())
        (folder / file).write_text(json.dumps({**written, **changes}))

    return spoil


def without(part):
    return lambda folder: (folder / part).unlink()


INDEX, SCHEDULER = "model_index.json", "scheduler/scheduler_config.json"


@pytest.mark.parametrize(
    ("spoil", "options", "sentence"),
    [
        (None, {"model": "no such folder"}, "there is no folder 'no such folder'. Name a folder"),
        (
            None,
            {"size": 18},
            "prx: size must be a multiple of 4, .* a patch, got 18. Use 16",
        ),
        (None, {"size": (16, 3)}, "prx: size must be a multiple of 4, .* got 3. Use 4"),
        (None, {"size": 0}, "prx: size"),
        (without(INDEX), {}, "prx: .* has no model_index.json. Name a folder"),
        (without("transformer/config.json"), {}, "has no transformer/config.json"),
        (spoilt(INDEX, _class_name="FluxPipeline"), {}, "must be a PRXPixelPipeline with a PRXTr"),
        (spoilt(INDEX, text_encoder=["own", "Code"]), {}, "must name a class of transformers"),
        (spoilt(INDEX, noise_scale=0), {}, "prx: noise_scale must be a positive number"),
        (
            spoilt(SCHEDULER, use_karras_sigmas=True),
            {},
            "got .* with use_karras_sigmas",
        ),
        (spoilt(SCHEDULER, _class_name="DDIMScheduler"), {}, "must be a FlowMatchEulerDiscrete"),
        (without(SCHEDULER), {}, "has no scheduler/scheduler_config.json. Download it again"),
    ],
)
def test_what_is_no_prx_is_one_sentence(tiny, tmp_path, spoil, options, sentence):
    folder = shutil.copytree(tiny[True], tmp_path / "PRX")
    if spoil:
        spoil(folder)
    given = {"model": folder, "embeddings": tmp_path / "x.safetensors", **options}
    with pytest.raises(ValueError, match=sentence) as caught:
        load_prx(**given)
    assert "\n" not in str(caught.value)


def test_embeddings_of_another_model_raise(tiny, tmp_path):
    file = tmp_path / "other.safetensors"
    save_file({"": torch.zeros(1, 5, 32)}, file)
    with pytest.raises(ValueError, match=r"the shape \(1, L, 16\), got \(1, 5, 32\)"):
        load_prx(tiny[True], embeddings=file)
    other = tmp_path / "alike.safetensors"
    save_file({"": torch.zeros(1, 5, 16)}, other, {"kind": "StableDiffusionXLPipeline"})
    with pytest.raises(ValueError, match="alike.safetensors must hold embeddings for a Qwen"):
        load_prx(tiny[True], embeddings=other)


def test_out_of_memory_says_what_to_do(backend, monkeypatch):
    def full(*args, **kwargs):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(backend.network, "forward", full)
    with pytest.raises(torch.OutOfMemoryError, match=r"at once exceed the memory of cpu. Set"):
        Sampler(backend, [CFG(2.0)], num_inference_steps=1).sample(PROMPT)
    with pytest.raises(torch.OutOfMemoryError, match=r"dtype='bfloat16' or offload=True, or at a"):
        Sampler(backend, num_inference_steps=1).sample(PROMPT)


def test_it_loads_by_name(tiny, tmp_path):
    loaded = composer.load_backend("prx", model=tiny[True], embeddings=tmp_path / "x.safetensors")
    assert loaded.shape == (3, 16, 16)
    bits = load_prx(tiny[True], dtype="bfloat16", embeddings=tmp_path / "b.safetensors")
    x = Sampler(bits, [CFG(4.0)], num_inference_steps=2).sample(PROMPT).x
    assert x.dtype == torch.float32
    assert x.isfinite().all()


def test_double_precision_is_exact(tiny, backend, tmp_path):
    wide = load_prx(tiny[True], dtype="float64", embeddings=tmp_path / "wide.safetensors")
    x = torch.randn(1, *backend.shape, generator=torch.Generator().manual_seed(0))
    near, exactly, alone = (
        Sampler(model, [CFG(4.0)], None, 4, max_rows).sample(PROMPT, x=noise).x
        for model, max_rows, noise in (
            (backend, None, x),
            (wide, None, x.double()),
            (wide, 1, x.double()),
        )
    )
    assert exactly.dtype == torch.float64
    torch.testing.assert_close(near, exactly.float(), rtol=0, atol=1e-4)
    torch.testing.assert_close(alone, exactly, rtol=0, atol=1e-12)


def test_the_network_may_get_weights_of_another_type_between_runs(tiny, tmp_path):
    """By cast or by assignment, which puts other tensors in place of the old ones."""
    text = tmp_path / "text.safetensors"
    known = load_prx(tiny[True], dtype="bfloat16", embeddings=text)
    half = known.network.state_dict()
    expected = Sampler(known, [CFG(4.0)], None, 2).sample(PROMPT).x
    for change in (
        lambda network: network.bfloat16(),
        lambda network: network.load_state_dict(half, assign=True),
    ):
        backend = load_prx(tiny[True], embeddings=tmp_path / "wide.safetensors")
        sampler = Sampler(backend, [CFG(4.0)], None, 2)
        sampler.sample(PROMPT)
        change(backend.network)
        assert (sampler.sample(PROMPT).x - expected).abs().max() < 0.1
    others = copy.deepcopy(backend), pickle.loads(pickle.dumps(backend))
    for other in others:
        assert getattr(*other._weight) is next(other.network.parameters())
