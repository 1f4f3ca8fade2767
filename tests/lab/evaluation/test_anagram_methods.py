"""``composer evaluate anagrams --method``: equal costs, and the standard error beside a mean."""

import json
import math

import pytest
from click.testing import CliRunner

from composer_lab.cli import evaluate_anagrams
from composer_lab.cli.evaluate import evaluate
from composer_lab.evaluation.anagrams import METHODS, anagrams, standard_error
from composer_plugins.backends.mnist.readers import load_judges

VIEWS = {"identity": 6, "rotate_180": 9}


@pytest.mark.parametrize("name", METHODS)
def test_each_method_costs_at_most_80_rows_a_sample(tiny_mnist, name):
    stack, steps = METHODS[name]
    found = anagrams(tiny_mnist, load_judges(), VIEWS, [0], stack(VIEWS), None, steps)
    # What steers and chooses takes time too: `composer evaluate anagrams` prints it as rows.
    assert found.rows == (60 if name == "best" else 80)
    assert found.cost > found.rows
    assert found.correct.shape == (3, 1)
    assert found.x.shape == (1, 1, 28, 28)


def test_the_variance_of_a_mean_of_shares_is_unbiased():
    """Its expectation over all outcomes is the variance of the mean, sum p (1 - p) / n / 4."""
    count, chances = 4, (0.3, 0.9)
    expected = sum(p * (1 - p) / count for p in chances) / 4
    found = 0.0
    for a in range(count + 1):
        for b in range(count + 1):
            weight = math.prod(
                math.comb(count, k) * p**k * (1 - p) ** (count - k)
                for k, p in zip((a, b), chances, strict=True)
            )
            found += weight * standard_error([a / count, b / count], count) ** 2
    assert found == pytest.approx(expected)
    assert standard_error([1.0], 1) is None


def test_the_command_samples_by_the_method_and_prints_its_error(tiny_mnist, monkeypatch, tmp_path):
    model = evaluate_anagrams.load_model("mnist")
    object.__setattr__(model, "backend", tiny_mnist)
    monkeypatch.setattr(evaluate_anagrams, "load_model", lambda name, dtype: model)
    monkeypatch.setattr(evaluate_anagrams, "PAIRS", ((6, 9), (1, 1)))
    monkeypatch.setitem(METHODS, "plain", METHODS["plain"]._replace(steps=2))
    seen, whole = [], evaluate_anagrams.judged
    monkeypatch.setattr(evaluate_anagrams, "judged", lambda *a: seen.append(a) or whole(*a))
    file = tmp_path / "table.json"
    options = ["anagrams", "--transform", "flip", "--seeds", "2", "--best-of", "2", "--json", file]
    done = CliRunner().invoke(evaluate, [*map(str, options), "--method", "plain"])
    assert done.exit_code == 0, done.output
    assert [type(plugin).__name__ for plugin in seen[0][4]] == ["Anagram", "CFG"]
    rows = json.loads(file.read_text())
    assert [row["rows"] for row in rows] == [8, 8]
    error = standard_error([row["correct"] for row in rows], 2)
    assert f"standard error of correct: {error:.4f}" in done.output
    # Rows of another method do not match.
    assert CliRunner().invoke(evaluate, [*map(str, options)]).exit_code == 0
    assert [row["rows"] for row in json.loads(file.read_text())] == [8, 8, 60, 60]
