"""The walk-through of the course: every script writes its sheets and does what its formula says."""

import dataclasses
import importlib
import math
import sys
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from diffusers import IFPipeline
from PIL import Image
from tiny_if import SIZES, computing, exact

FOLDER = Path(__file__).parent.parent / "examples" / "deepfloyd"
NAMES = sorted(file.stem for file in FOLDER.glob("*.py"))
SCRIPTS = [name for name in NAMES if name not in ("common", "pictures", "everything")]

SHEETS = {
    "sampling": {"sampling": (4, 3)},
    "forward": {"forward": (2, 4)},
    "denoising": {
        "denoising-one-step": (2, 3),
        "denoising-snapshots": (2, 2),
        "denoising-compared": (1, 5),
    },
    "guidance": {"guidance": (2, 6)},
    "sdedit": {"sdedit": (3, 6), "sdedit-prompts": (3, 6)},
    "inpainting": {"inpainting": (1, 6)},
    "anagrams": {f"anagram-{n}": (2, 4) for n in ("flip", "turn", "turn-2", "skew", "negative")},
    "hybrids": {f"hybrid-{n}": (2, 4) for n in ("skull", "canyon", "panda")},
    "logo": {"logo": (1, 5)},
}
"""{script: {sheet: (rows, columns)}}, at a quick look."""
QUICK = ("--stride", "90")


@pytest.fixture(scope="module")
def scripts():
    """All scripts by name. Some bear the names of other examples, which are put back."""
    kept = {name: sys.modules.pop(name) for name in NAMES if name in sys.modules}
    sys.path.insert(0, str(FOLDER))
    yield {name: importlib.import_module(name) for name in NAMES}
    sys.path.remove(str(FOLDER))
    for name in NAMES:
        del sys.modules[name]
    sys.modules.update(kept)


@pytest.fixture
def course(scripts, tiny_if, tmp_path, monkeypatch):
    """The course by options, its embeddings kept among the test's own files."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))

    def by(*options):
        models = ["--model", str(tiny_if[1]), "--second-model", str(tiny_if[2])]
        arguments = [*models, "--out", str(tmp_path / "out"), "--device", "cpu", *options]
        return scripts["common"].course(None, arguments)

    return by


@pytest.fixture
def shapes(scripts, monkeypatch):
    """Rows, columns and headings of the sheets that are drawn."""
    drawn = []
    draw = scripts["common"].contact_sheet

    def spy(rows, scale, columns):
        drawn.append((len(rows), {len(images) for images in rows.values()}, columns.split(",")))
        return draw(rows, scale, columns)

    monkeypatch.setattr(scripts["common"], "contact_sheet", spy)
    return drawn


@pytest.mark.filterwarnings("ignore:.* reads 77 tokens")  # the tiny tokenizer cuts the logo's
@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_writes_its_sheets(scripts, course, shapes, name):
    files = scripts[name].run(course("--stages", "1", *QUICK, "--steps", "2", "3"))
    assert [file.stem for file in files] == [*SHEETS[name]]
    for file, (rows, counts, headings) in zip(files, shapes, strict=True):
        assert (rows, counts) == (SHEETS[name][file.stem][0], {len(headings)})
        assert len(headings) == SHEETS[name][file.stem][1]
        with Image.open(file) as picture:
            side = 128 + 4
            assert picture.height == 16 + rows * side
            assert picture.width > len(headings) * side
            assert len(picture.getcolors(1 << 20)) > 100
    assert len((FOLDER / f"{name}.py").read_text().splitlines()) <= 70


@pytest.mark.parametrize("name", ["sampling", "anagrams", "hybrids"])
def test_the_second_stage_adds_sheets(scripts, course, name, monkeypatch):
    module = scripts[name]
    for several in ("ILLUSIONS", "PAIRS", "RUNS"):
        if hasattr(module, several):  # one of them
            monkeypatch.setattr(module, several, dict([*getattr(module, several).items()][-1:]))
    files = module.run(course("--stages", "2", "--stride", "900", "--steps", "2"))
    small, large = files
    assert large.stem == f"{small.stem}-256"
    with Image.open(large) as picture, Image.open(small) as other:
        assert picture.size == other.size  # enlarged less


def test_everything_is_all_of_it(scripts):
    assert sorted(part.__name__ for part in scripts["everything"].PARTS) == SCRIPTS
    assert sorted(SHEETS) == SCRIPTS


def test_pictures_of_one_s_own(scripts, course, tmp_path):
    Image.new("RGB", (40, 20), (255, 0, 0)).save(tmp_path / "red.png")
    ((name, image),) = course("--image", str(tmp_path / "red.png")).images.items()
    assert name == "red"
    red = torch.tensor([1.0, -1, -1])[None, :, None, None]
    assert torch.equal(image, red.expand(1, 3, SIZES[1], SIZES[1]))


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ([], "there is no folder 'no/such/folder'"),
        (["--device", "toaster"], "device must be a name that torch knows, got 'toaster'"),
        (["--stride", "0"], "--stride must be an integer of at least 1, got 0"),
        (["--stride", "-5"], "--stride must be an integer of at least 1, got -5"),
        (["--steps", "3", "0"], "--steps must be an integer of at least 1, got 0"),
        (
            ["--image", "nope.png"],
            r"--image must be a picture, got 'nope\.png'. There is no such file",
        ),
        (["--image", __file__], r"--image must be a picture, got '.*\.py', which cannot be read"),
        (
            ["--image", str(FOLDER)],
            r"--image must be a picture, got '.*deepfloyd'. There is no such file",
        ),
        (["--out", __file__], r"\.py cannot be a folder .*. Name another place"),
    ],
)
def test_what_goes_wrong_is_a_sentence(scripts, tmp_path, monkeypatch, options, sentence):
    """And is said before the model, which is not there, is looked for."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match=sentence):
        scripts["common"].main(
            scripts["forward"].run, None, ["--model", "no/such/folder", *options]
        )


