import json

import pytest
import torch
from torch import nn

from composer.predictions import EPSILON, FLOW, PREDICTIONS
from composer.schedules import DiscreteSchedule, FlowSchedule
from composer.writing import write_atomically
from composer_lab.training.config import TrainingConfig
from composer_lab.training.data import FixedImages
from composer_lab.training.objective import Objective
from composer_lab.training.trainer import Trainer
from composer_lab.training.weights import half_weights, warm_average
from composer_plugins.backends.mnist import MnistUNet, sample_digits


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
    run.task = Objective(DiscreteSchedule.linear(), PREDICTIONS[kind])
    (batch,) = run.batches(1, 2)
    x, times, _ = batch.inputs
    schedule = run.task.schedule
    alpha, sigma = (
        v.float()[:, None, None, None] for v in schedule.alpha_sigma(times.double() * 1000)
    )
    a, b = PREDICTIONS[kind].row(alpha, sigma)
    # Two equations, x and target, give x_0 and noise back; x_0 is a digit, noise is noise.
    d = alpha * b - a * sigma
    x0 = (b * x - sigma * batch.target) / d
    usable = alpha.flatten() > 0.3
    assert usable.sum() >= 4
    images = run.data.images[:, None].float() / 127.5 - 1
    gaps = (x0[usable, None] - images[None]).abs().amax((2, 3, 4)).amin(1)
    assert gaps.max() < 1e-3


def test_labels_are_dropped_at_the_stated_rate(tmp_path):
    run = trainer(tmp_path, epochs=100, class_drop=0.25)
    labels = torch.cat([batch.inputs[2] for batch in run.batches(0, 200)])
    # 3200 draws: the rate is within 0.05 of .25 but for one case in 10^10.
    assert (labels == 10).float().mean().item() == pytest.approx(0.25, abs=0.05)


def test_every_image_is_seen_once_an_epoch(tmp_path):
    run = trainer(tmp_path, class_drop=0.0)
    run.data = FixedImages(run.data.images, torch.arange(64))
    for epoch in (0, 1):
        labels = torch.cat([b.inputs[2] for b in run.batches(4 * epoch, 4 * epoch + 4)])
        assert labels.sort().values.tolist() == list(range(64))


def test_snapshots_are_of_their_epochs_and_change_nothing(tmp_path):
    """After epoch 1 of 3 the averaged network is that of the same run, stopped there."""
    written = {}

    def write(network, folder):
        written[folder.relative_to(tmp_path).as_posix()] = network.state_dict()

    plain = trainer(tmp_path / "plain", epochs=3)
    plain.run(progress=False)
    run = trainer(tmp_path / "run", epochs=3, snapshots=(1, 3, 5))
    run.run(progress=False, write=write)
    assert run.losses == plain.losses
    assert list(written) == ["run/epoch-001", "run/epoch-003", "run"]
    stopped = trainer(tmp_path / "stopped", epochs=3)
    for batch in stopped.batches(0, stopped.epoch_steps):
        stopped._update(batch)
    for name, value in stopped.averaged().state_dict().items():
        assert torch.equal(value, written["run/epoch-001"][name]), name
        assert torch.equal(written["run"][name], written["run/epoch-003"][name]), name


def rates(folder, **settings):
    """The learning rate of each step."""
    run, found = trainer(folder, epochs=5, learning_rate=0.02, **settings), []
    for batch in run.batches(0, run.total_steps):
        found.append(run.optimizer.param_groups[0]["lr"])
        run._update(batch)
    return found


def test_learning_rates(tmp_path):
    assert rates(tmp_path, lr_schedule="constant") == [0.02] * 20
    falling = [0.02 * 0.1 ** (epoch / 5) for epoch in range(5) for _ in range(4)]
    assert rates(tmp_path, lr_schedule="exponential") == pytest.approx(falling)
    cycle = rates(tmp_path)
    assert max(cycle) == pytest.approx(0.02, rel=0.02)  # the peak is between two steps
    assert cycle.index(max(cycle)) in (1, 2)  # a tenth of the way
    assert cycle[-1] < 1e-3


def test_without_an_average_the_last_weights_are_kept(tmp_path):
    run = trainer(tmp_path, ema_decay=0.0)
    averaged = dict(run.run(progress=False).named_parameters())
    for name, value in run.model.named_parameters():
        assert torch.equal(averaged[name], value), name


