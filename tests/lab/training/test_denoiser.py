"""The one-step denoiser: what its objective makes it learn, and the test out of distribution."""

import json

import pytest
import torch
from test_training import digits
from torch import nn

import composer
from composer.images import to_pil
from composer.predictions import SAMPLE
from composer_lab.training import denoiser as ours
from composer_lab.training.config import TrainingConfig
from composer_lab.training.data import FixedImages
from composer_lab.training.denoiser import FixedNoise, draw_sweep, load_denoiser, sweep
from composer_lab.training.mnist import save_model
from composer_lab.training.objective import Objective
from composer_lab.training.trainer import Trainer
from composer_plugins.backends.mnist import MnistUNet, sample_digits


def fitted(network, images, noise, folder, steps=400, batch=64, **settings):
    """``network`` after it learnt to denoise ``images``, uint8 (N, H, W), each drawn as often."""
    repeats = steps * batch // len(images)
    config = TrainingConfig(
        epochs=1, batch_size=batch, learning_rate=0.05, checkpoint_every=steps, **settings
    )
    labels = torch.zeros(repeats * len(images), dtype=torch.int64)
    data = FixedImages(images.repeat(repeats, 1, 1), labels)
    trainer = Trainer(network, Objective(noise, SAMPLE), data, 0, config, folder)
    return trainer.run(progress=False)


class Affine(nn.Module):
    """slope * z + an image: the family of E[x_0 | z] where x_0 is Gaussian, or z tells nothing."""

    def __init__(self, size):
        super().__init__()
        self.slope = nn.Parameter(torch.tensor(0.5))
        self.image = nn.Parameter(torch.zeros(1, size, size))

    def forward(self, x, times, labels):
        return self.slope * x + self.image


def test_on_noise_alone_the_optimum_is_the_mean_image(tmp_path):
    """E |D(z) - x|^2 is least at D(z) = E[x | z], which is E[x] where z and x are independent."""
    images = torch.randint(0, 256, (8, 4, 4), dtype=torch.uint8)
    learnt = fitted(Affine(4), images, FixedNoise(pure_noise=True), tmp_path)
    mean = (images.float() / 127.5 - 1).mean(0)
    torch.testing.assert_close(learnt.image[0], mean, atol=0.05, rtol=0)
    assert abs(learnt.slope) < 0.02


class Tanh(nn.Module):
    """size * tanh(sharpness * sum of z): the family of E[x_0 | z] of two constant images."""

    def __init__(self):
        super().__init__()
        self.size, self.sharpness = (nn.Parameter(torch.tensor(v)) for v in (0.2, 0.02))

    def forward(self, x, times, labels):
        total = x.sum((1, 2, 3), keepdim=True)
        return (self.size * torch.tanh(self.sharpness * total)).expand_as(x)


def test_on_two_images_the_optimum_is_their_posterior_mean(tmp_path):
    """x_0 = c or -c everywhere, z = x_0 + s noise: E[x_0 | z] = c tanh(c / s^2 * sum of z)."""
    c, sigma = 127.5 * 0.4, 1.0
    images = torch.stack([torch.full((4, 4), 127.5 + v).to(torch.uint8) for v in (c, -c)])
    values = (images[:, 0, 0].float() / 127.5 - 1).tolist()
    c, s = (values[0] - values[1]) / 2, 2 * sigma  # noise is that of pixels in [0, 1]
    learnt = fitted(Tanh(), images, FixedNoise(sigma), tmp_path, batch=256)
    # Bounds are four standard errors of the fit over 400 x 256 images, averaged, and more.
    assert learnt.size.item() == pytest.approx(c, rel=0.1)
    assert learnt.sharpness.item() == pytest.approx(c / s**2, rel=0.1)


def small(tmp_path, noise=FixedNoise()):  # noqa: B008  # frozen
    torch.manual_seed(0)
    unet = MnistUNet(hidden_size=4, num_classes=0, conditioning="none").eval()
    save_model(unet, tmp_path / "model", ours.DESCRIPTION, vars(noise))
    return unet.half().float(), tmp_path / "model"


def test_it_is_the_network_as_trained(tmp_path):
    unet, folder = small(tmp_path, FixedNoise(0.3))
    denoiser, x = load_denoiser(folder), torch.randn(5, 1, 28, 28)
    expected = unet(x, torch.rand(5), torch.zeros(5).long())
    torch.testing.assert_close(denoiser(x), expected, rtol=1e-5, atol=1e-5)
    assert denoiser.noise == FixedNoise(0.3)


