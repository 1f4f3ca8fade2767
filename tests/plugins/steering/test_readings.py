"""Metrics of illusions over any classifier."""

import json
import math

import pytest
import torch
from click.testing import CliRunner
from PIL import Image

from composer import get_transform
from composer_lab.cli import evaluate_anagrams
from composer_lab.cli.evaluate import evaluate
from composer_lab.evaluation.anagrams import PAIRS, Anagrams
from composer_plugins.backends.mnist import sample_digits
from composer_plugins.steering.readings import (
    alignment,
    concealment,
    log_probabilities,
    views_correct,
)
from composer_plugins.steering.reads_as import ReadsAs

VIEWS = {"identity": 0, "rotate_180": 1}


def corners(x):
    """A classifier of two classes: is the top left or the bottom right pixel brighter?"""
    return torch.stack([x[:, 0, 0, 0], x[:, 0, -1, -1]], 1)


def pictures(*values):
    x = torch.zeros(len(values), 1, 4, 4)
    for image, (first, last) in zip(x, values, strict=True):
        image[0, 0, 0], image[0, -1, -1] = first, last
    return x


def test_correct_means_in_every_view():
    # Class 0 upright wants the first corner bright; class 1 turned wants the same corner bright.
    x = pictures((1.0, 0.0), (0.0, 1.0))
    assert views_correct(corners, x, VIEWS).tolist() == [True, False]
    assert views_correct(corners, x, {"identity": 0, "rotate_180": 0}).tolist() == [False, False]


def test_alignment_is_the_least_probability():
    x = pictures((1.0, -1.0))
    sigmoid = 1 / (1 + math.exp(-2))
    assert alignment(corners, x, VIEWS).item() == pytest.approx(sigmoid)
    assert alignment(corners, x, {"identity": 0, "rotate_180": 0}).item() == pytest.approx(
        1 - sigmoid
    )


def test_concealment_is_one_when_views_tell_classes_apart_and_a_half_by_chance():
    assert concealment(corners, pictures((20.0, -20.0)), VIEWS).item() == pytest.approx(1)
    assert concealment(corners, pictures((0.0, 0.0)), VIEWS).item() == pytest.approx(0.5)
    written_out = log_probabilities(corners, pictures((0.6, 0.1)), VIEWS)[0]
    expected = sum((written_out.softmax(d).trace() / 2) for d in (0, 1)) / 2
    assert concealment(corners, pictures((0.6, 0.1)), VIEWS).item() == pytest.approx(expected)


def test_nothing_to_read_raises():
    x = pictures((0.0, 0.0))
    for metric in (log_probabilities, views_correct, alignment, concealment):
        for nothing in ({}, None):
            with pytest.raises(TypeError, match="views must be a dict"):
                metric(corners, x, nothing)
        for no_class in (1.5, True, "3"):
            with pytest.raises(TypeError, match="a class must be an integer"):
                metric(corners, x, {"identity": no_class})
        with pytest.raises(TypeError, match="images must be a tensor"):
            metric(corners, "x", VIEWS)
        with pytest.raises(ValueError, match="classes must be from 0 to 1"):
            metric(corners, x, {"identity": 2})
        with pytest.raises(TypeError, match="must be (a|) ?Transforms?( or the name of one)?, got"):
            metric(corners, x, {5: 1})
    with pytest.raises(ValueError, match="tau"):
        concealment(corners, x, VIEWS, 0)


@pytest.mark.parametrize(
    ("classifier", "words"),
    [
        (None, "must be a function"),
        (lambda x: None, "must return logits .1, K., got NoneType"),
        (lambda x: torch.zeros(3), "must return logits"),
        (lambda x: torch.full((len(x), 2), torch.nan), "NaN or Inf"),
    ],
)
def test_a_classifier_that_reads_nothing_raises(classifier, words):
    for metric in (log_probabilities, views_correct, alignment, concealment):
        with pytest.raises((TypeError, ValueError), match=words):
            metric(classifier, pictures((0.0, 0.0)), VIEWS)


