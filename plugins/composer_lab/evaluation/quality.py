"""How samples of digits compare with test digits, in the features of the frozen judge."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from importlib.resources import as_file, files
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from composer.writing import write_atomically
from composer_lab.evaluation.distances import Moments, frechet_distance, manifolds, moments
from composer_plugins.backends.mnist.data import load_mnist, to_model
from composer_plugins.backends.mnist.judge import Judge, judge_hash, load_judge

NEIGHBOURS = 5
FLOOR_COUNTS = 100, 200, 500, 1000, 2000, 5000, 10_000


@dataclass(frozen=True)
class Quality:
    """Quality of samples, measured in the judge's features.

    Attributes:
        frechet: Frechet distance from the test digits; falls with the number of samples.
        accuracy: share read as the conditioning digit, for each of the ten; None without
            conditions.
        precision, recall, coverage: see :class:`~composer_lab.evaluation.distances.Manifolds`, of
            NEIGHBOURS neighbours; None where the features of the test digits are not available.
    """

    frechet: float
    accuracy: tuple[float, ...] | None
    precision: float | None = None
    recall: float | None = None
    coverage: float | None = None


@dataclass(frozen=True, eq=False)
class Reference:
    """The test digits in the judge's features.

    Args:
        test: moments of their features.
        floors: {count: Quality of that many train digits, equally many per digit}: the value of a
            perfect model.
        judge: hash of the judge.
        features: features (N, 128) of the test digits, or None.
    """

    test: Moments
    floors: dict[int, Quality]
    judge: str
    features: Tensor | None = None

    def save(self, file: Path) -> None:
        """Write moments and floors, without features."""
        floors = {count: asdict(floor) for count, floor in self.floors.items()}
        metadata = {"judge": self.judge, "floors": json.dumps(floors)}
        parts = {k: v.float() for k, v in self.test._asdict().items()}
        write_atomically(file, lambda path: save_file(parts, path, metadata))


def shipped_reference() -> Reference:
    """The reference in the package: without features, and with floors of FLOOR_COUNTS."""
    shipped = files(__package__) / "weights" / "reference.safetensors"
    with as_file(shipped) as path, safe_open(path, "pt") as file:
        test = Moments(*(file.get_tensor(name).double() for name in Moments._fields))
        metadata = file.metadata()
    if metadata["judge"] != judge_hash(load_judge()):
        raise ValueError(
            "reference.safetensors must be of the judge in the package. Write it again "
            "by reference_of(load_judge(), FLOOR_COUNTS, folder).save(file)."
        )
    floors = json.loads(metadata["floors"]).items()
    return Reference(test, {int(n): Quality(**floor) for n, floor in floors}, metadata["judge"])


def reference_of(judge: Judge, counts: tuple[int, ...], folder: Path | None = None) -> Reference:
    """Make a reference from the idx files, with features, and with floors of ``counts``."""
    features = judge.embed(to_model(load_mnist("test", folder)[0]))
    reference = Reference(moments(features), {}, judge_hash(judge), features)
    train = load_mnist("train", folder)
    for count in counts:
        reference.floors[count] = quality(judge, *balanced(*train, count), reference)
    return reference


def balanced(images: Tensor, labels: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The first ``count`` images in turns of the digits: image k is of the digit k % 10."""
    of_each = [(labels == digit).nonzero()[:, 0] for digit in range(10)]
    if count > (most := 10 * min(map(len, of_each))):
        raise ValueError(
            f"count must be at most {most} for equally many of each digit, got {count}."
        )
    chosen = torch.stack([of_each[k % 10][k // 10] for k in range(count)])
    return images[chosen], labels[chosen]


def quality(judge: Judge, images: Tensor, digits: Tensor | None, reference: Reference) -> Quality:
    """Compare samples with the test digits.

    Args:
        images: uint8 (N, 28, 28).
        digits: (N,) the conditions, at least one of each digit; None without conditions.

    Raises:
        ValueError: a digit is not among ``digits``, or the reference is by another judge.
    """
    if reference.judge != judge_hash(judge):
        raise ValueError("reference must be of this judge. Make it by reference_of(judge, ...).")
    if digits is not None and (missing := sorted({*range(10)} - {*digits.tolist()})):
        raise ValueError(f"digits must hold each of the ten, got none of {missing}.")
    features = judge.embed(to_model(images))
    accuracy = None if digits is None else _accuracy(judge.head(features).argmax(1), digits)
    distance = frechet_distance(moments(features), reference.test)
    if reference.features is None:
        return Quality(distance, accuracy)
    real = evenly(reference.features, len(features))
    return Quality(distance, accuracy, **manifolds(real, features, NEIGHBOURS)._asdict())


def _accuracy(read: Tensor, digits: Tensor) -> tuple[float, ...]:
    """Share of each digit that was read as such."""
    return tuple(float((read == digits)[digits == digit].float().mean()) for digit in range(10))


def evenly(features: Tensor, count: int) -> Tensor:
    """At most ``count`` features, evenly spaced, because the first test digits are harder."""
    count = min(count, len(features))
    return features[torch.arange(count) * len(features) // count]