def test_i_start_is_of_the_course_s_times(course):
    assert [course().i_start(place) for place in range(34)] == [*range(34)]
    assert [course(*QUICK).i_start(place) for place in (1, 3, 5, 7, 10, 20, 25)] == [
        *(0, 1, 2, 2, 3, 7, 8)
    ]
    by_stride = course()
    for stride in range(1, 1001):  # a step is left, whatever the stride
        few = dataclasses.replace(by_stride, stride=stride)
        assert few.i_start(33) < len(few.strided_times)


@pytest.fixture
def pipeline(tiny_if):
    loaded = IFPipeline.from_pretrained(
        tiny_if[1], safety_checker=None, feature_extractor=None, requires_safety_checker=False
    )
    loaded = exact(loaded)
    loaded.neutral = loaded.encode_prompt("a high quality photo")
    return loaded


@pytest.fixture
def doubled(course):
    """The course in float64, without thresholding, as the notebook's loops."""
    plain = course("--no-thresholding", *QUICK)
    return dataclasses.replace(plain, backends={1: computing(plain.backend)})


def test_the_strided_times_are_the_course_s(course):
    assert course().strided_times == list(range(990, -1, -30))
    assert course().sampler().times == [*range(990, -1, -30), -1]


def test_the_forward_process_is_A_2(scripts, doubled, pipeline):  # noqa: N802
    forward = scripts["forward"]
    eps = torch.randn(1, 3, 16, 16, generator=torch.Generator().manual_seed(100))
    abar = pipeline.scheduler.alphas_cumprod
    expected = [
        abar[t].sqrt() * doubled.photo + (1 - abar[t]).sqrt() * eps for t in (250, 500, 750)
    ]
    torch.testing.assert_close(
        forward.noised(doubled), torch.cat(expected).float(), rtol=0, atol=1e-6
    )


