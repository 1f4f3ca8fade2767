"""Training the networks that judge and choose, and what their digits are changed by."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from composer_lab.training import augmentation
from composer_lab.training.readers import (
    TRAININGS,
    attacked,
    reader_accuracy,
    save_reader,
    train_reader,
)
from composer_plugins.backends.mnist.data import sample_digits
from composer_plugins.backends.mnist.readers import NETWORKS, read_reader


@pytest.fixture(scope="module")
def digits():
    images, labels = sample_digits()
    return ((images[:, 0] + 1) * 127.5).round().to(torch.uint8), labels


class Linear(nn.Module):
    """Logits that are linear in the image."""

    def __init__(self):
        super().__init__()
        generator = torch.Generator().manual_seed(3)
        self.weights = torch.randn(784, 10, generator=generator) / 28

    def forward(self, x):
        return x.flatten(1) @ self.weights


def test_each_network_has_a_training_and_an_augmentation_of_its_own(digits):
    assert [*TRAININGS] == [*NETWORKS]
    x = digits[0][:16, None].float() / 127.5 - 1
    changed = []
    for training in TRAININGS.values():
        torch.manual_seed(0)
        changed.append(training.change(x))
        assert changed[-1].shape == x.shape
    assert not any(torch.equal(a, b) for k, a in enumerate(changed) for b in changed[:k])


def test_changes_of_size_zero_change_nothing_and_outside_is_background():
    x = torch.rand(4, 1, 28, 28) * 2 - 1
    torch.testing.assert_close(augmentation.affine(x, 0, 0, 0, 0), x, atol=1e-5, rtol=0)
    torch.testing.assert_close(augmentation.elastic(x, 0), x, atol=1e-5, rtol=0)
    assert torch.equal(augmentation.erased(x, 0), x)
    away = augmentation.warped(x, torch.full((4, 28, 28, 2), 3.0))
    assert torch.equal(away, torch.full_like(x, -1))


@given(st.floats(0.1, 5.0), st.integers(1, 4))
def test_an_attack_stays_in_its_ball_and_raises_the_loss(digits, radius, climbs):
    """On a linear network the worst change is known: the loss reaches at most that, and random
    changes of the same size raise it less."""
    x = digits[0][:8, None].float() / 255 - 0.5  # far from the ends of [-1, 1], which clip
    labels, network = digits[1][:8], Linear()
    torch.manual_seed(0)
    found = attacked(network, x, labels, radius, climbs)
    moved = (found - x).flatten(1).norm(dim=1)
    assert (moved <= radius * (1 + 1e-5)).all()
    assert (found.abs() <= 1).all()
    noise = torch.randn_like(x)
    random = (x + radius * noise / noise.flatten(1).norm(dim=1)[:, None, None, None]).clamp(-1, 1)
    before, after, other = (
        F.cross_entropy(network(images), labels, reduction="none") for images in (x, found, random)
    )
    assert (after > before).all()
    assert after.mean() > other.mean()


def test_a_training_repeats_itself_and_is_read_from_its_file(digits, tmp_path):
    images, labels = (part[:256] for part in digits)
    first, again = (train_reader("strided", images, labels, 1) for _ in range(2))
    for a, b in zip(first.parameters(), again.parameters(), strict=True):
        assert torch.equal(a, b)
    other = train_reader("strided", images, labels, 1, seed=2)
    assert not torch.equal(next(first.parameters()), next(other.parameters()))
    save_reader(first, tmp_path / "strided.safetensors")
    read = read_reader("strided", tmp_path / "strided.safetensors")
    gaps = [(a - b).abs().max() for a, b in zip(read.parameters(), first.parameters(), strict=True)]
    assert max(gaps) < 1e-3  # float16
    assert 0 <= reader_accuracy(read, images, labels) <= 1
