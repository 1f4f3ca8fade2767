"""What the figures show, apart from how it is drawn."""

import pytest
import torch
from torch import nn

from composer import UNCONDITIONAL, Request, Sampler
from composer.images import to_tensor
from composer.model import evaluated
from composer.predictions import PREDICTIONS
from composer.schedules import DiscreteSchedule, FlowSchedule
from composer.testing import OrthogonalCodecBackend
from composer_lab.figures import FIGURES, Curves, Effort, Film, Lab, Sheet, Turning
from composer_lab.figures.anagrams import FLIP, NEGATIVE, ROTATION, SKEW
from composer_lab.figures.drawn import DRAWINGS, drawn, render, shipped
from composer_lab.figures.hybrids import FROM_AFAR, stretched
from composer_lab.figures.noising import PLACES
from composer_lab.figures.sampling import GUIDED, SCALES, of_each_class
from composer_lab.training.denoiser import SIGMAS
from composer_plugins import CFG
from composer_plugins.backends.mnist import MnistBackend, MnistUNet, sample_digits

QUICK = Effort(steps=6, columns=2, candidates=2, anagram_steps=2)


BLURRING = nn.AvgPool2d(3, 1, 1)
"""A denoiser of sorts."""


@pytest.fixture(scope="module")
def lab():
    torch.manual_seed(0)
    unet = MnistUNet(hidden_size=2).eval()
    paths = {
        "mnist": (FlowSchedule(), PREDICTIONS["flow"]),
        "mnist-ddpm": (DiscreteSchedule.linear(), PREDICTIONS["epsilon"]),
    }
    models = {name: lambda path=path: MnistBackend(unet, *path) for name, path in paths.items()}
    return Lab(
        QUICK,
        seed=3,
        models={**models, "mnist-latent": lambda: OrthogonalCodecBackend(models["mnist"]())},
        denoisers={
            "denoiser": lambda: BLURRING,
            "pure noise": lambda: nn.Threshold(torch.inf, 0.0),
        },
    )


def shown(figure):
    """All tensors of a figure."""
    match figure:
        case Sheet():
            return [row.images for row in figure.rows]
        case Curves():
            return [
                part
                for panel in figure.panels
                for lines in panel.lines.values()
                for line in lines
                for part in (line.x, line.y)
            ]
        case Film():
            return [images for frame in figure.frames for images in frame.values()]
        case Turning():
            return [figure.result.x]


@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_is_a_function_of_the_seed_and_fits_its_headings(lab, name):
    figure = FIGURES[name](lab)
    first, again = shown(figure), shown(FIGURES[name](lab))
    assert first
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert all(bool(torch.isfinite(part).all()) for part in first)
    if isinstance(figure, Sheet):
        assert figure.title
        assert figure.caption
        assert len(figure.columns) in (0, max(len(row.images) for row in figure.rows))
        assert all(len(row.notes) in (0, len(row.images)) for row in figure.rows)
        assert all(row.images.shape[1:] == (1, 28, 28) for row in figure.rows)


def rows(figure):
    return [row.images for row in figure.rows]


def test_noising_adds_sigma_in_units_of_pixels_from_0_to_1(lab):
    for digit, row in enumerate(rows(FIGURES["noising"](lab))):
        image = lab.digits([digit])
        assert torch.equal(row[:1], image)
        noise = (row[-1:] - image) / 2
        assert noise.std() == pytest.approx(1, abs=0.1)
        for sigma, z in zip(SIGMAS, row, strict=True):
            torch.testing.assert_close(z, image[0] + 2 * sigma * noise[0])


