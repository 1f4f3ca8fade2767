"""``composer sample`` and its short forms: what is written, and what happens to bad input."""

import tomllib
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from studio_commands import COMMANDS

import composer
from composer import Sampler
from composer_lab.evaluation.anagrams import anagram_stack
from composer_plugins import CFG, Anagram, Hybrid, Inpaint, ReadsAs, SDEdit
from composer_plugins.backends.mnist import sample_digits
from composer_studio import sampling
from composer_studio.remembered import read_memory
from composer_studio.runs import PREVIEW, Preview, joined, parts

VIEWS = {"identity": 6, "rotate_180": 9}


def expected(plugins, seeds, condition=None, steps=3):
    return Sampler(composer.load_backend("mnist"), plugins, num_inference_steps=steps).sample(
        condition, seeds
    )


def pixels(file):
    with Image.open(file) as picture:
        return np.asarray(picture, dtype=int)


def same(file, image):
    return abs(pixels(file) - np.asarray(image, dtype=int)).max() <= 1  # other batches round


def test_every_command_is_an_entry_point_that_resolves():
    text = (Path(__file__).parents[2] / "pyproject.toml").read_text()
    points = tomllib.loads(text)["project"]["entry-points"]["composer.commands"]
    for name, command in COMMANDS.items():
        module, _, attribute = points[name].partition(":")
        assert getattr(import_module(module), attribute) is command


def test_sample_writes_what_the_library_makes_in_batches(studio, six_nine, tmp_path):
    done = studio("sample", six_nine, "--batch", 2, "--set", "plugins.cfg.scale=2.0")
    assert done.exit_code == 0, done.output
    folder = tmp_path / "six-nine"
    assert sorted(p.name for p in folder.iterdir()) == [f"{k:04d}.png" for k in range(5)]
    result = expected([Anagram(VIEWS), CFG(2.0)], range(5))
    for seed, image in enumerate(result.images):
        assert same(folder / f"{seed:04d}.png", image)
        assert read_memory(folder / f"{seed:04d}.png").seed == seed


