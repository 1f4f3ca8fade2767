"""load_backend("nouns"): a pipeline whose labels have names, here of a tiny random network."""

import json

import pytest
import torch
from diffusers import UNet2DModel
from tiny_nouns import TINY

import composer
from composer import UNCONDITIONAL, Request, Sampler, UnknownNameError
from composer.model import evaluated
from composer_lab.training import nouns as train
from composer_lab.training.config import TrainingConfig
from composer_lab.training.nouns import HEADS, noise_scheduler, save_pipeline
from composer_plugins import CFG, Anagram, Hybrid, UniPC
from composer_plugins.backends.nouns import head_names

SHRIMP, SHARK = "shrimp-tempura", "shark"
CLOSE = {"rtol": 1e-4, "atol": 1e-4}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    torch.manual_seed(0)
    unet = UNet2DModel(sample_size=32, num_class_embeds=HEADS + 1, **TINY)
    with torch.no_grad():
        unet.class_embedding.weight.mul_(5)  # untrained, labels hardly matter
    path = tmp_path_factory.mktemp("nouns")
    save_pipeline(unet, noise_scheduler(), path, labelled=True)
    return path


@pytest.fixture(scope="module")
def backend(folder):
    return composer.load_backend("nouns", weights=str(folder))


def sampled(backend, *plugins, condition=None, seeds=(0, 1)):
    return Sampler(backend, plugins, num_inference_steps=4).sample(condition, seeds)


def test_heads_by_name_and_by_index(backend):
    for index, name in enumerate(head_names()):
        assert backend.encode(name) == backend.encode(index) == index
    assert backend.unconditional_label == HEADS == 254
    assert backend.encode("PANDA") == backend.encode("panda")
    x = sampled(backend, condition=SHRIMP).x
    assert torch.equal(x, sampled(backend, condition=2).x)
    assert (x - sampled(backend, condition=SHARK).x).abs().mean() > 0.01
    assert torch.equal(sampled(backend).x, sampled(backend, condition=UNCONDITIONAL).x)


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("shrimp", "Did you mean shrimp-tempura"),
        ("Sharkk", "Did you mean shark"),
        ("???", r"Known: aardvark, .* and 214 more\.$"),
    ],
)
def test_an_unknown_head_raises_with_the_nearest(backend, name, hint):
    sentence = f"Unknown label {name.lower()!r}. {hint}".replace("?", ".")
    with pytest.raises(UnknownNameError, match=sentence):
        sampled(backend, CFG(2.0), condition=name)
    with pytest.raises(UnknownNameError, match="Unknown label"):
        Sampler(backend, [Anagram({"identity": SHARK, "flip": name})])


@pytest.mark.parametrize("bad", [255, -1, True, 1.5])
def test_what_is_not_a_head(backend, bad):
    with pytest.raises(ValueError, match=f"label from 0 to 253, got {bad!r}"):
        sampled(backend, condition=bad)


def test_no_head_is_no_condition(backend):
    with pytest.raises(ValueError, match="label 254 means no label. Omit the condition"):
        sampled(backend, condition=HEADS)


@pytest.mark.parametrize(("weights", "got"), [(3, "int"), (b"x", "bytes"), ("", "an empty name")])
def test_weights_are_named(weights, got):
    with pytest.raises(
        TypeError, match=f"weights must be the name of a folder, got {got}. Correct"
    ):
        composer.load_backend("nouns", weights=weights)


def test_pictures_in_colour_by_seed_alone(backend):
    both = sampled(backend, CFG(3.0), condition=SHARK)
    assert both.x.shape == (2, 3, 32, 32)
    assert both.x.abs().max() <= 1  # clipped as the scheduler says, whatever the solver
    assert both.images[0].mode == "RGB"
    assert torch.equal(both.x, sampled(backend, CFG(3.0), condition=SHARK).x)
    alone = sampled(backend, CFG(3.0), condition=SHARK, seeds=[1])
    torch.testing.assert_close(alone.x, both.x[1:], **CLOSE)
    assert (both.x[0] - both.x[1]).abs().mean() > 0.1
    assert (both.stats.calls, both.stats.evaluated) == (4, 8)


def test_the_path_it_was_trained_on(backend):
    assert backend.prediction.name == "v"
    assert backend.default_solver == UniPC(2)
    assert Sampler(backend).times[0] == 999  # trailing: the plan begins in noise
    assert backend.schedule.at(999)[0] < 1e-4


def test_lawful_stacks_change_nothing_that_is_asked_alike(backend):
    """The parts of a hybrid sum to the identity, and views are taken back."""
    plain = sampled(backend, CFG(3.0), condition=SHARK).x
    hybrid = sampled(backend, Hybrid(SHARK, SHARK), CFG(3.0)).x
    torch.testing.assert_close(hybrid, plain, **CLOSE)
    views = Anagram({"identity": SHRIMP, "rotate_180": SHARK})
    inside, outside = sampled(backend, views, CFG(3.0)), sampled(backend, CFG(3.0), views)
    torch.testing.assert_close(inside.x, outside.x, **CLOSE)
    swapped = sampled(backend, Anagram({"flip": SHRIMP, "identity": SHARK}), CFG(3.0)).x
    assert (swapped - inside.x).abs().mean() > 0.01


def test_a_name_reaches_the_network_as_its_label(backend):
    x = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    (answer,) = evaluated(backend, [Request(x, 500.0, backend.encode(SHARK))])
    label = torch.full((2,), head_names().index(SHARK))
    with torch.no_grad():
        expected = backend.unet(x, 500, class_labels=label).sample
    torch.testing.assert_close(answer.prediction, expected)


def test_a_recipe_names_the_head(backend):
    result = sampled(backend, Anagram({"identity": SHRIMP, "negative": SHARK}), CFG(2.0))
    recipe = json.loads(json.dumps(result.recipe))
    assert recipe["backend"]["name"] == "nouns"
    assert SHRIMP in json.dumps(recipe["plugins"])
    again = Sampler.from_recipe(recipe, trust="weights").sample(**composer.call_of(recipe))
    assert torch.equal(again.x, result.x)


def test_a_look_at_a_training_that_goes_on(tmp_path, monkeypatch):
    monkeypatch.setattr(train, "LAYOUT", TINY)
    config = TrainingConfig(epochs=1, batch_size=4)
    train.train_nouns(config, tmp_path / "run", epoch=12, progress=False)
    train.export_average(tmp_path / "run" / "checkpoint.pt", tmp_path / "look")
    files = sorted(f.relative_to(tmp_path / "look") for f in (tmp_path / "look").rglob("*.*"))
    assert len(files) == 5
    for file in files:
        look, model = tmp_path / "look" / file, tmp_path / "run" / "model" / file
        assert look.read_bytes() == model.read_bytes()
