"""`composer train mnist` and `composer train denoiser`: options, presets, what is written."""

import hashlib
import json

import pytest
import torch
from click.testing import CliRunner
from test_training import digits

import composer
from composer.cli import main
from composer_lab.training import mnist as mnist_train
from composer_lab.training import snapshots
from composer_lab.training.denoiser import load_denoiser
from composer_lab.training.presets import PRESETS
from composer_plugins import Autoguidance
from composer_plugins.backends.mnist import data as mnist_data
from composer_plugins.backends.with_weak import WithWeak

WRITTEN = {"checkpoint.pt", "log.json", "loss.png", "samples.png", "model"}


@pytest.fixture
def idx(tmp_path, monkeypatch):
    """A folder of idx files made of the shipped digits, with checksums of their own."""
    images, labels = digits(96)
    head = {
        "images": bytes([0, 0, 8, 3, 0, 0, 0, 96, 0, 0, 0, 28, 0, 0, 0, 28]),
        "labels": bytes([0, 0, 8, 1, 0, 0, 0, 96]),
    }
    sums = {}
    for kind, body in (("images", images.numpy().tobytes()), ("labels", bytes(labels.tolist()))):
        name = f"train-{kind}-idx{3 if kind == 'images' else 1}-ubyte"
        (tmp_path / name).write_bytes(head[kind] + body)
        sums[name] = hashlib.md5(head[kind] + body).hexdigest()
    monkeypatch.setattr(mnist_data, "CHECKSUMS", sums)
    monkeypatch.setenv("COMPOSER_MNIST", str(tmp_path))
    monkeypatch.setattr(snapshots, "STEPS", 2)
    monkeypatch.setattr(snapshots, "KEPT", 1.0)  # also of the course's DDPM: not all of its 300
    return tmp_path


def train(*arguments):
    return CliRunner().invoke(main, ["train", *map(str, arguments), "--no-progress"])


def trained(*arguments):
    result = train(*arguments, "--batch-size", "32", "--width", "4")
    assert result.exit_code == 0, result.output


@pytest.mark.parametrize(
    ("options", "name", "condition"),
    [
        (["--objective", "flow"], "mnist", 3),
        (["--objective", "ddpm-preconditioned"], "mnist-ddpm", 3),
        (["--preset", "ddpm-time", "--epochs", "2"], "mnist-ddpm", None),
        (["--preset", "flow-time", "--epochs", "2"], "mnist", None),
    ],
)
def test_the_command_trains_resumes_and_its_model_loads(idx, options, name, condition):
    out = idx / "run"
    arguments = ["mnist", "--epochs", "2", *options, "--out", out]
    for _ in range(2):  # the second finds the work done
        trained(*arguments)
    assert {p.name for p in out.iterdir()} == {*WRITTEN, "epoch-001"}
    assert {p.name for p in (out / "epoch-001").iterdir()} == {"loss.png", "samples.png", "model"}
    backend = composer.load_backend(name, weights=str(out / "model"))
    assert composer.Sampler(backend, num_inference_steps=2).sample(condition).x.shape[0] == 1
    trained(*arguments, "--snapshots", "", "--init", out / "model", "--out", idx / "warm")
    log = json.loads((idx / "warm" / "log.json").read_text())
    assert log["started_from"] == str(out / "model")
    assert not (idx / "warm" / "epoch-001").exists()


def test_an_early_epoch_guides(idx):
    trained("mnist", "--epochs", "2", "--out", idx / "run")
    early = composer.load_backend("mnist", weights=str(idx / "run" / "epoch-001" / "model"))
    late = composer.load_backend("mnist", weights=str(idx / "run" / "model"))
    guided = composer.Sampler(WithWeak(late, early), [Autoguidance(2.0)], num_inference_steps=2)
    assert torch.isfinite(guided.sample(3).x).all()


def test_the_denoisers_command_writes_what_load_denoiser_reads(idx):
    out = idx / "run"
    for _ in range(2):
        trained("denoiser", "--epochs", "1", "--sigma", "0.25", "--out", out)
    assert {p.name for p in out.iterdir()} == {*WRITTEN, "epoch-001"}
    denoiser = load_denoiser(out / "model")
    assert (denoiser.noise.sigma, denoiser.noise.pure_noise) == (0.25, False)
    assert denoiser(torch.randn(2, 1, 28, 28)).shape == (2, 1, 28, 28)
    other = train("denoiser", "--epochs", "1", "--batch-size", 32, "--width", 4, "--out", out)
    assert "belongs to a run with other settings: sigma" in other.output
    trained("denoiser", "--pure-noise", "--init", out / "model", "--out", idx / "pure")
    assert load_denoiser(idx / "pure" / "model").noise.pure_noise


