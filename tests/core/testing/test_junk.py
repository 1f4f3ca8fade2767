"""What the kits cannot examine is refused in one sentence."""

import pytest
import torch

from composer.testing import (
    GaussianMixtureBackend,
    check_decomposition,
    check_stack,
    check_transform,
    parametrize_with_checks,
)
from composer_plugins import CFG, Anagram, SDEdit
from composer_plugins.transforms import ColourRotation, Flip, Jigsaw

IMAGE = torch.zeros(3, 16, 16)


@pytest.mark.parametrize(
    ("check", "error", "sentence"),
    [
        (lambda: check_stack([]), ValueError, "plugins must not be empty. Give"),
        (
            lambda: check_stack([Anagram({"flip": 11})]),
            ValueError,
            "component from 0 to 9, got 11.$",
        ),
        (lambda: check_stack([SDEdit(IMAGE)]), ValueError, "SDEdit: .*32x32"),
        (lambda: parametrize_with_checks([CFG(2.0)]), TypeError, "got the plugin .*stack_checks"),
        (lambda: check_stack(5), TypeError, "plugins must be a list of plugins, got 5"),
        (lambda: check_stack([5]), TypeError, "flat list of plugin objects, got one with 5"),
        (lambda: check_stack([CFG]), TypeError, r"Write CFG\(...\)"),
        (
            lambda: check_stack([CFG(2.0)], condition=10),
            ValueError,
            "a component from 0 to 9, got 10",
        ),
        (lambda: check_stack([CFG(2.0)], condition=[1]), TypeError, "must be hashable"),
        (lambda: check_stack([CFG(2.0)], shape=32), TypeError, "a shape must be a list or tuple"),
        (lambda: check_stack([CFG(2.0)], shape=(3, 32)), ValueError, r"must be \(C, H, W\)"),
        (
            lambda: check_decomposition([torch.clone], shapes=[]),
            ValueError,
            "shapes must not be empty",
        ),
        (
            lambda: check_decomposition([torch.clone], shapes=[(3, 0, 4)]),
            ValueError,
            "at least 1, got 0",
        ),
        (lambda: check_transform(5), TypeError, "must be a Transform, got 5"),
        (lambda: check_transform(Flip(), shapes=()), ValueError, "shapes must not be empty"),
        (lambda: check_transform(Flip(), shapes=28), TypeError, "shapes must be a list or tuple"),
        (
            lambda: check_transform(Jigsaw(), shapes=[(3, 27, 27)]),
            ValueError,
            r"shapes: Jigsaw\(.*accepts square images.*, got 27x27.$",
        ),
        (
            lambda: check_transform(ColourRotation(), shapes=[(1, 28, 28)]),
            ValueError,
            r"shapes: ColourRotation\(.* does not accept \(1, 28, 28\) \(.*\). Give other shapes.$",
        ),
        (lambda: parametrize_with_checks([]), ValueError, "things must not be empty. Give"),
        (lambda: GaussianMixtureBackend([0], [1]), TypeError, r"must be a tensor \(K, C, H, W\)"),
        (lambda: GaussianMixtureBackend(IMAGE[None], ["1"]), TypeError, "stds must be a number"),
        (lambda: GaussianMixtureBackend(IMAGE[None], [0.0]), ValueError, "stds must be a positive"),
    ],
)
def test_junk_is_one_sentence(check, error, sentence):
    with pytest.raises(error, match=sentence) as raised:
        check()
    assert "\n" not in str(raised.value)
