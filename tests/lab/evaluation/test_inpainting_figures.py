"""``composer evaluate inpainting``: what it counts, measures and refuses."""

import json

import pytest
import torch
from click.testing import CliRunner

from composer_lab.cli import evaluate_inpainting
from composer_lab.cli.evaluate import evaluate
from composer_lab.evaluation.inpainting import METHODS, inpainted, lower_half
from composer_plugins.backends.mnist import sample_digits


class Reader:
    """A judge that reads every digit as the one it is told."""

    def __init__(self, digit):
        self.digit = digit

    def classify(self, x):
        return torch.full((len(x),), self.digit)


ROWS = {"clean": 6, "renoise": 6, "ddnm": 6, "repaint 5x2": 11, "repaint 5x4": 21}
POSTERIORS = {"diffpir": 6, "diffpir renewed": 6, "daps": 6, "daps ode 3": 18}
WALKS = {f"lanpaint {n}": 6 + 5 * n for n in (1, 3, 5)}


@pytest.mark.parametrize("conditional", [True, False])
@pytest.mark.parametrize("method", METHODS)
def test_every_method_keeps_what_is_known_and_costs_what_it_should(tiny_mnist, method, conditional):
    digits, labels = (part[::100] for part in sample_digits())
    found = inpainted(tiny_mnist, Reader(int(labels[0])), digits, labels, method, conditional, 6)
    if method in POSTERIORS:  # they take the digits as known up to noise of .05
        assert 0 < found.known_error < 0.05
    else:
        assert found.known_error == 0
    assert found.rows == {**ROWS, **POSTERIORS, **WALKS}[method]
    assert found.kept == pytest.approx(float((labels == labels[0]).float().mean()))
    made = (found.x.clamp(-1, 1) - digits).abs()[:, :, lower_half() == 1].mean()
    assert found.unknown_error == pytest.approx(float(made))
    assert found.unknown_error > 0


def test_the_command_prints_and_keeps_a_table(tmp_path, monkeypatch):
    monkeypatch.delenv("COMPOSER_MNIST", raising=False)
    out = tmp_path / "table.json"
    options = [
        "inpainting",
        "--count",
        "2",
        "--steps",
        "2",
        "--method",
        "clean",
        "--method",
        "ddnm",
    ]
    done = CliRunner().invoke(evaluate, [*options, "--json", str(out)])
    assert done.exit_code == 0, done.output
    assert done.output.startswith("2 test digits, 2 steps, float32\nthe judge reads ")
    rows = json.loads(out.read_text())
    told = [(row["told"], row["method"]) for row in rows]
    assert told == [(t, m) for t in ("the digit", "nothing") for m in ("clean", "ddnm")]
    assert all(row["known_error"] == 0 and row["rows"] == 2 for row in rows)
    out.write_text(json.dumps(rows[:3]))  # stopped before the last line
    made = []
    whole = evaluate_inpainting.inpainted
    monkeypatch.setattr(evaluate_inpainting, "inpainted", lambda *a: made.append(a[4]) or whole(*a))
    assert CliRunner().invoke(evaluate, [*options, "--json", str(out)]).output == done.output
    assert made == ["ddnm"]
    assert json.loads(out.read_text()) == rows


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (["--json", "no/folder/x.json"], "must be a folder. Make it first"),
        (["--data", "nowhere"], "holds neither"),
        (["--steps", "2", "--method", "repaint 5x2"], "leave no room for a jump"),
    ],
)
def test_what_cannot_be_measured_is_a_sentence(bad, words):
    done = CliRunner().invoke(evaluate, ["inpainting", "--count", "1", *bad])
    assert done.exit_code == 2
    assert words in done.output
    assert "Traceback" not in done.output


def test_a_method_that_comes_to_mean_something_else_is_measured_again(tmp_path, monkeypatch):
    monkeypatch.delenv("COMPOSER_MNIST", raising=False)
    out = tmp_path / "table.json"
    options = ["inpainting", "--count", "1", "--steps", "2", "--method", "clean", "--json", out]
    for count in (2, 2):  # told the digit, and nothing
        assert CliRunner().invoke(evaluate, [*map(str, options)]).exit_code == 0
        assert len(json.loads(out.read_text())) == count
    monkeypatch.setitem(METHODS, "clean", METHODS["renoise"])
    assert CliRunner().invoke(evaluate, [*map(str, options)]).exit_code == 0
    assert len(json.loads(out.read_text())) == 4
