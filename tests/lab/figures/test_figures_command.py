"""``composer figures``, the figures of trainings, and how figures are drawn."""

import importlib.util
import json
from dataclasses import asdict

import pytest
import torch
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.textpath import TextPath
from PIL import Image

from composer import UnknownNameError
from composer.cli import main
from composer.predictions import PREDICTIONS
from composer.schedules import DiscreteSchedule, FlowSchedule
from composer.solvers import DDPM
from composer_lab.cli.figures import noted as with_note
from composer_lab.cli.figures import of_whom
from composer_lab.figures import FIGURES, Effort, Lab, Row, Run, Sheet, about, chosen, stand_ins
from composer_lab.figures.curves import Curves, Panel, smoothed
from composer_lab.figures.films import Film
from composer_lab.figures.sheets import LABEL, wrapped
from composer_lab.figures.training import losses
from composer_lab.training.denoiser import FixedNoise, load_denoiser
from composer_lab.training.snapshots import plan
from composer_plugins.backends.mnist import MnistBackend, MnistUNet
from composer_plugins.backends.mnist.backend import read_unet

QUICK = Effort(steps=2, columns=2)


def unet(conditioning):
    torch.manual_seed(0)
    classes = 10 if conditioning == "class" else 0
    return MnistUNet(hidden_size=2, num_classes=classes, conditioning=conditioning).eval()


def train(folder, prediction, conditioning, file, description, epochs=(1, 10)):
    """What a training leaves, without the training."""
    folder.mkdir()
    log = {"prediction": prediction, "loss": [1.0, 0.5, 0.3, 0.2], "epochs": 12, **description}
    (folder / "log.json").write_text(json.dumps(log))
    for place in (*(f"epoch-{epoch:03}" for epoch in epochs), "."):
        model = folder / place / "model"
        unet(conditioning).save_pretrained(model)
        (model / file).write_text(json.dumps(description))
    return folder


@pytest.fixture
def denoiser(tmp_path):
    return train(tmp_path / "denoiser", "sample", "none", "denoiser.json", asdict(FixedNoise(0.5)))


@pytest.fixture(params=["class", "multiply"])
def flow(tmp_path, request):
    path = {"schedule": {"type": "flow"}, "prediction": "flow"}
    return train(tmp_path / "flow", "flow", request.param, "path.json", path)


def figures(*arguments):
    done = CliRunner().invoke(main, ["figures", *map(str, arguments)])
    assert "Traceback" not in done.output
    return done


def test_the_epochs_of_a_denoiser_answer_the_same_noisy_digits(denoiser):
    run = Run.read(denoiser)
    make = chosen(["denoiser-epochs"], [run])["denoiser-epochs"]
    ((digit, shown, *epochs),) = make(Lab(QUICK, seed=1, runs=[run])).groups
    assert [row.label for row in epochs] == ["epoch 1", "epoch 10", "epoch 12"]
    network = load_denoiser(denoiser / "epoch-001" / "model")
    assert torch.equal(shown.images, network.show(digit.images, 1))
    assert torch.equal(epochs[0].images, network(shown.images))


def test_the_epochs_of_a_sampler_are_sampled_from_the_same_noise(flow):
    run = Run.read(flow)
    (group,) = chosen(["samples-epochs"], [run])["samples-epochs"](Lab(QUICK, runs=[run])).groups
    first, *_, last = (row.images for row in group)
    assert [row.label for row in group] == ["epoch 1", "epoch 10", "epoch 12"]
    assert first.shape == (10, 1, 28, 28)
    assert torch.equal(first, last)  # the same weights in both
    assert not torch.equal(first[0], first[1])


def test_of_noise_alone_the_epochs_are_compared_with_the_mean_digit(tmp_path, denoiser):
    pure = train(
        *(tmp_path / "pure", "sample", "none", "denoiser.json"),
        asdict(FixedNoise(pure_noise=True)),
    )
    runs = [Run.read(pure)]
    sheet = chosen(["denoiser-epochs"], runs)["denoiser-epochs"](Lab(QUICK, runs=runs))
    (group,) = sheet.groups
    assert [group[0].label, group[-1].label] == ["noise z", "E[x]"]
    assert group[0].images.std() == pytest.approx(1, abs=0.05)
    assert "E[x]" in sheet.caption
    assert "strokes" not in sheet.caption
    both = [*runs, Run.read(denoiser)]
    caption = chosen([], both)["denoiser-epochs"](Lab(QUICK, runs=both)).caption
    assert "E[x]" in caption
    assert "strokes" in caption