def test_the_forward_process_is_alpha_x_and_sigma_noise(lab):
    flow, flow_blurred, ddpm, _ = rows(FIGURES["forward"](lab))
    image, noise = lab.digits([5])[0], lab.noise()[0]
    alphas_cumprod = (1 - torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)).cumprod(0)
    for column, place in enumerate(PLACES):
        torch.testing.assert_close(flow[column], (1 - place) * image + place * noise)
        t = 1000 * place - 1
        if t == int(t) >= 0:
            kept = float(alphas_cumprod[int(t)])
            mixed = kept**0.5 * image + (1 - kept) ** 0.5 * noise
            torch.testing.assert_close(ddpm[column], mixed, rtol=1e-4, atol=1e-5)
    assert torch.equal(ddpm[0], image)
    assert flow_blurred[-1].std() < 0.5 * flow[-1].std()


def test_schedules_are_paths_from_image_to_noise(lab):
    alphas, sigmas = (panel.lines for panel in FIGURES["schedules"](lab).panels)
    for name, (line,) in alphas.items():
        alpha, sigma = line.y, sigmas[name][0].y
        assert (alpha[0], sigma[0]) == (1, 0)
        assert bool((alpha.diff() <= 0).all() and (sigma.diff() >= 0).all())
        power = 1 if name == "flow" else 2
        torch.testing.assert_close(alpha**power + sigma**power, torch.ones_like(alpha))
    (course,) = alphas["DDPM, T = 300 (the course)"]
    assert float(course.y[-1]) ** 2 == pytest.approx(0.048, abs=1e-3)


def test_one_step_and_many_start_from_the_same_noisy_digit(lab):
    noised, _, estimates, _, digit = rows(FIGURES["denoising"](lab))
    model = lab.models["mnist-ddpm"]()
    for x, estimate, heading in zip(
        noised, estimates, FIGURES["denoising"](lab).columns, strict=True
    ):
        t = float(heading.removeprefix("t = "))
        alpha, sigma = model.schedule.at(t)
        torch.testing.assert_close(x, alpha * digit[0] + sigma * lab.noise()[0])
        request = Request(x[None], t, 2, schedule=model.schedule)
        (output,) = evaluated(model, [request])
        x0 = (x - sigma * output.prediction[0]) / alpha
        torch.testing.assert_close(estimate, x0, rtol=1e-3, atol=1e-3)
    steps = FIGURES["denoising-steps"](lab)
    first = float(steps.columns[0].removeprefix("t = "))
    begun = model.schedule.add_noise(digit, lab.noise(), first)
    torch.testing.assert_close(rows(steps)[0][0], begun[0])
    assert torch.equal(rows(steps)[2], digit)


def test_the_film_ends_with_the_samples(lab):
    film = FIGURES["denoising-film"](lab)
    assert len(film.frames) == len(film.headings) == QUICK.steps + 1
    assert torch.equal(film.frames[0]["x_t"][4], lab.noise()[0])
    alone = of_each_class(lab, "mnist", 2.0, 1)[:, 0]
    torch.testing.assert_close(film.frames[-1]["x_t"], alone, rtol=1e-4, atol=1e-4)


def test_scale_0_is_sampling_without_a_class_and_1_with_it(lab):
    sheet = FIGURES["guidance-flow"](lab)
    seeds = lab.seeds(2)
    by_scale = dict(zip(SCALES, rows(sheet), strict=True))
    free = lab.sample("mnist", [], UNCONDITIONAL, seeds)
    told = torch.cat([lab.sample("mnist", [], digit, seeds) for digit in GUIDED])
    assert torch.equal(by_scale[0.0], free.repeat(len(GUIDED), 1, 1, 1))
    assert torch.equal(by_scale[1.0], told)
    assert not torch.allclose(by_scale[5.0], told)


def test_samples_by_class_are_of_one_noise_a_row(lab):
    *by_seed, free = rows(FIGURES["samples-flow"](lab))
    assert len(by_seed) == 1
    for digit in (0, 7):
        alone = Sampler(lab.models["mnist"](), [CFG(2.0)], num_inference_steps=QUICK.steps).sample(
            digit, [lab.seed]
        )
        torch.testing.assert_close(by_seed[0][digit], alone.x[0], rtol=1e-4, atol=1e-4)
    assert len(free) == 10


