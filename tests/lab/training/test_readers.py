"""Training the networks that judge and choose, and what their digits are changed by."""

import pytest
import torch

from composer_lab.training import augmentation
from composer_lab.training.readers import (
    TRAININGS,
    mixed,
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
    assert torch.equal(augmentation.noised(x, 0), x)
    away = augmentation.warped(x, torch.full((4, 28, 28, 2), 3.0))
    assert torch.equal(away, torch.full_like(x, -1))


def test_a_mixture_has_both_labels_in_the_shares_of_its_images():
    torch.manual_seed(1)
    target = torch.eye(10)
    x = target.reshape(10, 1, 1, 10).expand(10, 1, 10, 10)  # image k shows what its label is
    images, labels = mixed(x, target)
    torch.testing.assert_close(images[:, 0, 0], labels)
    torch.testing.assert_close(labels.sum(1), torch.ones(10))


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