def test_a_checkpoint_of_another_run_raises(tmp_path):
    trainer(tmp_path).run(progress=False)
    with pytest.raises(ValueError, match="belongs to a run with other settings"):
        trainer(tmp_path, EPSILON).run(progress=False)
    with pytest.raises(ValueError, match="belongs to a run with other settings"):
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
            averaged(*batch.inputs)
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
        {"adam_betas": (0.9, 1.0)},
        {"snapshots": (0,)},
    ],
)
def test_bad_settings_raise(options):
    with pytest.raises(ValueError, match="must be"):
        TrainingConfig(**options)


@pytest.mark.parametrize(
    "options",
    [
        {"epochs": 1.5},
        {"epochs": True},
        {"batch_size": 2.5},
        {"checkpoint_every": None},
        {"seed": "0"},
        {"learning_rate": "fast"},
        {"adam_betas": 0.9},
        {"snapshots": 3},
        {"bf16": "yes"},
    ],
)
def test_settings_of_another_kind_raise(options):
    with pytest.raises(TypeError, match=f"{next(iter(options))} must be .*, got "):
        TrainingConfig(**options)


@pytest.mark.parametrize(
    "options",
    [{"epochs": float("nan")}, {"adam_betas": (0.9,)}, {"logit_normal": (0, 0)}, {"seed": 2**32}],
)
def test_settings_that_mean_nothing_raise(options):
    with pytest.raises((ValueError, TypeError), match=next(iter(options))):
        TrainingConfig(**options)


@pytest.mark.parametrize("place", ["epoch-001", "model", "epoch-001/model"])
def test_what_is_in_the_way_is_found_before_training(tmp_path, place):
    run = trainer(tmp_path, epochs=1, snapshots=(1,))
    (tmp_path / place).parent.mkdir(exist_ok=True)
    (tmp_path / place).touch()
    with pytest.raises(NotADirectoryError, match=f"{place} is a file. Name a folder"):
        run.run(progress=False)
    assert run.step == 0


def test_an_unknown_schedule_names_the_nearest():
    with pytest.raises(LookupError, match="lr_schedule 'exponentail'. Did you mean exponential"):
        TrainingConfig(lr_schedule="exponentail")


def test_the_seed_chooses_the_data_stream(tmp_path):
    one, other, again = (
        next(trainer(tmp_path, seed=seed).batches(0, 1)).inputs[0] for seed in (1, 2, 1)
    )
    assert torch.equal(one, again)
    assert not torch.equal(one, other)


def test_a_run_that_diverges_stops_and_says_so(tmp_path):
    run = trainer(tmp_path, learning_rate=1e18)
    with pytest.raises(ArithmeticError, match=r"the loss became .* Lower the learning rate"):
        run.run(progress=False)


def test_an_average_that_diverged_is_not_written(tmp_path):
    run = trainer(tmp_path, epochs=1, snapshots=(1,))
    run.ema.n_averaged += 1  # the first update would begin the average anew
    run.ema.module.out.weight.data[0] = torch.inf
    written = []
    with pytest.raises(ArithmeticError, match="a weight became NaN or Inf by step"):
        run.run(progress=False, write=lambda network, folder: written.append(folder))
    assert not written


def test_what_float16_cannot_hold_is_not_written(tmp_path):
    network = trainer(tmp_path).model
    assert {v.dtype for v in half_weights(network).values()} <= {torch.float16, torch.int64}
    network.out.weight.data[0] = 1e5
    with pytest.raises(ArithmeticError, match=r"out.weight must be finite and at most 65"):
        half_weights(network)


def test_a_damaged_checkpoint_is_named(tmp_path):
    (tmp_path / "checkpoint.pt").write_text("junk")
    with pytest.raises(ValueError, match=r"checkpoint\.pt must be an intact checkpoint"):
        trainer(tmp_path).run(progress=False)


def test_the_average_forgets_where_it_started():
    """After 900 steps at decay .999 a plain average would still be 41 % its initial value."""
    average = torch.tensor([1.0])
    for count in range(1, 900):
        average = warm_average(0.999, average, torch.tensor([0.0]), count)
    assert average < 1e-6
    steady = warm_average(0.999, torch.tensor([1.0]), torch.tensor([0.0]), 10**6)
    assert steady.item() == pytest.approx(0.999)