# What the course's reports state: objective, T, conditioning, D, batch, rate, falling, epochs.
COURSE = {
    "ddpm-time": ("epsilon", 300, "add", 64, 128, 1e-3, True, 20),
    "ddpm-class": ("epsilon", 300, "class", 64, 128, 1e-3, True, 20),
    "flow-time": ("flow", None, "multiply", 64, 64, 1e-2, True, 10),
    "flow-class": ("flow", None, "class", 64, 64, 1e-2, True, 10),
    "flow-class-constant": ("flow", None, "class", 64, 64, 5e-3, False, 15),
    "flow-class-constant-slow": ("flow", None, "class", 64, 64, 1e-4, False, 15),
    "flow-time-wide": ("flow", None, "multiply", 128, 64, 5e-2, True, 50),
}


@pytest.fixture
def asked(idx, monkeypatch):
    """What the command asks of train_mnist and train_denoiser, in place of a training."""
    calls = []
    for function in ("train_mnist", "train_denoiser"):
        monkeypatch.setattr(mnist_train, function, lambda *arguments: calls.append(arguments))
    return calls


@pytest.mark.parametrize("name", sorted(COURSE))
def test_presets_are_the_courses(asked, name):
    assert set(PRESETS) == set(COURSE)
    result = train("mnist", "--preset", name, "--out", "unused")
    assert result.exit_code == 0, result.output
    ((objective, _, _, config, _, width, _, _, conditioning),) = asked
    path = mnist_train.OBJECTIVES[objective]
    found = path.prediction, path.schedule.get("num_train_timesteps"), conditioning, width
    falling = {"exponential": True, "constant": False}[config.lr_schedule]
    found += config.batch_size, config.learning_rate, falling, config.epochs
    assert found == COURSE[name]
    assert config.adam_betas == (0.9, 0.999)
    assert config.ema_decay == 0
    assert config.snapshots == (1, 5, 10, 20)


def test_options_override_a_preset_and_defaults_are_the_best_known(asked):
    train(
        "mnist", "--preset", "flow-time-wide", "--width", "16", "--epochs", "3", "--out", "unused"
    )
    train("mnist", "--epochs", "3", "--snapshots", "2,3", "--out", "unused")
    (preset, default) = asked
    assert (preset[5], preset[3].epochs, preset[3].learning_rate) == (16, 3, 5e-2)
    assert (default[5], default[3].lr_schedule, default[3].ema_decay) == (64, "one-cycle", 0.999)
    assert (default[3].snapshots, default[8]) == ((2, 3), "class")


def test_the_denoisers_defaults_are_the_courses(asked):
    train("denoiser", "--out", "unused")
    ((noise, _, config, _, width, _, _),) = asked
    assert (noise.sigma, noise.pure_noise, width) == (0.5, False, 128)
    assert (config.batch_size, config.learning_rate, config.epochs) == (256, 1e-4, 5)
    assert config.lr_schedule == "constant"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["mnist", "--data", "nowhere"], "holds neither train-images"),
        (["mnist", "--epochs", "0"], "epochs must be an integer of at least 1, got 0"),
        (["mnist", "--limit", "40"], "at most the 40 images, got 64"),
        (["mnist", "--init", "nowhere"], "there is no folder 'nowhere'. Name a folder model/"),
        (["denoiser", "--sigma", "-1"], "sigma must be at least 0, got -1"),
        (["denoiser", "--init", "nowhere"], "there is no folder 'nowhere'. Name a folder model/"),
    ],
)
def test_the_command_says_in_a_sentence_what_is_wrong(idx, arguments, sentence):
    result = train(*arguments, "--out", idx / "run")
    assert result.exit_code == 2
    assert result.output.startswith("Error: ")
    assert result.output.count("\n") == 1
    assert sentence in result.output
    assert not (idx / "run").exists()


def test_what_is_not_a_list_of_epochs_raises(idx):
    result = train("mnist", "--snapshots", "1;5", "--out", idx / "run")
    assert "epochs must be a list such as 1,5,10, got '1;5'" in result.output


def test_a_model_is_started_from_in_its_own_layout(idx):
    trained("mnist", "--epochs", "1", "--out", idx / "run")
    model = idx / "run" / "model"
    for options in (["--width", "8"], ["--width", "4", "--conditioning", "add"]):
        result = train("mnist", "--init", model, *options, "--out", idx / "other")
        assert result.exit_code == 2
    assert f"{model} has another layout. Start from it with --conditioning class" in result.output
    result = train("denoiser", "--init", model, "--out", idx / "other")
    assert "holds no model of `composer train denoiser`" in result.output
