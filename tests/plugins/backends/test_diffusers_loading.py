"""load_backend("diffusers"): files, labels, recipes and the hub."""

import json
import shutil
from types import SimpleNamespace

import pytest
import torch
from diffusers import DDPMPipeline
from huggingface_hub import errors
from safetensors.torch import load_file, save_file
from tiny_unet import SEEDS, load, ours, sample, write

import composer
from composer import UNCONDITIONAL, Request, Sampler
from composer.model import evaluated
from composer.solvers import DDIM, DDPM
from composer_plugins import CFG
from composer_plugins.backends.diffusers_unet import DiffusersBackend, load_diffusers

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


def test_pickled_weights_only_on_demand(tmp_path):
    expected = ours(write(tmp_path), 2)
    DDPMPipeline.from_pretrained(tmp_path).save_pretrained(tmp_path, safe_serialization=False)
    (tmp_path / "unet" / "diffusion_pytorch_model.safetensors").unlink()
    with pytest.raises(
        ValueError, match=r"has no .*\.safetensors. To read its .* use_safetensors=False"
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
    answers = evaluated(backend, [Request(x, 300.0, k) for k in (3, 1)])
    for answer, right in zip(answers, expected, strict=True):
        torch.testing.assert_close(answer.prediction, right)
    assert (expected[0] - expected[1]).abs().mean() > 0.01


def test_the_last_label_may_mean_no_label(labelled):
    backend = load(labelled, unconditional_label=4)
    kept = backend.encode(UNCONDITIONAL)
    assert backend.encode(kept) is kept  # what was encoded may be encoded again
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
    assert load(labelled).unconditional_label == 4
    assert load(labelled, unconditional_label=0).unconditional_label == 0


def test_the_folder_may_name_its_labels(labelled):
    (labelled / "labels.json").write_text('{"labels": ["cat", "dog"], "unconditional_label": 4}')
    backend = load(labelled)
    assert (backend.encode("dog"), backend.encode(3), backend.unconditional_label) == (1, 3, 4)
    assert backend.encode("3") == 3
    assert backend.encode("DOG") == 1
    with pytest.raises(LookupError, match="Unknown label 'cats'. Did you mean cat"):
        Sampler(backend).sample("cats")


def test_a_name_of_digits_is_a_name_first(labelled):
    (labelled / "labels.json").write_text('{"labels": ["1", "0"]}')
    assert [load(labelled).encode(name) for name in ("1", "0", "3", 1)] == [0, 1, 3, 1]


def test_without_such_a_label_a_label_is_needed(labelled):
    sampler = Sampler(load(labelled), num_inference_steps=2)
    assert sampler.sample(4).x.isfinite().all()
    sampler.backend.unet.register_forward_pre_hook(lambda *a: pytest.fail("the model was called"))
    with pytest.raises(ValueError, match="needs a condition from 0 to 4.*unconditional_label=4"):
        sampler.sample()


@pytest.mark.parametrize("bad", [5, -1, True, 1.5, "cat"])
def test_what_is_not_a_label(labelled, bad):
    with pytest.raises(ValueError, match=f"label from 0 to 4, got {bad!r}"):
        Sampler(load(labelled)).sample(bad)


@pytest.mark.parametrize(("free", "last"), [(4, 3), (0, 4), (1, 4)])
def test_the_label_that_means_none_is_no_condition(labelled, free, last):
    backend = load(labelled, unconditional_label=free)
    with pytest.raises(ValueError, match=f"label {free} means no label. Omit the condition"):
        Sampler(backend).sample(free)
    for bad in (5, True, -1):
        with pytest.raises(ValueError, match=f"must be a label from 0 to {last}, got {bad}"):
            Sampler(backend).sample(bad)
    assert [backend.encode(k) for k in range(5) if k != free] == [k for k in range(5) if k != free]


def test_names_in_capitals_are_themselves_first(labelled):
    (labelled / "labels.json").write_text('{"labels": ["cat", "CAT", "Dog"]}')
    backend = load(labelled)
    assert [backend.encode(name) for name in ("cat", "CAT", "Cat", "Dog")] == [0, 1, 0, 2]
    with pytest.raises(LookupError, match=r"Unknown label 'dog'. Did you mean Dog\?"):
        backend.encode("DOG")


def test_an_unconditional_model_takes_no_condition(tmp_path):
    with pytest.raises(ValueError, match="must be None for an unconditional model, got 3"):
        Sampler(load(write(tmp_path))).sample(3)


# Recipes.


def test_a_recipe_makes_the_same_call_again(labelled):
    backend = load(labelled, unconditional_label=4)
    sampler = Sampler(backend, [CFG(2.0)], DDPM("fixed_large"), num_inference_steps=2)
    result = sampler.sample(1, SEEDS)
    recipe = json.loads(json.dumps(result.recipe))
    assert recipe["backend"]["name"] == "diffusers"
    assert recipe["solver"] == {"solver": "ddpm", "options": {"variance": "fixed_large"}}
    again = Sampler.from_recipe(recipe, trust="model").sample(**composer.call_of(recipe))
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
        assert torch.equal(sample(backend, 2), expected)
    with pytest.raises(ValueError, match="someone/tiny is neither a folder nor complete in"):
        load_diffusers("someone/tiny", local_files_only=True, revision="other")


def test_a_hub_id_that_is_not_cached(cache):
    with pytest.raises(
        ValueError, match="neither a folder nor complete in the cache.*local_files_only=False"
    ):
        load_diffusers("someone/nothing", local_files_only=True)


RESPONSE = SimpleNamespace(status_code=403, headers={}, request=None, text="")


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        ("GatedRepoError", "someone/it is gated. Accept its licence at .*/someone/it and log in"),
        ("RepositoryNotFoundError", "neither a folder 'someone/it' nor such a model on the hub"),
        ("RevisionNotFoundError", "someone/it has no revision 'v2' on the hub"),
        ("HfHubHTTPError", "someone/it could not be downloaded .*. Try again"),
    ],
)
def test_errors_of_the_hub_are_sentences(monkeypatch, error, sentence):
    def fail(*args, **kwargs):
        raise getattr(errors, error)("the hub's own words", response=RESPONSE)

    monkeypatch.setattr("huggingface_hub.snapshot_download", fail)
    with pytest.raises(ValueError, match=sentence):
        load_diffusers("someone/it", revision="v2")


