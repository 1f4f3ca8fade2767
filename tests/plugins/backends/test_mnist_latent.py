"""The backend "mnist-latent": its contract, its weights, and what they are worth."""

from importlib.resources import files

import pytest
import torch

import composer
from composer import UNCONDITIONAL, Sampler
from composer.testing import check_backend
from composer_lab.training.autoencoder import new_autoencoder
from composer_lab.training.mnist_latent import new_unet
from composer_lab.training.output import write_network
from composer_plugins import CFG, Anagram, Inpaint, LatentAnagram, SDEdit
from composer_plugins.backends.autoencoder import Autoencoder
from composer_plugins.backends.mnist import MnistLatentBackend, sample_digits
from composer_plugins.backends.mnist.judge import load_judge

SHAPE = 4, 7, 7
WEIGHTS = "diffusion_pytorch_model.safetensors"
SHIPPED = files("composer_plugins.backends.mnist") / "weights" / "latent"


@pytest.fixture(scope="module")
def tiny():
    """Random networks: a float64 UNet whose output depends on time and class."""
    torch.manual_seed(0)
    unet = new_unet(SHAPE, 32).double().eval().requires_grad_(False)
    for parameter in unet.parameters():
        parameter.add_(0.1 * torch.randn_like(parameter))
    vae = new_autoencoder(4).double().eval().requires_grad_(False)
    vae.register_to_config(latents_mean=[0.1, 0.2, 0.3, 0.4], latents_std=[1.0, 2.0, 0.5, 1.5])
    return MnistLatentBackend(unet, Autoencoder.of(vae, slicing=False), dtype=torch.float64)


@pytest.fixture(scope="module")
def shipped():
    return composer.load_backend("mnist-latent")


def test_it_keeps_the_contract(tiny):
    check_backend(tiny, conditions=[0, 9, UNCONDITIONAL], trained=False)
    assert (tiny.shape, tiny.image_shape, tiny.num_classes) == (SHAPE, (1, 28, 28), 10)


def test_a_digit_is_its_label_and_no_condition_the_last(tiny):
    z = torch.randn(3, *SHAPE, dtype=torch.float64)
    sampler = Sampler(tiny, [])
    t = 0.3
    for condition, label in ((7, 7), ("7", 7), (UNCONDITIONAL, 10)):
        # At time t the velocity is x_0 - noise.
        found = sampler.denoise(z, t, condition=condition)
        expected = tiny.unet(z, torch.full((3,), 1000 * t), class_labels=torch.full((3,), label))
        torch.testing.assert_close(found.x0 - found.noise, expected.sample, rtol=0, atol=1e-9)
    for wrong in (10, -1, "six"):
        with pytest.raises(ValueError, match="a condition must be a digit from 0 to 9"):
            sampler.denoise(z, t, condition=wrong)


def test_the_loop_runs_on_latents_and_its_end_decodes_them(tiny):
    noise = torch.randn(2, *SHAPE, dtype=torch.float64)
    sampler = Sampler(tiny, [], num_inference_steps=1)
    z0 = sampler.denoise(noise, 0.0, condition=3).x0  # one Euler step goes all the way to x_0
    found = sampler.sample(3, seeds=[0, 1], x=noise).x
    torch.testing.assert_close(found, tiny.decode(z0), rtol=0, atol=1e-9)


def test_latents_are_the_modes_less_their_mean_over_their_spread(tiny):
    x = sample_digits()[0][:2].double()
    vae = tiny.autoencoder.vae
    mode, spread, mean = (
        vae.encode(x).latent_dist.mode(),
        (1.0, 2.0, 0.5, 1.5),
        (0.1, 0.2, 0.3, 0.4),
    )
    z = tiny.encode_image(x)
    for channel in range(4):
        expected = (mode[:, channel] - mean[channel]) / spread[channel]
        torch.testing.assert_close(z[:, channel], expected, rtol=0, atol=1e-6)
    torch.testing.assert_close(tiny.decode(z), vae.decode(mode).sample, rtol=0, atol=1e-6)


def test_anagrams_are_those_of_latents(tiny):
    views = {"identity": 6, "rotate_180": 9}
    with pytest.raises(ValueError, match="Use LatentAnagram in its place"):
        Sampler(tiny, [Anagram(views)])
    result = Sampler(tiny, [LatentAnagram(views), CFG(2.0)], num_inference_steps=3).sample()
    assert result.x.shape == (1, 1, 28, 28)
    assert (result.stats.calls, result.stats.rows) == (3, 12)


def test_edits_take_images_and_known_pixels_return(tiny):
    digit = sample_digits()[0][0].double()
    mask = torch.zeros(28, 28)
    mask[14:] = 1
    stack = [SDEdit(digit, strength=0.5), Inpaint(digit, mask)]
    x = Sampler(tiny, stack, num_inference_steps=4).sample(3).x
    assert torch.equal(x[0, :, :14], digit[:, :14])
    assert not torch.equal(x[0, :, 14:], digit[:, 14:])


# The weights in the package


def test_the_weights_are_small():
    stored = sum(file.stat().st_size for file in SHIPPED.rglob("*") if file.is_file())
    assert stored < 4_000_000


def test_the_autoencoder_returns_digits(shipped):
    """Test digits that it was not trained on. The same weights always give the same figures."""
    x, labels = sample_digits()
    z = shipped.encode_image(x)
    back = shipped.decode(z)
    assert (back - x).square().mean().item() < 0.01  # of a range of 2; measured: .0084
    assert (load_judge().classify(back) == labels).float().mean() > 0.99
    assert z.mean((0, 2, 3)).abs().max() < 0.1
    assert (z.std((0, 2, 3)) - 1).abs().max() < 0.1


def test_samples_are_read_as_their_digits(shipped):
    sampler = Sampler(shipped, [CFG(2.0)], num_inference_steps=10)
    digits = list(range(10)) * 5
    x = sampler.sample(digits, seeds=range(50)).x
    assert (load_judge().classify(x) == torch.tensor(digits)).sum() >= 47


@pytest.mark.parametrize("part", ["unet", "vae"])
def test_damaged_weights_raise(tmp_path, tiny, part):
    folder = tmp_path / "model"
    write_network(tiny.unet, folder / "unet")
    write_network(tiny.autoencoder.vae, folder / "vae")
    assert composer.load_backend("mnist-latent", weights=folder).shape == SHAPE
    content = bytearray((folder / part / WEIGHTS).read_bytes())
    content[-1] ^= 1
    (folder / part / WEIGHTS).write_bytes(content)
    with pytest.raises(ValueError, match=r"do not have their checksum\). Start its training again"):
        composer.load_backend("mnist-latent", weights=folder)
    (folder / part / "config.json").unlink()
    with pytest.raises(ValueError, match=f"has no {part}/config.json"):
        composer.load_backend("mnist-latent", weights=str(folder))