def test_reads_as_prefers_what_reads_as_intended():
    images, labels = sample_digits()
    six, other = images[labels == 6][:5], images[labels == 1][:5]
    turned = get_transform("rotate_180")(six)
    score = ReadsAs({"identity": 6})
    assert score(six).min() > score(other).max()
    torch.testing.assert_close(ReadsAs({"rotate_180": 6})(turned), score(six))
    with pytest.raises(ValueError, match="0 to 9"):
        ReadsAs({"identity": 10})
    with pytest.raises(TypeError, match="views must be a dict"):
        ReadsAs([6])


def test_best_of_takes_the_chosen_of_each_group():
    correct = torch.tensor([[True, False, False, True], [True, True, False, False]])
    scores = torch.tensor([1.0, 0.0, 1.0, 0.0])
    found = Anagrams(
        VIEWS, torch.zeros(4, 1, 2, 2), correct, scores, scores, scores, scores, 80.0, 81.0
    )
    assert found.best_of(1) == 0.5
    assert found.best_of(2) == 0.5  # the right one of the first pair, the wrong one of the second
    assert found.best_of(3) == found.best_of(4) == 1.0  # ties go to the first
    assert found.any_of(2) == 0.75  # the second judge reads neither of the second pair
    assert found.any_of(4) == 1.0


@pytest.fixture
def table(tmp_path, monkeypatch):
    """The command over two pairs, of two seeds each."""
    monkeypatch.setattr(evaluate_anagrams, "PAIRS", PAIRS[:2])
    options = ["anagrams", "--transform", "flip", "--seeds", 2, "--best-of", 2]

    def run(*more):
        done = CliRunner().invoke(evaluate, [*map(str, (*options, *more))])
        assert "Traceback" not in done.output
        return done

    return run


def measured(output):
    """What was printed, without the cost, which is a time."""
    lines = output.splitlines()
    return [line.rpartition("  ")[0] if "/" in line.split()[0] else line for line in lines]


def test_the_command_prints_and_keeps_a_row_a_pair(table, tmp_path, monkeypatch):
    file = tmp_path / "table.json"
    done = table("--json", file)
    assert done.exit_code == 0, done.output
    rows = json.loads(file.read_text())
    assert [row["pair"] for row in rows] == [[0, 0], [0, 1]]
    for row in rows:
        assert 0 <= row["lowest"] <= row["correct"] <= 1
        assert row["cost"] > row["rows"] > 0
        assert sorted(row["by judge"]) == ["lenet", "residual", "shallow"]
    assert "mean of unequal 1" in done.output
    # One that was stopped goes on, and ends as if it had not been.
    file.write_text(json.dumps(rows[:1]))
    made, whole = [], evaluate_anagrams.judged
    monkeypatch.setattr(evaluate_anagrams, "judged", lambda *a: made.append(a[2]) or whole(*a))
    assert measured(table("--json", file).output) == measured(done.output)
    assert made == [{"identity": 0, "flip": 1}]
    again = json.loads(file.read_text())
    assert [{**row, "cost": 0} for row in again] == [{**row, "cost": 0} for row in rows]
    table("--json", file, "--gallery", tmp_path / "best.png")
    assert len(made) == 3  # a picture needs the images of all
    assert json.loads(file.read_text()) == again
    assert Image.open(tmp_path / "best-flip.png").width > 28


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (["--best-of", "3"], "at least the 3 of --best-of"),
        (["--transform", "flop"], "Did you mean flip"),
        (["--transform", "identity"], "must be another view than the identity"),
        (["--transform", "orthogonal"], "Orthogonal"),
        (["--gallery", "no/x"], "must be a folder"),
        (["--json", "."], "is a folder. Name a file"),
        (["--json", "no/x.json"], "must be a folder"),
        (["--model", "nowhere"], "there is no folder 'nowhere'. Name a folder model/"),
        (
            ["--backend", "nouns"],
            "nouns must make digits of (1, 28, 28), got images of (3, 32, 32)",
        ),
    ],
)
def test_what_cannot_be_measured_is_a_sentence(table, monkeypatch, bad, words):
    monkeypatch.setattr(evaluate_anagrams, "judged", None)  # said before anything is sampled
    done = table(*bad)
    assert done.exit_code == 2
    assert words in done.output
