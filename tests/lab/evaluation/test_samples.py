"""``composer evaluate samples``: what it samples, keeps, compares and refuses."""

import hashlib
import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from composer import UNCONDITIONAL, Sampler
from composer.testing import IdentityBackend
from composer_lab.cli import evaluate_samples
from composer_lab.cli.evaluate import evaluate
from composer_lab.evaluation import quality as quality_module
from composer_lab.evaluation import samples as samples_module
from composer_lab.evaluation.distances import frechet_distance, moments
from composer_lab.evaluation.quality import (
    FLOOR_COUNTS,
    balanced,
    evenly,
    quality,
    reference_of,
    shipped_reference,
)
from composer_lab.evaluation.samples import (
    GUIDANCES,
    SHIPPED,
    SOLVERS,
    Model,
    Setting,
    load_model,
    sampled,
)
from composer_lab.training.mnist import save_model
from composer_plugins.backends.mnist import MnistUNet, sample_digits
from composer_plugins.backends.mnist.judge import Judge, judge_hash, load_judge

SETTING = Setting("euler", 2)
JUDGE = "ed6b7106dca3f3e62271ce04d62413be03a5c5c0caad1d7ec5a3f83895b4f2e0"


class Counted(IdentityBackend):
    """Counts the rows it is asked for."""

    rows = 0

    def evaluate(self, batch):
        self.rows += len(batch)
        return super().evaluate(batch)


@pytest.fixture
def model():
    return Model("identity", Counted((1, 28, 28), dtype=torch.float32), "0" * 64)


@pytest.fixture
def digits(monkeypatch):
    """The shipped digits in place of both splits: pixels and labels."""
    images, labels = sample_digits()
    pixels = ((images[:, 0] + 1) * 127.5).round().to(torch.uint8)
    monkeypatch.setattr(quality_module, "load_mnist", lambda split, folder: (pixels, labels))
    return pixels, labels


def test_the_judge_is_the_frozen_one_and_its_features_are_what_its_last_layer_reads():
    judge, (images, _) = load_judge(), sample_digits()
    assert judge_hash(judge) == JUDGE
    features = judge.embed(images[:8])
    assert features.shape == (8, 128)
    torch.testing.assert_close(judge.head(features), judge(images[:8]))
    torch.testing.assert_close(
        judge.embed(3 * images[:8]), judge.embed((3 * images[:8]).clamp(-1, 1))
    )


@pytest.mark.parametrize("solver", SOLVERS)
def test_each_image_is_that_of_its_seed_and_digit(tiny_mnist, solver):
    model, setting = Model("tiny", tiny_mnist, "0" * 64), Setting(solver, 2, 3.0, "cfg")
    made = sampled(model, setting, range(15, 28))
    assert made.digits.tolist() == [seed % 10 for seed in range(15, 28)]
    sampler = Sampler(tiny_mnist, GUIDANCES["cfg"](3.0), SOLVERS[solver], 2)
    for place in (0, 5, 12):
        alone = sampler.sample(int(made.digits[place]), [15 + place])
        assert made.rows == 13 * alone.stats.rows
        pixels = torch.tensor(np.asarray(alone.images[0]).astype(int))
        assert (made.images[place].int() - pixels).abs().max() <= 1  # batches round differently


def test_samples_are_kept_block_by_block_and_not_made_twice(model, tmp_path, monkeypatch):
    monkeypatch.setattr(samples_module, "BLOCK", 10)
    few = sampled(model, SETTING, range(20), tmp_path)
    assert (few.rows, model.backend.rows) == (40, 40)
    again = sampled(model, SETTING, range(20), tmp_path)
    more = sampled(model, SETTING, range(30), tmp_path)
    assert model.backend.rows == 60
    assert torch.equal(few.images, again.images)
    assert torch.equal(few.images, more.images[:20])
    assert (again.rows, more.rows) == (40, 60)
    assert torch.equal(more.images, sampled(model, SETTING, range(30)).images)
    sampled(model, Setting("euler", 2, 2.0, "cfg"), range(10), tmp_path)
    sampled(Model("other", model.backend, "1" * 64), SETTING, range(10), tmp_path)
    sampled(replace(model, dtype="bfloat16"), SETTING, range(10), tmp_path)
    # Of other settings, weights and dtypes nothing is there.
    assert model.backend.rows == 60 + 60 + 40 + 20 + 20