def test_best_keeps_the_highest_scores_and_takes_the_views_of_the_recipe(
    studio, six_nine, tmp_path
):
    out = tmp_path / "out"
    done = studio(
        "sample", six_nine, "--best", 2, "--score", "reads_as", "--out", out, "--batch", 3,
        "--sheet", "--animate", "gif", "--seeds", "0:6",
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    scores = ReadsAs(VIEWS)(expected([Anagram(VIEWS), CFG(4.0)], range(6)).x)
    best = scores.argsort(descending=True)[:2].tolist()
    names = [f"{seed:04d}.png" for seed in best]
    assert {p.name for p in out.iterdir()} == {*names, "sheet.png", "animation.gif"}
    shown = [float(line.split()[0]) for line in done.output.splitlines()[:2]]
    torch.testing.assert_close(torch.tensor(shown), scores[best].cpu(), atol=1e-3, rtol=0)
    with Image.open(out / "animation.gif") as film:
        assert film.n_frames > 10


@pytest.mark.parametrize(
    ("arguments", "plugins", "condition"),
    [
        (["anagram", "6", "9", "--view", "flip"], anagram_stack({"identity": 6, "flip": 9}), None),
        (["hybrid", "3", "8", "--sigma", "1.5"], [Hybrid(3, 8, 1.5)], None),
        (
            ["inpaint", "photo.png", "mask.png", "--condition", "8"],
            [lambda: Inpaint("photo.png", "mask.png", fit="crop")],
            8,
        ),
        (
            ["sdedit", "photo.png", "--condition", "3", "--strength", "0.7"],
            [lambda: SDEdit("photo.png", strength=0.7, fit="crop")],
            3,
        ),
    ],
    ids=lambda value: value[0] if isinstance(value, list) and isinstance(value[0], str) else "",
)
def test_a_short_form_is_its_stack(studio, tmp_path, monkeypatch, arguments, plugins, condition):
    monkeypatch.chdir(tmp_path)
    images, _ = sample_digits()
    pixel = ((images[0, 0] + 1) * 127.5).round().to(torch.uint8).numpy()
    Image.fromarray(pixel).save("photo.png")
    mask = np.zeros((28, 28), np.uint8)
    mask[:, 14:] = 255
    Image.fromarray(mask).save("mask.png")
    done = studio(*arguments, "--steps", 3, "--seeds", "1:3", "--size", 28)
    assert done.exit_code == 0, done.output
    made = [plugin() if not hasattr(plugin, "needs_pixels") else plugin for plugin in plugins]
    guidance = [] if arguments[0] == "anagram" else [CFG(4.0)]  # its stack has its own
    result = expected([*made, *guidance], [1, 2], condition)
    for seed, image in zip((1, 2), result.images, strict=True):
        assert same(tmp_path / arguments[0] / f"{seed:04d}.png", image)
    assert (tmp_path / arguments[0] / "sheet.png").is_file()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["sample", "none.toml"], "none.toml: it cannot be read (No such file or directory)."),
        (["sample", "recipe.py"], "recipe.py: a recipe must end in .toml or .json."),
        (["anagram", "6", "nine"], "Anagram: a condition must be a digit from 0 to 9, got 'nine'"),
        (["anagram", "6", "9", "--set", "steps"], "--set must be such as plugins.cfg.scale=3"),
        (["anagram", "6", "9", "--seeds", "x"], "composer anagram: seeds must be such as 7"),
        (["anagram", "6", "9", "--best", "2"], "best needs a score, such as --score reads_as."),
        (["anagram", "6", "9", "--score", "nice", "--best", "2"], "Unknown score 'nice'"),
        (["anagram", "6", "9", "--backend", "mnits"], "Did you mean mnist or "),
        (["anagram", "6", "9", "--model", "x"], "backend has no option 'model'."),
        (["inpaint", "none.png", "none.png"], "there is no picture 'none.png'."),
        (["show", "none.png"], "none.png: No such file or directory."),
        (["rank", "none", "--score", "reads_as"], "none: it must be a folder."),
        (["recipe", "check", "none.toml"], "none.toml: it cannot be read"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(studio, tmp_path, monkeypatch, arguments, said):
    monkeypatch.chdir(tmp_path)
    done = studio(*arguments)
    assert done.exit_code == 2
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not done.stdout
    assert not [*tmp_path.iterdir()]


def test_ctrl_c_leaves_whole_files_and_says_how_to_go_on(studio, six_nine, tmp_path, monkeypatch):
    batches = sampling.Run.batches

    def stopped(self, *arguments):
        yield from [next(batches(self, *arguments))]
        raise KeyboardInterrupt

    monkeypatch.setattr(sampling.Run, "batches", stopped)
    done = studio("sample", six_nine, "--batch", 2)
    assert done.exit_code == 130
    assert "2 whole pictures are in" in done.stderr
    assert "add --seeds '2:5'." in done.stderr
    assert len([*(tmp_path / "six-nine").iterdir()]) == 2


def test_the_preview_is_renewed_and_goes(studio, tmp_path, monkeypatch):
    seen, now = [], iter(range(100))
    monkeypatch.setattr("composer_studio.runs.time.monotonic", lambda: next(now))
    preview = Preview(tmp_path)

    def look(state):
        preview(state)
        seen.append((tmp_path / PREVIEW).read_bytes())

    sampler = Sampler(composer.load_backend("mnist"), [CFG(2.0)], num_inference_steps=3)
    sampler.sample(3, range(4), callback=look)
    assert len(set(seen)) == 3
    preview.remove()
    assert not [*tmp_path.iterdir()]


def test_output_stays_in_the_folder_of_the_recipe(studio, six_nine):
    six_nine.write_text(f'{six_nine.read_text()}\n[output]\nfolder = "../elsewhere"\n')
    done = studio("sample", six_nine)
    assert done.exit_code == 2
    assert "output.folder must lie in the recipe's folder" in done.stderr


def test_a_recipe_needs_trust_for_what_may_read_files(studio, six_nine):
    text = six_nine.read_text().replace('"mnist"', '{ use = "mnist", weights = "model" }')
    six_nine.write_text(text)
    assert "Add --trust weights if you trust it" in studio("sample", six_nine).stderr
    assert "there is no folder 'model'" in studio("sample", six_nine, "--trust", "weights").stderr


def test_recipe_show_is_what_the_library_reads(studio, six_nine):
    import json

    recipe = json.loads(studio("recipe", "show", six_nine, "--set", "steps=2").stdout)
    assert Sampler.from_recipe(recipe).num_inference_steps == 2
    assert "Anagram" in studio("recipe", "check", six_nine).stdout
    for setting, said in (("best=2", "best needs a score"), ("folder='../x'", "must lie in")):
        wrong = studio("recipe", "check", six_nine, "--set", f"output.{setting}")
        assert (wrong.exit_code, said in wrong.stderr) == (2, True)
    assert json.loads(studio("recipe", "schema").stdout)["properties"]["plugins"]


def test_parts_and_joined_are_inverse():
    sampler = Sampler(composer.load_backend("mnist"), num_inference_steps=2)
    results = [sampler.sample(1, seeds) for seeds in parts([3, 1, 4, 5, 9], 2)]
    assert [r.seeds for r in results] == [(3, 1), (4, 5), (9,)]
    assert joined(results).seeds == (3, 1, 4, 5, 9)
    assert joined(results).x[3].equal(results[1].x[1])


def test_an_error_before_the_first_picture_leaves_no_folder(studio, six_nine, tmp_path):
    before = sorted(tmp_path.iterdir())
    deep = tmp_path / "a" / "b"
    for call in (
        ("sample", six_nine, "--set", "condition=dog"),
        ("sample", six_nine, "--set", "condition=dog", "--out", deep),
        ("hybrid", 3, 88, "--out", deep),
        ("sweep", six_nine, "--set", "condition=dog", "--out", deep),
        ("sweep", six_nine, "--set", "backend.device=cudda", "--out", deep),
    ):
        done = studio(*call)
        assert (done.exit_code, done.stderr.count("\n")) == (2, 1), done.output
        assert sorted(tmp_path.iterdir()) == before
    (kept := tmp_path / "kept").mkdir()
    assert studio("sweep", six_nine, "--set", "condition=dog", "--out", kept).exit_code == 2
    assert not [*kept.iterdir()]  # a folder that was there stays
    assert studio("sweep", six_nine, "--seeds", 0, "--out", kept).exit_code == 0


def test_the_folder_may_be_the_one_that_one_stands_in(studio, six_nine, tmp_path, monkeypatch):
    (inside := tmp_path / "inside").mkdir()
    monkeypatch.chdir(inside)
    assert studio("sample", six_nine, "--seeds", "0:2", "--out", ".").exit_code == 0
    assert [p.name for p in sorted(inside.iterdir())] == ["0000.png", "0001.png"]


def test_a_score_that_chooses_nothing_is_an_error(studio, six_nine):
    for call in (("sample", six_nine), ("anagram", 6, 9)):
        done = studio(*call, "--score", "reads_as")
        assert done.exit_code == 2
        assert "--score goes with --best" in done.stderr


def test_replay_finds_a_wrong_place_before_the_work(studio, six_nine, tmp_path, monkeypatch):
    studio("sample", six_nine, "--seeds", 0, "--out", tmp_path / "out")
    monkeypatch.setattr(Sampler, "from_recipe", lambda *a, **k: pytest.fail("sampled"))
    (wrong := tmp_path / "folder").mkdir()
    done = studio("replay", tmp_path / "out" / "0000.png", "--out", wrong)
    assert (done.exit_code, done.stderr.count("\n")) == (2, 1)
    done = studio("replay", six_nine, "--out", tmp_path / "new" / "x.png")
    assert done.exit_code == 2
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("view", "said"),
    [("identity", "it must turn the image"), ("rotate_18", "Did you mean rotate_180")],
)
def test_the_view_of_an_anagram_turns_the_image(studio, tmp_path, view, said):
    done = studio("anagram", 6, 9, "--view", view, "--out", tmp_path / "out")
    assert done.exit_code == 2
    assert said in done.stderr
    assert not (tmp_path / "out").exists()


def test_ctrl_c_before_the_first_picture_leaves_nothing(studio, six_nine, tmp_path, monkeypatch):
    def stopped(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(Sampler, "sample", stopped)
    done = studio("sample", six_nine)
    assert done.exit_code == 130
    assert done.stderr == "Stopped. No picture was finished. The same command begins again.\n"
    assert not (tmp_path / "six-nine").exists()