def epsilon(pipeline, x, t, gamma):
    """A.4, and the variance of the conditional branch."""
    with torch.no_grad():
        cond, uncond = (
            pipeline.unet(x, t, encoder_hidden_states=e).sample.split(3, 1)
            for e in pipeline.neutral
        )
    return uncond[0] + gamma * (cond[0] - uncond[0]), cond[1]


def iterative_denoise(pipeline, x, times, gamma, generator):
    """The notebook's loop over ``times``: A.3, with its add_variance."""
    scheduler, abar = pipeline.scheduler, pipeline.scheduler.alphas_cumprod
    scheduler.set_timesteps(timesteps=[*times])
    for t, s in pairwise(times):
        eps, variance = epsilon(pipeline, x, t, gamma)
        x_0 = (x - (1 - abar[t]).sqrt() * eps) / abar[t].sqrt()
        alpha = abar[t] / abar[s]
        mean = abar[s].sqrt() * (1 - alpha) / (1 - abar[t]) * x_0
        mean = mean + alpha.sqrt() * (1 - abar[s]) / (1 - abar[t]) * x
        log_variance = scheduler._get_variance(t, predicted_variance=variance)
        noise = torch.randn(x.shape, generator=generator, dtype=x.dtype)
        x = mean + torch.exp(0.5 * log_variance) * noise
    return x


TIGHT = {"rtol": 1e-6, "atol": 1e-6}


def test_one_step_is_the_forward_process_solved(scripts, doubled, pipeline):
    abar = pipeline.scheduler.alphas_cumprod
    noised = scripts["forward"].noised(doubled).double().split(1)
    for x, t, ours in zip(
        noised, (250, 500, 750), scripts["denoising"].one_step(doubled), strict=True
    ):
        eps, _ = epsilon(pipeline, x, t, 1)
        x_0 = (x - math.sqrt(1 - abar[t]) * eps) / math.sqrt(abar[t])
        torch.testing.assert_close(ours, x_0[0], **TIGHT)


def test_iterative_denoising_is_A_3(scripts, doubled, pipeline):  # noqa: N802
    *_, at_0, last = scripts["denoising"].iterative(doubled)
    generator = torch.Generator().manual_seed(100)
    times, abar = doubled.strided_times[3:], pipeline.scheduler.alphas_cumprod
    eps = torch.randn(1, 3, 16, 16, generator=generator, dtype=torch.float64)
    x = abar[times[0]].sqrt() * doubled.photo.double() + (1 - abar[times[0]]).sqrt() * eps
    x = iterative_denoise(pipeline, x, times, 1, generator)
    assert at_0.t == 0
    torch.testing.assert_close(at_0.x, x, **TIGHT)
    eps, _ = epsilon(pipeline, x, 0, 1)
    torch.testing.assert_close(last.x, (x - (1 - abar[0]).sqrt() * eps) / abar[0].sqrt(), **TIGHT)


def test_guidance_is_A_4(scripts, doubled, pipeline, monkeypatch):  # noqa: N802
    monkeypatch.setattr(scripts["guidance"], "SEEDS", (0, 3))
    few = dataclasses.replace(doubled, stride=330)
    ours = scripts["guidance"].sample(few, 7.0)
    for seed, image in zip((0, 3), ours, strict=True):
        generator = torch.Generator().manual_seed(seed)
        x = torch.randn(1, 3, 16, 16, generator=generator, dtype=torch.float64)
        x = iterative_denoise(pipeline, x, few.strided_times, 7, generator)
        abar = pipeline.scheduler.alphas_cumprod[0]
        eps, _ = epsilon(pipeline, x, 0, 7)
        torch.testing.assert_close(image, ((x - (1 - abar).sqrt() * eps) / abar.sqrt())[0], **TIGHT)


def test_inpainting_keeps_the_picture_around_the_hole(scripts, course):
    few = course("--stride", "330")
    x, mask = scripts["inpainting"].inpaint(few), scripts["inpainting"].hole(few)
    photo = few.photo.expand_as(x)
    assert torch.equal(x[..., mask == 0], photo[..., mask == 0])
    assert (x - photo)[..., mask == 1].abs().mean() > 0.1