def test_a_damaged_block_is_named(model, tmp_path, monkeypatch):
    sampled(model, SETTING, range(10), tmp_path)
    with monkeypatch.context() as changed:
        changed.setitem(SOLVERS, "euler", SOLVERS["heun"])
        with pytest.raises(ValueError, match="0-10.safetensors was made by another recipe"):
            sampled(model, SETTING, range(10), tmp_path)
    (file,) = tmp_path.rglob("*.safetensors")
    file.write_bytes(file.read_bytes()[:50])
    with pytest.raises(ValueError, match=rf"{file.name} must be a file of samples .*\. Remove it"):
        sampled(model, SETTING, range(10), tmp_path)


def test_a_network_in_bfloat16_samples_nearly_the_same():
    whole, rounded = (
        sampled(load_model("mnist", dtype), SETTING, range(10)).images.float()
        for dtype in ("float32", "bfloat16")
    )
    assert 0 < (whole - rounded).abs().mean() < 3  # of 255


NOT_OF_LATENTS = {
    "threshold": "DynamicThreshold works on pixels",
    "autoguidance": "Autoguidance",
    "slg": "SLG: layers must be names of the network's",
}


@pytest.mark.parametrize("name", SHIPPED)
def test_every_setting_of_the_table_can_be_sampled(name):
    latent = name == "mnist-latent"
    model = load_model(name, weak=None if latent else "mnist")
    assert len(model.weights) == 64
    others = {load_model(n).weights for n in SHIPPED if n != name or not latent}
    assert model.weights not in others
    for solver in SOLVERS:
        for guidance in GUIDANCES:
            if latent and guidance in NOT_OF_LATENTS:
                with pytest.raises(ValueError, match=NOT_OF_LATENTS[guidance]):
                    Setting(solver, 2, 5.0, guidance).sampler(model.backend)
                continue
            for steps in (2, 50):
                sampler = Setting(solver, steps, 5.0, guidance).sampler(model.backend)
                assert len(sampler.times) == steps + 1


def test_only_autoguidance_asks_for_the_weaker_model():
    """Other lines are the same lines, whether one is named or not."""
    settings = [Setting("euler", 2, 2.0, guidance) for guidance in ("cfg", "autoguidance")]
    (with_both, cfg), (with_weak, autoguidance) = evaluate_samples.lines_of(
        "mnist", "float32", "mnist-ddpm", settings
    )
    assert [cfg, autoguidance] == settings
    assert with_both.weights == load_model("mnist").weights
    assert with_weak.weights == load_model("mnist", weak="mnist-ddpm").weights


def test_balanced_digits_are_in_turn_and_from_the_start():
    labels = torch.tensor([3, 0, 0, *range(10), *range(10)])
    images, found = balanced(torch.arange(len(labels)), labels, 13)
    assert found.tolist() == [*range(10), 0, 1, 2]
    assert images.tolist()[:4] == [1, 4, 5, 0]
    assert images[10] == 2
    with pytest.raises(ValueError, match="at most 20 .*got 21"):
        balanced(labels, labels, 21)
    assert evenly(torch.arange(10), 4).tolist() == [0, 2, 5, 7]
    assert evenly(torch.arange(3), 9).tolist() == [0, 1, 2]


def test_quality_tells_digits_from_noise_and_the_right_ones_from_others(digits):
    judge, (pixels, labels) = load_judge(), digits
    reference = reference_of(judge, (100,))
    whole = quality(judge, pixels, labels, reference)
    assert whole.frechet == pytest.approx(0, abs=1e-6)
    assert (whole.precision, whole.recall, whole.coverage) == (1, 1, 1)
    assert min(whole.accuracy) > 0.9
    shifted = quality(judge, pixels, (labels + 1) % 10, reference)
    assert max(shifted.accuracy) < 0.1
    noise = torch.randint(0, 256, pixels.shape, generator=torch.Generator().manual_seed(0))
    astray = quality(judge, noise.to(torch.uint8), labels, reference)
    assert astray.frechet > 20
    assert (astray.precision, astray.recall) == (0, 0)
    ones = quality(judge, pixels[labels == 1].repeat(10, 1, 1), labels.sort().values, reference)
    assert ones.recall < 0.2 < 1 == ones.precision
    floor = reference.floors[100]
    assert 0 < floor.frechet < 0.2 * astray.frechet


def test_the_reference_is_written_and_read_and_belongs_to_its_judge(digits, tmp_path, monkeypatch):
    reference = reference_of(load_judge(), (100, 200))
    weights = tmp_path / "weights"
    weights.mkdir()
    reference.save(weights / "reference.safetensors")
    monkeypatch.setattr(quality_module, "files", lambda package: tmp_path)
    again = shipped_reference()
    torch.testing.assert_close(again.test, reference.test, rtol=1e-6, atol=1e-6, check_dtype=True)
    assert again.features is None
    assert [vars(floor) for floor in again.floors.values()] == [
        {**vars(floor), "accuracy": [*floor.accuracy]} for floor in reference.floors.values()
    ]
    monkeypatch.setattr(quality_module, "judge_hash", lambda judge: "another")
    with pytest.raises(ValueError, match="must be of the judge in the package"):
        shipped_reference()