def test_noise_is_that_of_pixels_in_the_unit_interval(tmp_path):
    """x in [0, 1] plus sigma noise, then mapped to [-1, 1] as the image is."""
    images, _ = digits(8)
    x = images[:, None].float() / 255
    noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(4))
    for sigma in (0.0, 0.5):
        noisy = ours.noised(2 * x - 1, sigma, seed=4)
        torch.testing.assert_close((noisy + 1) / 2, x + sigma * noise)
    _, folder = small(tmp_path)
    denoiser = load_denoiser(folder)
    assert torch.equal(denoiser.show(2 * x - 1, 4), ours.noised(2 * x - 1, 0.5, 4))
    denoiser.noise = FixedNoise(pure_noise=True)
    assert torch.equal(denoiser.show(2 * x - 1, 4), noise)


def test_the_sweep_shows_one_noise_at_every_strength(tmp_path):
    denoiser = load_denoiser(small(tmp_path)[1])
    x0 = sample_digits()[0][:3]
    found = sweep(denoiser, x0, seed=2)
    assert tuple(found) == ours.SIGMAS == (0.0, 0.2, 0.4, 0.5, 0.6, 0.8, 1.0)
    assert torch.equal(found[0.0].noisy, x0)
    for sigma, (noisy, estimate) in found.items():
        torch.testing.assert_close(noisy - x0, sigma * (found[1.0].noisy - x0), rtol=0, atol=1e-5)
        assert torch.equal(estimate, denoiser(noisy))


def test_its_picture_has_a_column_a_sigma_and_two_rows_an_image(tmp_path):
    denoiser = load_denoiser(small(tmp_path)[1])
    found = sweep(denoiser, sample_digits()[0][:3])
    picture = draw_sweep(found, scale=1)
    right, below = picture.width - 7 * 32, picture.height - 6 * 32
    for row, column in ((0, 1), (3, 4), (5, 6)):
        sigma = ours.SIGMAS[column]
        (expected,) = to_pil(found[sigma][row % 2][row // 2][None])
        left, top = right + 32 * column, below + 32 * row
        found_there = picture.crop((left, top, left + 28, top + 28)).convert("L")
        assert found_there.tobytes() == expected.tobytes()


def test_each_loader_raises_for_the_others_model(tmp_path):
    _, folder = small(tmp_path)
    with pytest.raises(ValueError, match="holds no model of `composer train mnist`"):
        composer.load_backend("mnist", weights=str(folder))
    with pytest.raises(ValueError, match="holds no model of `composer train denoiser`"):
        load_denoiser(tmp_path)
    (folder / ours.DESCRIPTION).write_text(json.dumps({"sgima": 0.5}))
    with pytest.raises(ValueError, match=r"denoiser\.json is damaged"):
        load_denoiser(folder)


@pytest.mark.parametrize("sigma", [-0.1, float("nan"), float("inf")])
def test_what_is_not_a_noise_level_raises(sigma):
    with pytest.raises(ValueError, match="sigma must be (finite|at least 0).*, got"):
        FixedNoise(sigma)


def test_the_shipped_denoiser_does_well_at_its_level_and_worse_beyond():
    """Errors measured on 300 test digits: .016, .036 and .17 at sigma 0, .5, 1; E[x_0] has .25."""
    x0 = sample_digits()[0]
    found = sweep(load_denoiser(), x0, sigmas=(0.0, 0.5, 1.0))
    clean, own, beyond = (float((d.estimate - x0).square().mean()) for d in found.values())
    assert clean < own < 0.04
    assert beyond > 2 * own


def test_the_shipped_one_of_pure_noise_answers_the_mean_digit():
    """In units of the digits' variance: .001 among answers, .01 between them and the mean digit."""
    x0 = sample_digits()[0]
    mean = x0.mean(0)
    variance = (x0 - mean).square().mean()
    answers = load_denoiser(pure_noise=True)(torch.randn(32, 1, 28, 28))
    assert answers.var(0).mean() < 0.01 * variance
    assert (answers - mean).square().mean() < 0.03 * variance


def test_whether_noise_is_alone_is_yes_or_no():
    with pytest.raises(TypeError, match="pure_noise must be True or False, got 'no'"):
        FixedNoise(pure_noise="no")


def test_a_model_of_another_command_says_so(tmp_path):
    save_model(MnistUNet(hidden_size=2), tmp_path, "path.json", {})
    with pytest.raises(ValueError, match="It is of `composer train mnist`; name another"):
        load_denoiser(tmp_path)
