"""Pictures that remember: what is written is read, replayed and compared; spoilt ones are safe."""

import json
import random
import struct
import zlib

import numpy as np
import pytest
import torch
from fuzz_pictures import Watch, mutated, read_bytes, read_text, texts
from PIL import Image, PngImagePlugin

import composer
from composer import Sampler
from composer.saving import KEY
from composer.weights import hash_of
from composer_plugins import CFG, SDEdit
from composer_plugins.backends.with_weak import WithWeak
from composer_studio.remembered import NothingRememberedError, read_memory


@pytest.fixture(scope="module")
def backend():
    return composer.load_backend("mnist")


@pytest.fixture(scope="module")
def result(backend):
    return Sampler(backend, [CFG(3.0)], num_inference_steps=3).sample(5, [4, 7])


@pytest.mark.parametrize("name", ["a.png", "a.webp"])
def test_a_picture_remembers_and_is_made_again(studio, result, tmp_path, name, backend):
    (file,) = result[1].save(tmp_path / name, size=280)
    memory = read_memory(file)
    assert (memory.seed, memory.version) == (7, composer.__version__)
    assert memory.recipe == json.loads(json.dumps(result.recipe))
    assert memory.weights == hash_of(backend)
    shown = studio("show", file).stdout
    for words in ("seed       7", "cfg(scale=3.0", f"weights    {memory.weights}", "condition  5"):
        assert words in shown
    assert json.loads(studio("show", file, "--json").stdout)["recipe"] == memory.recipe
    again = studio("replay", file, "--out", tmp_path / "again.png")
    assert again.exit_code == 0, again.output
    assert "the same picture" in again.stdout
    with Image.open(tmp_path / "again.png") as new, Image.open(file) as old:
        assert new.size == old.size == (280, 280)
        assert new.convert("L").tobytes() == old.convert("L").tobytes()


def test_a_webp_has_no_loss(result, tmp_path):
    (file,) = result[0].save(tmp_path / "a.webp")
    with Image.open(file) as picture:
        assert picture.convert("L").tobytes() == result.images[0].tobytes()


def retold(file, change):
    """The file with its text changed."""
    with Image.open(file) as picture:
        said = json.loads(picture.text[KEY])
        change(said)
        info = PngImagePlugin.PngInfo()
        info.add_text(KEY, json.dumps(said))
        picture.save(file, pnginfo=info)


def test_replay_says_what_differs(studio, result, tmp_path):
    (file,) = result[0].save(tmp_path / "a.png")
    retold(
        file,
        lambda said: (
            said.update(composer="0.0.9"),
            said["recipe"].update(composer="0.0.9", weights="ab" * 32),
        ),
    )
    said = studio("replay", file)
    assert said.exit_code == 0
    assert "made by composer 0.0.9; this is" in said.stdout
    assert "made with weights abababababab; these are" in said.stdout
    retold(file, lambda said: said["recipe"]["plugins"][0]["options"].update(scale=0.0))
    other = studio("replay", file)
    assert other.exit_code == 1
    assert "another picture; pixels differ by up to" in other.stdout


def test_the_hash_is_of_what_the_networks_hold(backend):
    whole = hash_of(backend)
    parameter = next(backend.unet.parameters())
    kept = parameter.detach().clone()
    with torch.no_grad():
        parameter.view(-1)[0] += 1
        assert hash_of(backend) != whole
        parameter.copy_(kept)
    assert hash_of(backend) == whole
    assert hash_of(composer.load_backend("mnist")) == whole
    assert hash_of(composer.load_backend("mnist-ddpm")) not in (None, whole)
    assert hash_of(WithWeak(backend, backend)) not in (None, whole)
    assert hash_of(object()) is None


def test_a_batch_of_pictures_one_a_seed_is_replayed(studio, tmp_path, backend):
    images = torch.linspace(-1, 1, 3).reshape(3, 1, 1, 1).expand(3, 1, 28, 28).clone()
    sampler = Sampler(backend, [SDEdit(images, 0.5)], num_inference_steps=4)
    files = sampler.sample(3, [5, 6, 7]).save(tmp_path)
    assert "the same picture" in studio("replay", files[2]).stdout


def chunk(kind, content):
    head = struct.pack(">I", len(content)) + kind + content
    return head + struct.pack(">I", zlib.crc32(kind + content))


@pytest.mark.parametrize(
    ("content", "error"),
    [
        (b"", "must be a PNG or WebP"),
        (b"\x89PNG\r\n\x1a\n", "carries no recipe"),
        (b"\x89PNG\r\n\x1a\n" + chunk(b"tEXt", b"other\0text"), "carries no recipe"),
        (
            b"\x89PNG\r\n\x1a\n" + chunk(b"zTXt", b"composer\0\0" + zlib.compress(b"{}")),
            "no recipe",
        ),
        (b"\x89PNG\r\n\x1a\n" + b"\xff\xff\xff\xfftEXtcomposer\0{}", "carries no recipe"),
        (b"\x89PNG\r\n\x1a\n" + chunk(b"tEXt", b"composer\0" + b"[" * 10**5), "is no JSON"),
        (b"\x89PNG\r\n\x1a\n" + chunk(b"tEXt", b"composer\0[]"), "holds no recipe"),
        (b"\x89PNG\r\n\x1a\n" + chunk(b"tEXt", b'composer\0{"recipe": {}}'), "seed must be"),
        (b"RIFF\xff\xff\xff\xffWEBPEXIF\xff\xff\xff\xff", "carries no recipe"),
        (b"RIFF\x10\0\0\0WEBPEXIF\x04\0\0\0abcd", "carries no recipe"),
    ],
)
def test_what_carries_nothing_is_one_sentence(studio, tmp_path, content, error):
    file = tmp_path / "a.png"
    file.write_bytes(content)
    with pytest.raises(ValueError, match=error):
        read_memory(file)
    done = studio("show", file)
    assert done.exit_code == 2
    assert len(done.stderr.splitlines()) == 1


def test_a_picture_of_another_program_carries_nothing(tmp_path):
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    with pytest.raises(NothingRememberedError):
        read_memory(tmp_path / "a.png")


def test_a_stranger_picture_needs_trust(studio, result, tmp_path):
    (file,) = result[0].save(tmp_path / "a.png")
    retold(
        file,
        lambda said: said["recipe"].update(
            backend={"name": "diffusers", "options": {"model": "owner/name"}}
        ),
    )
    done = studio("replay", file)
    assert done.exit_code == 2
    assert "Add --trust model" in done.stderr
    assert [p.name for p in tmp_path.iterdir()] == ["a.png"]


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_spoilt_texts_and_files_raise_documented_errors_and_open_nothing(backend, result, tmp_path):
    """300 here; benchmarks/fuzz_pictures.py has as many as one likes."""
    rng, known, watch = random.Random(1), texts(), Watch(("/",))
    files = [result[0].save(tmp_path / name)[0].read_bytes() for name in ("a.png", "a.webp")]
    for text in known:
        read_text(text, backend)
    watch._allowed = ()
    for _ in range(200):
        text = mutated(rng.choice(known), rng)
        watch.on = True
        outcome = read_text(text, backend)
        watch.on = False
        assert not outcome.startswith("UNDOCUMENTED"), text[:1000]
    for _ in range(100):
        content = np.frombuffer(rng.choice(files), np.uint8).copy()
        content[rng.randrange(len(content))] = rng.randrange(256)
        assert not read_bytes(content.tobytes(), tmp_path / "b").startswith("UNDOCUMENTED")
    assert not watch.found
