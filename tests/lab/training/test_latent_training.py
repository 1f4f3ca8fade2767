"""`composer train mnist-autoencoder` and `mnist-latent`: what they learn, write and resume."""

import json

import pytest
import torch
from test_training import digits
from test_training_commands import WRITTEN, idx, train  # noqa: F401  # a fixture

import composer
from composer_lab.evaluation.samples import load_model
from composer_lab.training.autoencoder import Autoencoding, Noisy, new_autoencoder
from composer_lab.training.config import TrainingConfig
from composer_lab.training.data import FixedImages
from composer_lab.training.mnist_latent import encoded
from composer_lab.training.trainer import Trainer
from composer_plugins.backends.autoencoder import Autoencoder
from composer_plugins.backends.mnist import sample_digits
from composer_plugins.backends.mnist.latent import load_autoencoder

SHAPE = 4, 7, 7


def autoencoding(folder, sigma=0.2, epochs=2, **options):
    torch.manual_seed(0)
    config = TrainingConfig(epochs=epochs, batch_size=16, bf16=False, **options)
    task = Autoencoding(SHAPE, sigma)
    return Trainer(Noisy(new_autoencoder(4)), task, FixedImages(*digits()), 0, config, folder)


def test_a_step_is_given_the_digits_and_noise_of_the_stated_width(tmp_path):
    run = autoencoding(tmp_path, sigma=0.3)
    batch, again = (next(run.batches(0, 1)) for _ in range(2))
    (x, noise), target = batch.inputs, batch.target
    assert torch.equal(x, target)
    images = run.data.images[:, None].float() / 127.5 - 1
    assert (x[:, None] - images[None]).abs().amax((2, 3, 4)).amin(1).max() == 0
    assert noise.shape == (16, *SHAPE)
    # 3136 draws: the standard error of the width is .004; seven of them.
    assert noise.std().item() == pytest.approx(0.3, abs=0.028)
    assert torch.equal(noise, again.inputs[1])


def test_the_noise_is_in_units_of_the_spread_of_the_latents():
    """So an encoder cannot escape it by larger latents."""
    network = Noisy(new_autoencoder(4)).double().eval()
    x, noise = torch.randn(8, 1, 28, 28).double(), torch.randn(8, *SHAPE).double()
    seen = []
    network.vae.decoder.register_forward_pre_hook(lambda m, args: seen.append(args[0]))
    modes = network.vae.encode(x).latent_dist.mode()
    network(x, noise)
    with torch.no_grad():  # the first half of the channels are the means, the rest log-variances
        network.vae.encoder.conv_out.weight[:4] *= 10
        network.vae.encoder.conv_out.bias[:4] *= 10
    network(x, noise)
    torch.testing.assert_close(seen[1], 10 * seen[0])
    added = (seen[0] - modes) / noise
    torch.testing.assert_close(added, modes.std((0, 2, 3), keepdim=True).expand_as(added))


def test_the_latents_of_a_trained_one_have_mean_zero_and_variance_one(tmp_path):
    run = autoencoding(tmp_path, epochs=6)
    network = run.run(progress=False)
    coder = Autoencoder.of(network.finished(), slicing=False)
    z = encoded(coder, run.data.images)
    # The statistics are means over batches of 16, whose variances lack what the batches differ by.
    assert z.mean((0, 2, 3)).abs().max() < 0.05
    assert (z.var((0, 2, 3)) - 1).abs().max() < 0.1
    assert sum(run.losses[-4:]) < sum(run.losses[:4])


def test_a_resumed_training_equals_one_that_was_not_stopped(tmp_path):
    whole = autoencoding(tmp_path / "whole")
    expected = whole.run(progress=False).state_dict()
    stopped = autoencoding(tmp_path / "stopped", checkpoint_every=3)
    take, stopped._take = stopped._take, lambda batch: interrupted(stopped, take, batch)
    with pytest.raises(KeyboardInterrupt):
        stopped.run(progress=False)
    resumed = autoencoding(tmp_path / "stopped", checkpoint_every=3)
    found = resumed.run(progress=False).state_dict()
    assert all(torch.equal(found[name], value) for name, value in expected.items())
    assert resumed.losses == whole.losses


def interrupted(run, take, batch):
    if run.step == 5:
        raise KeyboardInterrupt
    take(batch)


def test_the_commands_train_resume_and_their_models_load(idx):  # noqa: F811
    coder, out = idx / "coder", idx / "latent"
    common = "--epochs", "2", "--batch-size", "32"
    flow = "mnist-latent", "--autoencoder", coder / "model", *common, "--width", "32"
    for _ in range(2):  # the second finds the work done
        for command in (
            ["mnist-autoencoder", *common, "--width", "4", "--out", coder],
            [*flow, "--snapshots", "1", "--out", out],
        ):
            result = train(*command)
            assert result.exit_code == 0, result.output
    assert {p.name for p in coder.iterdir()} == {*WRITTEN, *snapshots(coder)}
    assert {p.name for p in out.iterdir()} == {*WRITTEN, "epoch-001"}
    backend = composer.load_backend("mnist-latent", weights=str(out / "model"))
    assert composer.Sampler(backend, num_inference_steps=2).sample(3).x.shape == (1, 1, 28, 28)
    measured = load_model(str(out / "model"))
    assert type(measured.backend) is type(backend)
    assert measured.weights != load_model("mnist-latent").weights
    x = sample_digits()[0][:2]
    assert torch.equal(backend.encode_image(x), load_autoencoder(coder / "model").encode(x))
    result = train(*flow, "--snapshots", "", "--init", out / "model", "--out", idx / "warm")
    assert result.exit_code == 0, result.output
    log = json.loads((idx / "warm" / "log.json").read_text())
    assert log["started_from"] == str(out / "model")
    other = train("mnist-autoencoder", *common, "--width", "4", "--sigma", ".1", "--out", coder)
    assert "belongs to a run with other settings: sigma (0.2 there, 0.1 here)" in other.output


def snapshots(folder):
    return {path.name for path in folder.glob("epoch-*")}


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["mnist-autoencoder", "--sigma", "-1"], "sigma must be at least 0, got -1"),
        (
            ["mnist-autoencoder", "--init", "nowhere"],
            "there is no folder 'nowhere'. Name a folder model/ that `composer train "
            "mnist-autoencoder` wrote",
        ),
        (
            ["mnist-latent", "--autoencoder", "nowhere"],
            "there is no folder 'nowhere'. Name a folder model/ that `composer train "
            "mnist-autoencoder` wrote",
        ),
    ],
)
def test_the_commands_say_in_a_sentence_what_is_wrong(idx, arguments, sentence):  # noqa: F811
    result = train(*arguments, "--out", idx / "run")
    assert result.exit_code == 2
    assert result.output.startswith("Error: ")
    assert result.output.count("\n") == 1
    assert sentence in result.output
    assert not (idx / "run").exists()