@pytest.mark.parametrize("name", ["sdedit", "sdedit-drawn", "sdedit-class"])
def test_strips_end_with_the_image(lab, name):
    sheet = FIGURES[name](lab)
    starts = [int(heading.removeprefix("i_start ")) for heading in sheet.columns[:-1]]
    assert starts == sorted(set(starts))
    last = torch.stack([row[-1] for row in rows(sheet)])
    if name == "sdedit-drawn":
        assert torch.equal(last, torch.cat([*drawn().values()]))
    else:
        assert torch.equal(last[:2], lab.digits([2, 4], which=1))
    assert not torch.equal(rows(sheet)[0][0], rows(sheet)[0][-1])


def test_inpainting_keeps_the_upper_half_exactly(lab):
    digits, _, *made = rows(FIGURES["inpainting"](lab))
    for row in made:
        assert torch.equal(row[:, :, :14], digits[:, :, :14])
        assert not torch.allclose(row[:, :, 14:], digits[:, :, 14:], atol=0.1)


READ_AS = {
    "rotation": lambda x: x.flip(-2, -1),
    "flip": lambda x: x.flip(-2),
    "negative": lambda x: -x,
    # Column c rolls down by 22 pixels times its place from -1 to 1, as the course rolls 50 of 64.
    "skew": lambda x: torch.stack(
        [x[..., c].roll(round(50 * 28 / 64 * (2 * c / 27 - 1)), -1) for c in range(28)],
        -1,
    ),
}


@pytest.mark.parametrize("name", READ_AS)
def test_the_second_row_of_an_anagram_is_the_first_seen_otherwise(lab, name):
    sheet = FIGURES[f"anagrams-{name}"](lab)
    view = {"rotation": ROTATION, "flip": FLIP, "negative": NEGATIVE, "skew": SKEW}[name]
    assert len(sheet.groups) == len(view.pairs)
    for (upright, other), pair in zip(sheet.groups, view.pairs, strict=True):
        assert torch.equal(other.images, READ_AS[name](upright.images))
        assert (upright.label[-1], other.label[-1]) == tuple(map(str, pair))


def test_a_hybrid_from_afar_is_its_own_blur(lab):
    for nearby, afar in FIGURES["hybrids"](lab).groups:
        assert torch.equal(afar.images, stretched(FROM_AFAR(nearby.images)))
        assert afar.images.amin((1, 2, 3)).tolist() == [-1] * QUICK.columns
        torch.testing.assert_close(afar.images.amax((1, 2, 3)), torch.ones(QUICK.columns))
    grey = torch.zeros(1, 1, 28, 28)
    assert bool(torch.isfinite(stretched(grey)).all())


def test_the_sweep_of_the_denoiser_is_its_answers(lab):
    for digit, (noisy, denoised) in zip(
        (7, 2, 5), FIGURES["denoiser-noise-levels"](lab).groups, strict=True
    ):
        assert torch.equal(noisy.images[0], lab.digits([digit])[0])
        torch.testing.assert_close(denoised.images, BLURRING(noisy.images))


def test_pure_noise_stands_beside_the_mean_digit(lab):
    z, answers, mean = rows(FIGURES["denoiser-pure-noise"](lab))
    assert torch.equal(z, lab.noise(QUICK.columns))
    assert torch.equal(answers, torch.zeros_like(z))
    # The shipped 300 test digits, 30 of each kind, have nearly the mean of the 60,000.
    ours = sample_digits()[0].mean(0)
    assert float((mean[0] - ours).abs().mean()) < 0.05


def test_drawings_are_their_strokes():
    assert len(drawn()) == len(DRAWINGS) >= 3
    for (name, image), strokes in zip(drawn().items(), DRAWINGS.values(), strict=True):
        again = to_tensor(render(strokes))
        torch.testing.assert_close(image, again, rtol=0, atol=0.03, msg=name)
    assert shipped("mean-digit.png").shape == (1, 1, 28, 28)
