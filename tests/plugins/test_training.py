import json
import os
import signal
import subprocess
import sys
import time

import pytest
import torch
from click.testing import CliRunner
from torch import nn

import composer
from composer.cli import main
from composer.predictions import EPSILON, FLOW, PREDICTIONS
from composer.schedules import DiscreteSchedule, FlowSchedule
from composer_plugins.backends.mnist import MnistUNet, sample_digits
from composer_plugins.training import Objective, Trainer, warm_average
from composer_plugins.training_config import TrainingConfig
from composer_plugins.training_data import FixedImages
from composer_plugins.writing import write_atomically


def digits(count=64):
    images, labels = sample_digits()
    return ((images[:count, 0] + 1) * 127.5).round().to(torch.uint8), labels[:count]


def trainer(folder, prediction=FLOW, epochs=2, width=4, **options):
    torch.manual_seed(0)
    schedule = FlowSchedule() if prediction is FLOW else DiscreteSchedule.linear()
    config = TrainingConfig(epochs=epochs, batch_size=16, checkpoint_every=3, **options)
    images, labels = digits()
    model = MnistUNet(hidden_size=width)
    data = FixedImages(images, labels)
    return Trainer(model, Objective(schedule, prediction), data, 10, config, folder)


@pytest.mark.parametrize("prediction", [FLOW, EPSILON])
def test_the_loss_falls(tmp_path, prediction):
    run = trainer(tmp_path, prediction, epochs=12, width=8, learning_rate=1e-2)
    run.run(progress=False)
    assert sum(run.losses[-8:]) < 0.7 * sum(run.losses[:8])
    log = json.loads((tmp_path / "log.json").read_text())
    assert len(log["loss"]) == log["steps"] == 48
    assert log["prediction"] == prediction.name


@pytest.mark.parametrize("kind", sorted(PREDICTIONS))
def test_batches_are_the_forward_process_and_its_target(tmp_path, kind):
    run = trainer(tmp_path)
    run.objective = Objective(DiscreteSchedule.linear(), PREDICTIONS[kind])
    (batch,) = run.batches(1, 2)
    schedule = run.objective.schedule
    alpha, sigma = (
        v.float()[:, None, None, None] for v in schedule.alpha_sigma(batch.times.double() * 1000)
    )
    a, b = PREDICTIONS[kind].row(alpha, sigma)
    # Two equations, x and target, give x_0 and noise back; x_0 is a digit, noise is noise.
    d = alpha * b - a * sigma
    x0 = (b * batch.x - sigma * batch.target) / d
    usable = alpha.flatten() > 0.3
    assert usable.sum() >= 4
    images = run.data.images[:, None].float() / 127.5 - 1
    gaps = (x0[usable, None] - images[None]).abs().amax((2, 3, 4)).amin(1)
    assert gaps.max() < 1e-3


def test_labels_are_dropped_at_the_stated_rate(tmp_path):
    run = trainer(tmp_path, epochs=100, class_drop=0.25)
    labels = torch.cat([batch.labels for batch in run.batches(0, 200)])
    # 3200 draws: the rate is within 0.05 of .25 but for one case in 10^10.
    assert (labels == 10).float().mean().item() == pytest.approx(0.25, abs=0.05)


def test_every_image_is_seen_once_an_epoch(tmp_path):
    run = trainer(tmp_path, class_drop=0.0)
    run.data = FixedImages(run.data.images, torch.arange(64))
    for epoch in (0, 1):
        labels = torch.cat([b.labels for b in run.batches(4 * epoch, 4 * epoch + 4)])
        assert labels.sort().values.tolist() == list(range(64))


class Killed(BaseException):
    pass


@pytest.mark.parametrize("die_at", [1, 3, 5, 7])
def test_a_resumed_run_is_the_uninterrupted_run(tmp_path, die_at):
    whole = trainer(tmp_path / "whole")
    expected = whole.run(progress=False)
    broken = trainer(tmp_path / "broken")
    update = broken._update

    def dying(batch):
        if broken.step == die_at:
            raise Killed
        return update(batch)

    broken._update = dying
    with pytest.raises(Killed):
        broken.run(progress=False)
    again = trainer(tmp_path / "broken")
    resumed = again.run(progress=False)
    assert again.losses == whole.losses
    for name, value in expected.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name


SCRIPT = """
import sys
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from test_training import trainer
import torch
torch.set_num_threads(1)
run = trainer(Path(sys.argv[2]), epochs=40)
run.run(progress=False)
torch.save(run.averaged().state_dict(), Path(sys.argv[2]) / "final.pt")
"""


def test_a_run_killed_for_real_resumes_to_the_same_weights(tmp_path):
    here = os.path.dirname(__file__)  # noqa: PTH120

    def command(folder):
        return [sys.executable, "-c", SCRIPT, here, str(folder)]

    environment = {**os.environ, "PYTHONPATH": os.path.join(here, "..")}  # noqa: PTH118
    subprocess.run(command(tmp_path / "whole"), check=True, env=environment)
    process = subprocess.Popen(command(tmp_path / "killed"), env=environment)
    checkpoint = tmp_path / "killed" / "checkpoint.pt"
    deadline = time.monotonic() + 120
    while not checkpoint.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    subprocess.run(command(tmp_path / "killed"), check=True, env=environment)
    finals = [
        torch.load(tmp_path / run / "final.pt", weights_only=True) for run in ("whole", "killed")
    ]
    for name, value in finals[0].items():
        assert torch.equal(value, finals[1][name]), name


