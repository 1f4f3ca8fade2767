"""Nouns: pictures composed from traits, and a diffusers pipeline trained on them."""

import json

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from diffusers import DDPMPipeline, DDPMScheduler, UNet2DModel
from PIL import Image
from tiny_nouns import TINY

import composer
from composer import Sampler
from composer.cli import main
from composer_lab.training import nouns as nouns_train
from composer_lab.training.config import TrainingConfig
from composer_lab.training.nouns import (
    HEADS,
    noise_scheduler,
    save_pipeline,
    train_nouns,
)
from composer_lab.training.timed import Timed
from composer_plugins import CFG
from composer_plugins.backends.nouns import (
    Nouns,
    compose,
    head_names,
    load_images,
    load_traits,
    random_nouns,
)
from composer_plugins.backends.nouns.data import BACKGROUNDS, COUNTS


def test_a_noun_is_its_traits_laid_over_one_another():
    """Against Pillow's own compositing, for random indices."""
    generator = torch.Generator().manual_seed(3)
    for _ in range(20):
        indices = [int(torch.randint(n, (), generator=generator)) for n in COUNTS]
        picture = Image.new("RGBA", (32, 32), BACKGROUNDS[indices[0]])
        for layer, index in zip(load_traits(), indices[1:], strict=True):
            trait = Image.fromarray(layer[index].permute(1, 2, 0).numpy())
            picture = Image.alpha_composite(picture, trait)
        expected = torch.tensor(list(picture.convert("RGB").tobytes()), dtype=torch.uint8)
        assert torch.equal(compose(indices), expected.reshape(32, 32, 3).permute(2, 0, 1))


def test_many_at_once_are_the_single_ones():
    indices = torch.stack([torch.arange(6) % n for n in COUNTS], 1).reshape(2, 3, 5)
    pictures = compose(indices)
    assert pictures.shape == (2, 3, 3, 32, 32)
    assert pictures.dtype == torch.uint8
    for i in range(2):
        for j in range(3):
            assert torch.equal(pictures[i, j], compose(indices[i, j].tolist()))


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8, torch.int16, torch.int32])
def test_small_whole_numbers_are_indices_too(dtype):
    assert torch.equal(
        compose(torch.tensor([1, 2, 3, 4, 5], dtype=dtype)), compose([1, 2, 3, 4, 5])
    )


@pytest.mark.parametrize(
    "bad",
    [
        *([0, 0, 0, 254, 0], [2, 0, 0, 0, 0], [-1, 0, 0, 0, 0], [0, 0], 3, [0.0, 0, 0, 0, 0]),
        *("a", None, (True,) * 5, [[1, 2], [3]], [1j] * 5, [{}] * 5),
    ],
)
def test_what_is_not_a_noun(bad):
    with pytest.raises(ValueError, match="a Noun"):
        compose(bad)


def test_random_nouns_use_every_trait_and_say_their_heads():
    heads = torch.cat([random_nouns(64, torch.Generator().manual_seed(s))[1] for s in range(64)])
    # 4096 draws of 254: a head is missing in one of 50,000 such tests.
    assert heads.unique().tolist() == list(range(254))
    pictures, heads = random_nouns(8, torch.Generator().manual_seed(0))
    assert pictures.shape == (8, 3, 32, 32)
    assert len(head_names()) == 254
    for picture, head in zip(pictures, heads, strict=True):
        rgba = load_traits()[2][head]
        glasses = torch.stack([g[3] for g in load_traits()[3]]).amax(0)
        seen = (rgba[3] == 255) & (glasses == 0)  # the head where no glasses can hide it
        assert seen.any()
        assert torch.equal(picture[:, seen], rgba[:3, seen])


def test_batches_are_fresh_and_a_function_of_seed_and_step():
    source = Nouns(1000)
    assert len(source) == 1000
    (first, heads), (again, heads_again) = source.batch(3, 4, seed=1), source.batch(3, 4, seed=1)
    assert torch.equal(first, again)
    assert torch.equal(heads, heads_again)
    assert not torch.equal(first, source.batch(4, 4, seed=1)[0])
    assert not torch.equal(first, source.batch(3, 4, seed=2)[0])


def write_images(folder, count=8):
    folder.mkdir(exist_ok=True)
    for k in range(count):
        Image.new("RGB", (40, 60), (10 * k, 100, 200)).save(folder / f"{k:02}.png")
    (folder / "notes.txt").write_text("no image")
    return folder