def test_a_training_stands_for_the_shipped_network_of_its_kind(tmp_path, denoiser, flow):
    path = {"schedule": {"type": "linear", "num_train_timesteps": 300}, "prediction": "epsilon"}
    ddpm = train(tmp_path / "ddpm", "epsilon", "class", "path.json", path, epochs=())
    pure = train(
        *(tmp_path / "pure", "sample", "none", "denoiser.json"),
        asdict(FixedNoise(pure_noise=True)),
    )
    runs = [Run.read(folder) for folder in (denoiser, pure, flow, ddpm)]
    told = read_unet(flow / "model").num_classes > 0
    places = {"denoiser": runs[0], "pure noise": runs[1], "mnist-ddpm": runs[3]}
    assert stand_ins(runs) == (places | {"mnist": runs[2]} if told else places)
    lab = Lab.of(runs)
    z = lab.noise(2)
    assert torch.equal(lab.denoisers["denoiser"]()(z), load_denoiser(denoiser / "model")(z))
    assert not torch.equal(lab.denoisers["denoiser"]()(z), Lab().denoisers["denoiser"]()(z))
    assert lab.denoisers["pure noise"]().noise.pure_noise
    assert len(lab.models["mnist-ddpm"]().schedule) == 300
    assert (lab.models["mnist"] is Lab().models["mnist"]) is not told
    assert lab.names["mnist"] == (f"flow, {flow}" if told else "flow")
    assert str(denoiser) in lab.names["denoiser"]
    done = figures(tmp_path / "out", "--only", "schedules", "--run", flow, "--run", denoiser)
    role = "in place of mnist" if told else "shown by its losses and epochs"
    assert done.output.splitlines()[:2] == [f"{flow}: {role}", f"{denoiser}: in place of denoiser"]


def test_a_path_that_does_not_end_in_noise_is_sampled_as_the_course_does():
    """Or the digits of its samples are not those it learned: T = 300 ends in 22 % image."""

    def network(schedule, kind):
        return MnistBackend(unet("class"), schedule, PREDICTIONS[kind])

    solver, steps = plan(network(DiscreteSchedule.linear(300), "epsilon"), 20)
    assert (solver, steps) == (DDPM(variance="fixed_large"), 300)
    whole = network(DiscreteSchedule.linear(1000), "epsilon")
    assert plan(whole, 20) == (whole.default_solver, 20)
    flow = network(FlowSchedule(), "flow")
    assert plan(flow, 20) == (flow.default_solver, 20)


@pytest.mark.parametrize(
    "log",
    [
        "3",
        "{",
        '{"prediction": "flow", "epochs": 1}',
        '{"prediction": "flow", "epochs": 1, "loss": []}',
        '{"prediction": "flow", "epochs": 1, "loss": ["a"]}',
        '{"loss": [1.0], "epochs": 1}',
    ],
)
def test_a_log_that_is_none_is_named(tmp_path, log):
    (tmp_path / "log.json").write_text(log)
    with pytest.raises(ValueError, match="must have an intact log.json"):
        Run.read(tmp_path)


def test_several_runs_stand_in_one_picture(denoiser, flow):
    runs = [Run.read(denoiser), Run.read(flow)]
    assert {"denoiser-epochs", "samples-epochs"} <= chosen([], runs).keys()
    panels = losses(Lab(QUICK, runs=runs)).panels
    assert [[*panel.lines] for panel in panels] == [[str(denoiser)], [str(flow)]]


def test_the_loss_is_of_the_shipped_logs_without_a_run():
    panels = losses(Lab(QUICK)).panels
    names = {name for panel in panels for name in panel.lines}
    assert {"flow", "ddpm"} <= names
    for panel in panels:
        for mean, raw in panel.lines.values():
            at = len(mean.y) // 2
            size = min(100, max(1, len(raw.y) // 20))
            first = int(mean.x[at]) - (size - 1) // 2
            torch.testing.assert_close(mean.y[at], raw.y[first : first + size].mean())


def test_a_name_finds_its_figure_or_the_nearest(denoiser):
    assert [*chosen([])] == [*FIGURES]
    assert [*chosen(["sdedit", "noising"])] == ["noising", "sdedit"]
    with pytest.raises(UnknownNameError, match="Did you mean"):
        chosen(["sdedt"])
    with pytest.raises(ValueError, match="a folder that `composer train mnist` wrote"):
        chosen(["samples-epochs"], [Run.read(denoiser)])


def test_the_command_writes_the_named_figures(tmp_path):
    out = tmp_path / "new" / "figures"
    done = figures(out, "--only", "schedules", "--only", "noising")
    assert done.exit_code == 0, done.output
    assert sorted(file.name for file in out.iterdir()) == ["noising.png", "schedules.png"]
    first = (out / "noising.png").read_bytes()
    figures(out, "--only", "noising")
    assert (out / "noising.png").read_bytes() == first
    figures(out, "--only", "noising", "--seed", 1)
    assert (out / "noising.png").read_bytes() != first


def test_the_list_needs_no_folder():
    done = figures("--list")
    assert done.exit_code == 0
    assert all(name in done.output for name in (*FIGURES, "samples-epochs"))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--only", "nosing"], "Unknown figure 'nosing'. Did you mean noising"),
        (["--only", "samples-epochs"], "Name with --run a folder"),
        (
            ["--run", "nowhere"],
            "log.json cannot be read (No such file or directory). ",
        ),
    ],
)
def test_what_cannot_be_drawn_raises_before_any_work(tmp_path, arguments, words):
    done = figures(tmp_path / "out", *arguments)
    assert done.exit_code == 2
    assert words in done.output
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("below", ["", "further"])
def test_a_file_is_no_folder_for_figures(tmp_path, below):
    (tmp_path / "taken").write_text("mine")
    done = figures(tmp_path / "taken" / below)
    assert done.exit_code == 2
    assert "cannot be a folder" in done.output
    assert (tmp_path / "taken").read_text() == "mine"