def test_a_checkpoint_of_another_run_is_refused(tmp_path):
    trainer(tmp_path).run(progress=False)
    with pytest.raises(ValueError, match="belongs to another run"):
        trainer(tmp_path, EPSILON).run(progress=False)
    with pytest.raises(ValueError, match="belongs to another run"):
        trainer(tmp_path, epochs=3).run(progress=False)


def test_a_write_that_fails_leaves_the_old_file(tmp_path):
    target = tmp_path / "file"
    target.write_text("old")

    def full_disk(path):
        path.write_text("ne")
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        write_atomically(target, full_disk)
    assert target.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_the_average_has_its_own_statistics(tmp_path):
    """Batch norm of the averaged network is measured on its own activations."""
    run = trainer(tmp_path, epochs=6, width=8)
    averaged = run.run(progress=False)
    batch = next(run.batches(0, 1))
    seen = {}
    norm = averaged.stem[0][1]
    norm.register_forward_hook(lambda m, args, out: seen.update(x=args[0]))
    with torch.no_grad():
        for batch in run.batches(0, run.total_steps):
            averaged(batch.x, batch.times, batch.labels)
            seen.setdefault("all", []).append(seen["x"].mean((0, 2, 3)))
    measured = torch.stack(seen["all"]).mean(0)
    torch.testing.assert_close(norm.running_mean, measured, rtol=1e-3, atol=1e-4)
    assert isinstance(norm, nn.BatchNorm2d)


@pytest.mark.parametrize(
    "options",
    [
        {"epochs": 0},
        {"batch_size": 0},
        {"class_drop": 1.5},
        {"ema_decay": 1.0},
        {"learning_rate": 0.0},
    ],
)
def test_bad_settings_are_refused(options):
    with pytest.raises(ValueError, match="must be"):
        TrainingConfig(**options)


def write_idx(folder):
    """A folder of idx files made of the shipped digits, with checksums of their own."""
    import hashlib

    images, labels = digits(96)
    head = {
        "images": bytes([0, 0, 8, 3, 0, 0, 0, 96, 0, 0, 0, 28, 0, 0, 0, 28]),
        "labels": bytes([0, 0, 8, 1, 0, 0, 0, 96]),
    }
    sums = {}
    for kind, body in (("images", images.numpy().tobytes()), ("labels", bytes(labels.tolist()))):
        name = f"train-{kind}-idx{3 if kind == 'images' else 1}-ubyte"
        (folder / name).write_bytes(head[kind] + body)
        sums[name] = hashlib.md5(head[kind] + body).hexdigest()
    return sums


@pytest.mark.parametrize(
    ("objective", "name"),
    [("flow", "mnist"), ("ddpm", "mnist-ddpm"), ("ddpm-preconditioned", "mnist-ddpm")],
)
def test_the_command_trains_resumes_and_its_model_loads(tmp_path, monkeypatch, objective, name):
    from composer_plugins.backends.mnist import data as mnist_data

    monkeypatch.setattr(mnist_data, "CHECKSUMS", write_idx(tmp_path))
    out = tmp_path / "run"
    arguments = ["train", "mnist", "--objective", objective, "--data", str(tmp_path)]
    arguments += ["--out", str(out), "--epochs", "2", "--batch-size", "32", "--width", "4"]
    for _ in range(2):  # the second finds the work done
        result = CliRunner().invoke(main, [*arguments, "--no-progress"])
        assert result.exit_code == 0, result.output
    assert {p.name for p in out.iterdir()} == {"checkpoint.pt", "log.json", "loss.png", "model"}
    backend = composer.load_backend(name, weights=str(out / "model"))
    x = composer.Sampler(backend, num_inference_steps=2).sample(3).x
    assert x.shape == (1, 1, 28, 28)
    warm = [*arguments, "--init", str(out / "model"), "--out", str(tmp_path / "warm")]
    result = CliRunner().invoke(main, [*warm, "--no-progress"])
    assert result.exit_code == 0, result.output
    log = json.loads((tmp_path / "warm" / "log.json").read_text())
    assert log["started_from"] == str(out / "model")


def test_the_command_says_in_a_sentence_what_is_wrong(tmp_path):
    for arguments, sentence in (
        (["--data", str(tmp_path)], "holds neither train-images"),
        (["--epochs", "0", "--data", str(tmp_path)], "holds neither"),
    ):
        command = ["train", "mnist", "--out", str(tmp_path / "run"), *arguments]
        result = CliRunner().invoke(main, command)
        assert result.exit_code == 1
        assert result.output.startswith("Error: ")
        assert sentence in result.output
        assert not (tmp_path / "run").exists()


def test_the_seed_chooses_the_data_stream(tmp_path):
    one, other, again = (next(trainer(tmp_path, seed=seed).batches(0, 1)).x for seed in (1, 2, 1))
    assert torch.equal(one, again)
    assert not torch.equal(one, other)


def test_a_run_that_diverges_stops_and_says_so(tmp_path):
    run = trainer(tmp_path, learning_rate=1e30)
    with pytest.raises(ArithmeticError, match=r"the loss became .* lower the learning rate"):
        run.run(progress=False)


def test_a_damaged_checkpoint_is_named(tmp_path):
    (tmp_path / "checkpoint.pt").write_text("junk")
    with pytest.raises(ValueError, match=r"checkpoint\.pt is no intact checkpoint"):
        trainer(tmp_path).run(progress=False)


def test_the_average_forgets_where_it_started():
    """After 900 steps at decay .999 a plain average would still be 41 % its initial value."""
    average = torch.tensor([1.0])
    for count in range(1, 900):
        average = warm_average(0.999, average, torch.tensor([0.0]), count)
    assert average < 1e-6
    steady = warm_average(0.999, torch.tensor([1.0]), torch.tensor([0.0]), 10**6)
    assert steady.item() == pytest.approx(0.999)