def test_images_of_a_folder_are_cropped_resized_and_in_order(tmp_path):
    images = load_images(write_images(tmp_path), 16)
    assert images.shape == (8, 3, 16, 16)
    assert images.dtype == torch.uint8
    assert [int(i[0].float().mean()) for i in images] == [10 * k for k in range(8)]
    wide = Image.new("L", (96, 32), 0)
    wide.paste(255, (32, 0, 64, 32))  # only the central square is white
    wide.save(tmp_path / "99.jpeg", quality=100)
    Image.new("RGBA", (32, 32), (0, 0, 0, 0)).save(tmp_path / "98.webp")
    Image.new("RGB", (2, 2), (7, 7, 7)).save(tmp_path / "97.png")  # enlarged
    *_, small, clear, centre = load_images(tmp_path)
    assert (small == 7).all()
    assert (clear == 255).all()
    assert centre.float().mean() > 245


def test_folders_without_usable_images(tmp_path):
    with pytest.raises(ValueError, match="there is no folder"):
        load_images(tmp_path / "nowhere")
    write_images(tmp_path / "below")
    with pytest.raises(
        ValueError, match=r"must hold images that end in \.bmp.* Sub-folders are ignored"
    ):
        load_images(tmp_path)
    (tmp_path / "a.png").write_bytes(b"junk")
    with pytest.raises(ValueError, match=r"a\.png', which cannot be read"):
        load_images(tmp_path)


def test_any_camera_s_pictures_are_trained_on(tmp_path):
    """Of more pixels than are kept, and of more bits: neither is cut."""
    Image.new("1", (4097, 4096), 1).save(tmp_path / "a.png")
    Image.fromarray(np.full((8, 8), 40_000, dtype=np.uint16)).save(tmp_path / "b.png")
    large, deep = load_images(tmp_path)
    assert (large == 255).all()
    assert (deep == round(40_000 / 65535 * 255)).all()


def config(**options):
    return TrainingConfig(**{"epochs": 2, "batch_size": 4, "checkpoint_every": 2, **options})


def run(folder, data=None, init=None, **options):
    return train_nouns(config(**options), folder, data, init, TINY, epoch=12, progress=False)


def test_the_network_is_asked_as_at_sampling_time():
    unet = UNet2DModel(sample_size=32, num_class_embeds=3, **TINY).eval()
    x, t = torch.randn(3, 3, 32, 32), torch.tensor([0, 7, 999])
    labels = torch.tensor([0, 2, 1])
    with torch.no_grad():
        asked = Timed(unet, 1000)(x, (t / 1000).float(), labels)
        torch.testing.assert_close(asked, unet(x, t, class_labels=labels).sample)


class Killed(BaseException):
    pass


def test_a_resumed_run_is_the_uninterrupted_run(tmp_path, monkeypatch):
    whole = run(tmp_path / "whole")
    forward, calls = Timed.forward, []

    def dying(self, *inputs):
        calls.append(1)
        if len(calls) == 4:
            raise Killed
        return forward(self, *inputs)

    monkeypatch.setattr(Timed, "forward", dying)
    with pytest.raises(Killed):
        run(tmp_path / "broken")
    assert not (tmp_path / "broken" / "model").exists()
    monkeypatch.setattr(Timed, "forward", forward)
    resumed = run(tmp_path / "broken")
    logs = [json.loads((tmp_path / f / "log.json").read_text()) for f in ("whole", "broken")]
    assert logs[0]["loss"] == logs[1]["loss"]
    assert logs[0]["steps"] == 6
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name


def test_the_pipeline_loads_here_and_in_diffusers(tmp_path):
    trained = run(tmp_path)
    assert {p.name for p in tmp_path.iterdir()} == {
        "checkpoint.pt",
        "log.json",
        "loss.png",
        "model",
    }
    assert str(tmp_path) not in (tmp_path / "model" / "unet" / "config.json").read_text()
    backend = composer.load_backend("diffusers", model=str(tmp_path / "model"))
    assert backend.shape == (3, 32, 32)
    assert backend.unconditional_label == HEADS == 254
    x = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        expected = trained(x, 500, class_labels=torch.tensor([5, 5])).sample
    found = Sampler(backend).denoise(x, 500, 5)
    # The folder is in float16.
    torch.testing.assert_close(
        found.noise, found.with_x0(clipped(backend, x, expected)).noise, rtol=1e-2, atol=1e-2
    )
    result = Sampler(backend, [CFG(2.0)], num_inference_steps=2).sample(253, [0, 1])
    assert result.x.shape == (2, 3, 32, 32)
    names = json.loads((tmp_path / "model" / "labels.json").read_text())["labels"]
    assert names[:2] == ["green-snake", "sand-castle"]
    pipeline = DDPMPipeline.from_pretrained(tmp_path / "model")
    assert isinstance(pipeline.scheduler, DDPMScheduler)
    assert pipeline.scheduler.config.beta_schedule == "squaredcos_cap_v2"


def clipped(backend, x, epsilon):
    return backend.clip(backend.prediction.x0(epsilon, x, *backend.schedule.at(500)))