def test_without_matplotlib_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    done = figures(tmp_path / "out", "--only", "noising")
    assert done.exit_code == 2
    assert "pip install 'diffusion-composer[train]'" in done.output


def grey(count, value=0.0):
    return torch.full((count, 1, 28, 28), value)


SHEET = Sheet("Title", [[Row("one", grey(3), ["a", "b", "c"])], [Row("two", grey(2))]], ["x"] * 3)
CURVES = Curves("Title", [Panel("p", {"n": [smoothed([3.0, 2.0, 1.0])]}, "x", "y", log=True)])
FILM = Film([{"x": grey(2)}, {"x": grey(2, 1.0)}], ["begin", "end"])


@pytest.mark.parametrize("figure", [SHEET, CURVES, FILM], ids=["sheet", "curves", "film"])
def test_a_figure_is_written_whole_or_not_at_all(tmp_path, monkeypatch, figure):
    file = tmp_path / f"picture{figure.suffix}"
    figure.write(file)
    with Image.open(file) as picture:
        assert picture.width > 100
        assert getattr(picture, "n_frames", 1) == (2 if figure is FILM else 1)
    before = file.read_bytes()

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        figure.write(file)
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [before]


def test_rows_do_not_overlap_and_groups_stand_apart():
    one, two, end = SHEET.tops
    assert two - one > SHEET.rows[0].height
    assert end == pytest.approx(two + SHEET.rows[1].height)


def test_a_training_that_goes_on_is_shown_by_what_is_whole(flow, tmp_path):
    """Killed, or still, in the midst of writing an epoch: its description comes last."""
    (flow / "epoch-010" / "model" / "path.json").unlink()
    (flow / "model" / "path.json").unlink()
    (flow / "epoch-020" / "model").mkdir(parents=True)
    run = Run.read(flow)
    assert [*run.epochs] == [1]
    assert run.model == flow / "epoch-001" / "model"
    (flow / "epoch-001" / "model" / "path.json").unlink()
    assert (Run.read(flow).kind, Run.read(flow).place) == (None, None)


WORDS = f"{about(FIGURES['denoising'])} The model is told that it is a 2.".split()


@given(st.lists(st.sampled_from(WORDS), min_size=1, max_size=60), st.floats(3, 12))
def test_lines_are_no_wider_than_the_picture(words, width):
    """As matplotlib sets them, up to a twentieth: `wrapped` only guesses, by the mean letter."""
    lines = wrapped(" ".join(words), width, LABEL).split("\n")
    assert " ".join(lines) == " ".join(words)
    for line in lines:
        assert TextPath((0, 0), line, size=LABEL).get_extents().width / 72 <= 1.05 * width


def test_a_running_mean_is_the_mean_of_the_steps_around():
    line = smoothed([*range(60)])
    assert line.x.tolist() == [*range(1, 59)]
    assert line.y.tolist() == [*range(1, 59)]
    assert smoothed([1.0]).y.tolist() == [1.0]


def test_a_picture_says_whose_networks_drew_it(denoiser, tmp_path):
    """And that its caption is of other networks than those that a student has trained."""
    run = Run.read(denoiser)
    time_only = Run("time", {"prediction": "flow", "loss": [1.0], "epochs": 1}, {})
    assert of_whom([]) == ""
    assert of_whom([time_only]) == "Drawn by the networks in the package."
    note = of_whom([time_only, run])
    assert note.startswith(
        f"With {run.name} in place of denoiser; the caption describes the results"
    )
    assert with_note(SHEET, note).caption == f"{SHEET.caption} {note}".strip()
    assert with_note(FILM, note) is FILM


@pytest.mark.parametrize(("name", "noted"), [("loss", False), ("denoiser-noise-levels", True)])
def test_the_command_notes_it_below_the_pictures(denoiser, tmp_path, monkeypatch, name, noted):
    seen = []
    monkeypatch.setattr(Sheet, "write", lambda self, file: seen.append(self.caption))
    monkeypatch.setattr(Curves, "write", lambda self, file: seen.append(self.caption))
    options = ["figures", str(tmp_path / "out"), "--run", str(denoiser), "--only", name]
    done = CliRunner().invoke(main, options)
    assert done.exit_code == 0, done.output
    assert ("in place of denoiser" in seen[0]) is noted