def test_the_shipped_reference_is_of_mnist():
    reference = shipped_reference()
    assert tuple(reference.floors) == FLOOR_COUNTS
    floors = [floor.frechet for floor in reference.floors.values()]
    assert floors == sorted(floors, reverse=True)
    assert all(floor.recall > 0.85 for floor in reference.floors.values())
    images, _ = sample_digits()  # 300 of the test digits, as many of each kind
    assert frechet_distance(moments(load_judge().embed(images)), reference.test) < 3.2


@pytest.mark.skipif("COMPOSER_MNIST" not in os.environ, reason="needs the MNIST files")
def test_the_shipped_reference_is_that_of_the_data():
    found = reference_of(load_judge(), (500,), Path(os.environ["COMPOSER_MNIST"]))
    shipped = shipped_reference()
    torch.testing.assert_close(found.test, shipped.test, rtol=1e-3, atol=1e-4)
    assert found.floors[500].frechet == pytest.approx(shipped.floors[500].frechet, rel=1e-3)


@pytest.fixture
def command(model, digits, monkeypatch):
    """The command over the identity, with or without test digits."""
    monkeypatch.setattr(evaluate_samples, "load_model", lambda name, dtype: model)
    monkeypatch.delenv("COMPOSER_MNIST", raising=False)

    def run(*options):
        done = CliRunner().invoke(evaluate, ["samples", "--model", "identity", *map(str, options)])
        assert "Traceback" not in done.output
        return done

    return run


def test_the_command_prints_and_keeps_a_line_a_setting(command, model, tmp_path):
    file = tmp_path / "table.json"
    options = ["--solver", "euler", "--steps", 2, "--steps", 4, "--count", 100, "--json", file]
    done = command(*options, "--scale", 1, "--guidance", "cfg", "--guidance", "interval")
    assert done.exit_code == 0, done.output
    rows = json.loads(file.read_text())
    assert [row["steps"] for row in rows] == [2, 4]  # unguided there is one guidance, none
    assert [row["rows"] for row in rows] == [2, 4]
    assert all(row["judge"] == JUDGE and len(row["accuracy"]) == 10 for row in rows)
    assert all(row["recall"] is None and row["frechet"] > 5 for row in rows)
    assert rows[0]["floor"] == shipped_reference().floors[100].frechet
    lines = done.output.splitlines()
    assert lines[0] == f"100 samples per row, float32, judge {JUDGE[:12]}"
    assert len(lines) == 5
    assert "train digits" in lines[2]
    assert f"{rows[0]['frechet']:.3f}" in lines[3]
    guided = command(*options, "--scale", 3, "--guidance", "cfg", "--guidance", "interval")
    assert guided.exit_code == 0, guided.output
    assert len(json.loads(file.read_text())) == 2 + 4


def test_what_is_done_is_not_done_again_until_the_data_can_say_more(command, model, tmp_path):
    file, keep = tmp_path / "table.json", tmp_path / "samples"
    options = ["--solver", "euler", "--steps", 2, "--scale", 1, "--count", 100]
    options += ["--json", file, "--keep", keep]
    first = command(*options)
    spent = model.backend.rows
    assert command(*options).output == first.output
    assert command(*options, "--data", tmp_path).exit_code == 0
    assert model.backend.rows == spent == 200
    plain, whole = json.loads(file.read_text())
    assert plain["recall"] is None
    assert whole["recall"] == 0
    assert whole["frechet"] != plain["frechet"]  # the fixture's digits are other test digits
    command(*options, "--first-seed", 50)
    command(*options, "--steps", 3)
    assert len(json.loads(file.read_text())) == 4


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (["--json", "no/folder/x.json"], "must be a folder. Make it first"),
        (["--json", "{damaged}"], "must be JSON"),
        (["--json", "{other}"], "must hold a table. Name another file"),
        (["--json", "."], "is a folder. Name a file"),
        (["--keep", "{other}"], "is a file. Name a folder"),
        (["--first-seed", "4294967290"], "must be at most 4294966796 for 500 seeds"),
        (
            ["--scale", "20", "--guidance", "cfg++"],
            "--scale must be from 0 to 12.5 for cfg++, got 20",
        ),
        (["--guidance", "autoguidance"], "Name it by --weak"),
        (
            ["--count", "301", "--data", "x"],
            "count must be at most 300 for equally many of each digit, got 301",
        ),
    ],
)
def test_what_cannot_be_measured_is_a_sentence(command, model, tmp_path, bad, words):
    (tmp_path / "damaged").write_text("[{")
    (tmp_path / "other").write_text('{"a": 1}')
    names = {"damaged": tmp_path / "damaged", "other": tmp_path / "other"}
    done = command(*(word.format(**names) for word in bad))
    assert done.exit_code == 2
    assert words in done.output
    assert model.backend.rows == 0


