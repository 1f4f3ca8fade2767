"""`composer train mnist-few-step`: its pairs, its lines, what it learns, writes and resumes."""

import json

import pytest
import torch
from test_training_commands import WRITTEN, idx, train  # noqa: F401  # a fixture

import composer
from composer import UNCONDITIONAL, Sampler
from composer.predictions import FLOW
from composer.schedules import FlowSchedule
from composer.solvers import DPMSolverPP
from composer_lab.training import reflow
from composer_lab.training.config import TrainingConfig
from composer_lab.training.data import FixedImages
from composer_lab.training.mnist import save_model
from composer_lab.training.reflow import PAIRS, PATH, Pairs, Reflow, draw_pairs
from composer_lab.training.trainer import Trainer
from composer_plugins import CFG
from composer_plugins.backends.mnist import MnistBackend, MnistUNet


def unet(width=4, **options):
    torch.manual_seed(0)
    network = MnistUNet(hidden_size=width, **options)
    for _ in range(20):  # batch statistics of noise, without which its outputs vanish
        network.train()(torch.randn(16, 1, 28, 28), torch.rand(16), torch.zeros(16).long())
    return network.eval()


@pytest.fixture(scope="module")
def teacher():
    return MnistBackend(unet().requires_grad_(False), FlowSchedule(), FLOW)


@pytest.fixture(scope="module")
def pairs(teacher):
    return draw_pairs(teacher, 10, 44, seed=3)


def trainer(folder, pairs, **options):
    torch.manual_seed(1)
    config = TrainingConfig(batch_size=11, bf16=False, **options)
    model = MnistUNet(hidden_size=4)
    return Trainer(model, Reflow(), FixedImages(*pairs), 10, config, folder)


def test_an_image_is_what_the_guided_teacher_makes_of_its_noise(teacher, pairs):
    assert pairs.labels.bincount().tolist() == [4] * 11
    noise, image = pairs.images.float().split(1, dim=1)
    # 34,496 normal draws: standard errors .0054 and .0038; six of them.
    assert abs(noise.mean()) < 0.033
    assert abs(noise.std() - 1) < 0.023
    sampler = Sampler(teacher, [CFG(5.0, (0.0, 0.45))], DPMSolverPP(), 6)
    for place in (0, 9, 10, 43):
        label = int(pairs.labels[place])
        condition = UNCONDITIONAL if label == 10 else label
        made = sampler.sample(condition, x=noise[place, None]).x.clamp(-1, 1)
        # Noise and image are kept in float16.
        torch.testing.assert_close(made[0], image[place], atol=5e-3, rtol=0)


def test_pairs_are_a_function_of_the_seed(teacher, pairs):
    assert torch.equal(draw_pairs(teacher, 10, 44, seed=3).images, pairs.images)
    assert not torch.equal(draw_pairs(teacher, 10, 44, seed=4).images, pairs.images)


def test_a_step_learns_the_slope_of_lines_from_noises_to_their_own_images(tmp_path, pairs):
    run = trainer(tmp_path, pairs, epochs=4)
    times = []
    for batch in run.batches(0, 4):
        x, t, labels = batch.inputs
        ends = (
            x - t[:, None, None, None] * batch.target,
            x + (1 - t)[:, None, None, None] * (batch.target),
        )
        gaps = (torch.cat(ends, 1)[:, None] - pairs.images.float()).abs().amax((2, 3, 4))
        nearest = gaps.argmin(1)
        assert gaps.amin(1).max() < 1e-5
        assert torch.equal(labels, pairs.labels[nearest])
        times.append(t)
    t = torch.cat(times)
    assert t.min() == 0
    assert 0.4 < (t == 0).float().mean() < 0.6
    assert t.max() > 0.9


def test_one_step_of_the_student_approaches_the_teacher(tmp_path, pairs):
    pairs = Pairs(*(part[:22] for part in pairs))
    run = trainer(tmp_path, pairs, epochs=40, learning_rate=2e-2, ema_decay=0.9)
    student = MnistBackend(run.run(progress=False), FlowSchedule(), FLOW)
    noise, image = pairs.images.float().split(1, dim=1)
    known = pairs.labels < 10
    made = Sampler(student, num_inference_steps=1).sample(
        pairs.labels[known].tolist(), range(int(known.sum())), x=noise[known]
    )
    left = (made.x - image[known]).square().mean()
    assert left < 0.5 * (image[known] - image[known].mean(0)).square().mean()


def test_the_command_trains_resumes_and_its_model_loads(idx, monkeypatch):  # noqa: F811
    save_model(unet(), idx / "flow", "path.json", PATH._asdict())
    out = idx / "run"
    common = "--pairs", 44, "--batch-size", 22, "--epochs", 2, "--no-bf16"
    command = "mnist-few-step", "--init", idx / "flow", *common, "--out", out
    assert train(*command).exit_code == 0
    assert {p.name for p in out.iterdir()} == {*WRITTEN, PAIRS}
    before = (out / PAIRS).stat().st_mtime_ns
    monkeypatch.setattr(reflow, "draw_pairs", None)  # the second finds the pairs drawn
    result = train(*command)
    assert result.exit_code == 0, result.output
    assert (out / PAIRS).stat().st_mtime_ns == before
    backend = composer.load_backend("mnist-few-step", weights=str(out / "model"))
    assert Sampler(backend, num_inference_steps=1).sample(3).x.shape == (1, 1, 28, 28)
    log = json.loads((out / "log.json").read_text())
    assert (log["pairs"], log["coupling"], log["steps"]) == (44, "reflow", 4)


def test_pairs_of_other_settings_are_neither_used_nor_replaced(idx):  # noqa: F811
    save_model(unet(), idx / "flow", "path.json", PATH._asdict())
    out = idx / "run"
    common = "--batch-size", 11, "--epochs", 1, "--no-bf16", "--init", idx / "flow", "--out", out
    assert train("mnist-few-step", "--pairs", 11, *common).exit_code == 0
    kept = (out / PAIRS).read_bytes()
    for other in (("--pairs", 22), ("--pairs", 11, "--seed", 1)):
        result = train("mnist-few-step", *other, *common)
        assert result.exit_code == 2
        assert "belongs to a training with other settings. Name another folder." in result.output
    assert (out / PAIRS).read_bytes() == kept


def test_the_command_says_that_a_teacher_needs_classes(idx):  # noqa: F811
    network = unet(num_classes=0, conditioning="add")
    save_model(network, idx / "flow", "path.json", PATH._asdict())
    result = train("mnist-few-step", "--init", idx / "flow", "--out", idx / "run")
    assert result.exit_code == 2
    assert "was trained without classes. Name a flow with classes." in result.output
    assert not (idx / "run").exists()