def test_labels_are_dropped_to_the_label_beyond_the_heads(tmp_path, monkeypatch):
    seen = []
    forward = Timed.forward

    def looking(self, x, times, labels):
        seen.extend(labels.tolist())
        return forward(self, x, times, labels)

    monkeypatch.setattr(Timed, "forward", looking)
    run(tmp_path, class_drop=0.5)
    dropped = sum(label == HEADS for label in seen)
    assert 0 < dropped < len(seen) == 24  # of 24 fair draws: all or none once in 10^7


def test_images_of_a_folder_train_an_unconditional_pipeline(tmp_path):
    images = write_images(tmp_path / "images", 6)
    run(tmp_path / "run", images)
    backend = composer.load_backend("diffusers", model=str(tmp_path / "run" / "model"))
    assert backend.num_labels is None
    assert Sampler(backend, num_inference_steps=2).sample().x.shape == (1, 3, 32, 32)
    run(tmp_path / "warm", images, tmp_path / "run" / "model", started_from="run")
    with pytest.raises(ValueError, match="must take 255 labels, got no labels.* start"):
        run(tmp_path / "heads", None, tmp_path / "run" / "model")


def test_training_may_start_from_a_pretrained_folder(tmp_path):
    first = run(tmp_path / "first")
    warm = run(tmp_path / "warm", None, tmp_path / "first" / "model", learning_rate=1e-9)
    for name, value in first.state_dict().items():
        torch.testing.assert_close(warm.state_dict()[name], value, rtol=2e-3, atol=1e-4)
    UNet2DModel(**{**TINY, "sample_size": 16}).save_pretrained(tmp_path / "small")
    with pytest.raises(ValueError, match="--init must be a UNet of 32x32 RGB images"):
        run(tmp_path / "cold", None, tmp_path / "small")
    images = write_images(tmp_path / "images")
    with pytest.raises(ValueError, match="must take no labels, got 255 labels.* start"):
        run(tmp_path / "cold", images, tmp_path / "first" / "model")


def test_images_in_the_folder_that_is_written_to_raise(tmp_path):
    write_images(tmp_path)
    with pytest.raises(ValueError, match="must be another folder than --data"):
        run(tmp_path, tmp_path)


def test_training_does_not_start_from_another_kind_of_network(tmp_path, tiny_if):
    with pytest.raises(ValueError, match="must hold a UNet2DModel, got IFPipeline"):
        run(tmp_path, None, tiny_if[1])
    with pytest.raises(ValueError, match="must describe a UNet2DModel, got UNet2DConditionModel"):
        run(tmp_path, None, tiny_if[1] / "unet")


def test_the_command(tmp_path, monkeypatch):
    monkeypatch.setattr(nouns_train, "LAYOUT", TINY)
    monkeypatch.chdir(tmp_path)
    options = ["--out", "run", "--epochs", "1", "--batch-size", "4", "--epoch-size", "8"]
    written = set()
    # The first trains; the others are other words for it, and find the work done.
    for spelling in (
        ["nouns"],
        ["nouns", "--data", "nouns"],
        ["--data", "nouns"],
        ["--data=nouns"],
    ):
        result = CliRunner().invoke(main, ["train", *spelling, *options, "--no-progress"])
        assert result.exit_code == 0, result.output
        assert "wrote" in result.output
        written.add((tmp_path / "run" / "checkpoint.pt").stat().st_mtime_ns)
    assert len(written) == 1


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["nouns", "--data", "nowhere"], "there is no folder 'nowhere'"),
        (["--data", "nowhere"], "there is no folder 'nowhere'"),
        (["--data", ""], "--data must not be empty. Name a folder"),
        (["--data", "nouns"], "a folder here has that name too. Write ./nouns"),
    ],
)
def test_data_that_is_not_there_or_could_be_two(tmp_path, monkeypatch, arguments, sentence):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "nouns").mkdir()
    result = CliRunner().invoke(main, ["train", *arguments, "--out", "run"])
    assert result.exit_code == 2
    assert sentence in result.output
    assert not (tmp_path / "run").exists()


def test_a_full_disk_leaves_the_model_before(tmp_path, monkeypatch):
    unet = run(tmp_path / "run", epochs=1)
    model = tmp_path / "run" / "model"
    before = {path: path.read_bytes() for path in model.rglob("*") if path.is_file()}
    assert len(before) == 5

    def full(*arguments, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(UNet2DModel, "save_pretrained", full)
    with pytest.raises(OSError, match="model could not be written .No space left on device.*Free"):
        save_pipeline(unet, noise_scheduler(), model, labelled=True)
    assert {path: path.read_bytes() for path in model.rglob("*") if path.is_file()} == before