def test_a_folder_without_a_model_raises(tmp_path):
    done = CliRunner().invoke(evaluate, ["samples", "--model", str(tmp_path)])
    assert done.exit_code == 2
    assert "(no path.json)" in done.output


class TimeOnly(Counted):
    """As a model that was trained without classes."""

    def encode(self, condition):
        if condition is not UNCONDITIONAL:
            raise ValueError("the model was trained without classes")
        return super().encode(condition)


def test_a_model_without_classes_is_measured_by_how_its_samples_lie(command, model, tmp_path):
    file = tmp_path / "table.json"
    object.__setattr__(model, "backend", TimeOnly((1, 28, 28), dtype=torch.float32))
    options = ["--solver", "euler", "--steps", 2, "--count", 100, "--json", file]
    done = command(*options, "--scale", 1)
    assert done.exit_code == 0, done.output
    (row,) = json.loads(file.read_text())
    assert row["accuracy"] is None
    assert (row["rows"], row["frechet"] > 5) == (2, True)
    assert done.output.splitlines()[-1].split()[-2:] == ["-", "-"]
    spent = model.backend.rows
    refused = command(*options, "--scale", 1, "--scale", 2)
    assert refused.exit_code == 2
    assert "was trained without. Use --scale 1" in refused.output
    assert model.backend.rows == spent


def test_a_count_without_a_floor_is_said(command):
    done = command("--solver", "euler", "--steps", 1, "--scale", 1, "--count", 101)
    assert "the package has no floor for 101 samples, only for 100, 200, 500," in done.output


def test_qualities_compare_only_under_one_judge_and_with_all_digits(digits):
    judge, (pixels, labels) = load_judge(), digits
    reference = shipped_reference()
    with pytest.raises(ValueError, match=r"each of the ten, got none of \[7\]"):
        quality(judge, pixels, labels.masked_fill(labels == 7, 1), reference)
    assert quality(judge, pixels, None, reference).accuracy is None
    with pytest.raises(ValueError, match="reference must be of this judge"):
        quality(Judge().eval(), pixels, labels, reference)


def test_a_judge_is_hashed_as_its_file_is(tmp_path):
    judge = Judge()
    judge.save(tmp_path / "judge.safetensors")
    written = (tmp_path / "judge.safetensors").read_bytes()
    assert judge_hash(judge) == hashlib.sha256(written).hexdigest() != JUDGE
    again = load_judge(tmp_path / "judge.safetensors")
    assert judge_hash(again) == judge_hash(judge)
    (tmp_path / "junk").write_text("junk")
    for name in ("junk", "nothing"):
        with pytest.raises(ValueError, match=f"{name} must hold a judge .*Name a file that"):
            load_judge(tmp_path / name)


def test_a_weak_model_without_classes_raises_with_its_own_name(tmp_path):
    path = {"schedule": {"type": "flow"}, "prediction": "flow", "network": "flow"}
    unet = MnistUNet(hidden_size=2, num_classes=0, conditioning="multiply")
    save_model(unet, tmp_path / "time", "path.json", path)
    with pytest.raises(
        ValueError, match="the weaker model of .* needs classes, and .*time was trained without"
    ):
        load_model("mnist", weak=str(tmp_path / "time"))
    alone = load_model(str(tmp_path / "time"))
    assert not alone.conditional
    with pytest.raises(
        ValueError, match="anagrams needs classes, .*Name a model that was trained with classes"
    ):
        alone.require_classes("anagrams")
    options = ["--model", str(tmp_path / "time"), "--count", "2", "--steps", "1"]
    done = CliRunner().invoke(evaluate, ["inpainting", *options, "--method", "clean"])
    assert done.exit_code == 0, done.output
    assert "was trained without classes and takes no condition" in done.output
    assert done.output.count("\n  clean") == 1


def test_a_place_that_cannot_be_written_is_found_before_anything_is_sampled(
    command, model, tmp_path, monkeypatch
):
    def fail(self, *options):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr("pathlib.Path.touch", fail)
    for option in ("--json", "--keep"):
        done = command("--count", 100, option, tmp_path / "place")
        assert done.exit_code == 2
        assert "could not be written (Read-only file system)" in done.output
    assert model.backend.rows == 0