@pytest.mark.parametrize("error", ["LocalEntryNotFoundError", "OfflineModeIsEnabled"])
def test_no_network_is_a_sentence(monkeypatch, error):
    def fail(*args, **kwargs):
        raise getattr(errors, error)("no network")

    monkeypatch.setattr("huggingface_hub.snapshot_download", fail)
    with pytest.raises(ValueError, match="the hub cannot be reached. Connect, or name a folder"):
        load_diffusers("someone/it")


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (
            OSError(28, "No space left on device"),
            r"\(.*No space left on device\). Free disk space\.$",
        ),
        (OSError("500: it broke.\n\nRequest ID 7"), r"downloaded \(500: it broke\). Try again.$"),
    ],
)
def test_a_download_that_fails_is_a_sentence(monkeypatch, error, sentence):
    def fail(*args, **kwargs):
        raise error

    monkeypatch.setattr("huggingface_hub.snapshot_download", fail)
    with pytest.raises(ValueError, match=sentence):
        load_diffusers("someone/it")


def test_only_what_is_needed_is_downloaded(tmp_path, monkeypatch):
    write(tmp_path)
    asked = []

    def snapshot(model, allow_patterns, **options):
        asked.append(allow_patterns)
        return str(tmp_path)

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot)
    load_diffusers("someone/it")
    configs, weights = asked
    assert all(pattern.endswith(".json") for pattern in configs)  # looked at before any weight
    assert all(p.endswith((".json", ".safetensors")) for p in weights)
    (tmp_path / "model_index.json").write_text('{"_class_name": "IFPipeline"}')
    asked.clear()
    with pytest.raises(ValueError, match="deepfloyd"):
        load_diffusers("someone/it")
    assert len(asked) == 1
