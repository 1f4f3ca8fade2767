"""DiffusersSolver against the loops of diffusers' own pipelines, and on every path."""

import importlib
import math

import pytest
import torch
from conftest import mixture
from diffusers import (
    DDIMScheduler,
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    EDMDPMSolverMultistepScheduler,
    EDMEulerScheduler,
    FlowMatchEulerDiscreteScheduler,
    IPNDMScheduler,
    UnCLIPScheduler,
)
from schedulers import (
    DISCRETE,
    ONE_EVALUATION,
    SEVERAL,
    generators_of,
    path_of,
    pure_noise,
    reference,
)
from test_solvers import OURS

from composer import Sampler, hookimpl
from composer.schedules import DiscreteSchedule, FlowSchedule
from composer.solvers import DDIM, DDPM, DiffusersSolver, DPMSolverPP, Euler
from composer.solvers._plan import plan_of
from composer_plugins import Inpaint, SDEdit

diffusers_solver = importlib.import_module("composer.solvers.diffusers")


@pytest.mark.parametrize("spacing", ["leading", "trailing"])
@pytest.mark.parametrize("steps", [5, 20, 50])
@pytest.mark.parametrize(
    ("solver", "scheduler"),
    [
        (DDPM(), lambda s: DDPMScheduler(clip_sample=False, timestep_spacing=s)),
        (
            DDIM(),
            lambda s: DDIMScheduler(clip_sample=False, timestep_spacing=s, set_alpha_to_one=True),
        ),
        (DPMSolverPP(), lambda s: DPMSolverMultistepScheduler(timestep_spacing=s)),
    ],
    ids=["ddpm", "ddim", "dpm_pp"],
)
def test_our_solvers_equal_diffusers(solver, scheduler, spacing, steps):
    backend = mixture(DiscreteSchedule.linear(spacing=spacing), "epsilon")
    # DPM-Solver's leading grid starts one stride later than DDPM's; its own test is below.
    if isinstance(solver, DPMSolverPP) and spacing == "leading":
        spacing = "trailing"
        backend = mixture(DiscreteSchedule.linear(spacing=spacing), "epsilon")
    ours = Sampler(backend, solver=solver, num_inference_steps=steps).sample(2, seeds=[5, 6]).x
    theirs = reference(scheduler(spacing), backend, steps, [5, 6], 2)
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


def test_learned_variance_equals_diffusers(monkeypatch):
    backend = mixture(DiscreteSchedule.linear(spacing="leading"), "epsilon")
    variance = torch.linspace(-1, 1, 64, dtype=torch.float64).reshape(1, 1, 8, 8)
    plain = type(backend).evaluate

    def evaluate(self, batch):
        return plain(self, batch)._replace(variance=variance.expand_as(batch.x))

    monkeypatch.setattr(type(backend), "evaluate", evaluate)
    ours = Sampler(backend, solver=DDPM(), num_inference_steps=10).sample(1, seeds=[5]).x
    adapted = DiffusersSolver(DDPMScheduler(clip_sample=False, variance_type="learned_range"))
    theirs = Sampler(backend, solver=adapted, num_inference_steps=10).sample(1, seeds=[5]).x
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
    without = mixture(DiscreteSchedule.linear(spacing="leading"), "epsilon")
    monkeypatch.undo()
    fixed = Sampler(without, solver=DDPM(), num_inference_steps=10).sample(1, seeds=[5]).x
    assert (ours - fixed).abs().max() > 1e-3


EQUAL = {**DISCRETE, **{n: s for n, s in SEVERAL.items() if hasattr(s, "alphas_cumprod")}}


@pytest.mark.parametrize("name", EQUAL)
@pytest.mark.parametrize("prediction", ["epsilon", "v"])
def test_the_adapter_equals_the_pipeline_loop(name, prediction):
    kind = {"v": "v_prediction", "epsilon": "epsilon"}[prediction]
    given = EQUAL[name]
    if kind == "v_prediction" and isinstance(given, UnCLIPScheduler):
        return  # which does not know it
    if kind == "epsilon" and given.config.get("rescale_betas_zero_snr"):
        return  # of which it says nothing at the start
    scheduler = type(given).from_config(given.config, prediction_type=kind)
    backend = mixture(path_of(scheduler), prediction)
    ours = Sampler(backend, solver=DiffusersSolver(scheduler), num_inference_steps=20)
    theirs = reference(scheduler, backend, 20, [5, 6], 2)
    torch.testing.assert_close(ours.sample(2, seeds=[5, 6]).x, theirs, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    "scheduler",
    [
        EDMEulerScheduler(),
        EDMEulerScheduler(prediction_type="v_prediction", sigma_data=1.0),
        EDMEulerScheduler(sigma_schedule="exponential"),
        EDMDPMSolverMultistepScheduler(),
        EDMDPMSolverMultistepScheduler(solver_order=3),
    ],
    ids=lambda s: type(s).__name__,
)
def test_an_edm_scheduler_equals_the_loop_of_its_pipelines(scheduler):
    """A network F of which D = c_skip x + c_out F, with the exact mean of images for D."""
    backend = mixture(DiscreteSchedule.linear(), "epsilon")
    ours = Sampler(backend, solver=DiffusersSolver(scheduler), num_inference_steps=20)
    scheduler.set_timesteps(20)
    x = pure_noise(generators_of([5, 6]), backend) * scheduler.init_noise_sigma
    for t, sigma in zip(scheduler.timesteps, scheduler.sigmas[:-1], strict=True):
        scheduler.scale_model_input(x, t)  # says that it was called
        denoised = backend.posterior_mean(x, 1.0, float(sigma), 2)
        c_skip, c_out = (scheduler.precondition_outputs(*unit, sigma) for unit in ((1, 0), (0, 1)))
        x = scheduler.step((denoised - c_skip * x) / c_out, t, x).prev_sample
    torch.testing.assert_close(ours.sample(2, seeds=[5, 6]).x, x, rtol=1e-5, atol=1e-5)


def test_ipndm_equals_the_loop_of_its_pipelines():
    """Liu et al. 2022 on the path of angles, alpha = cos and sigma = sin, predicting v."""
    scheduler = IPNDMScheduler()
    backend = mixture(FlowSchedule(), "v")  # begins in noise alone, as it does
    ours = Sampler(backend, solver=DiffusersSolver(scheduler), num_inference_steps=20)
    scheduler.set_timesteps(20)
    x = pure_noise(generators_of([5, 6]), backend)
    path = zip(scheduler.alphas.double(), scheduler.betas.double(), strict=True)
    for t, (alpha, sigma) in zip(scheduler.timesteps, path, strict=False):  # the last is no time
        x0 = backend.posterior_mean(x, alpha, sigma, 2)
        v = alpha * (x - alpha * x0) / sigma - sigma * x0
        x = scheduler.step(v, t, x).prev_sample
    torch.testing.assert_close(ours.sample(2, seeds=[5, 6]).x, x, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", [*ONE_EVALUATION, *SEVERAL])
def test_any_scheduler_drives_a_model_of_any_path(name, schedule):
    """Each image is as near the component asked for as images of it are: of 64 numbers drawn from
    it, the root mean square is below 2 standard deviations but once in 10^24."""
    backend, scheduler = mixture(schedule), {**ONE_EVALUATION, **SEVERAL}[name]
    sampler = Sampler(backend, solver=DiffusersSolver(scheduler), num_inference_steps=40)
    x = sampler.sample(2, seeds=range(8)).x
    spread = (x - backend.means[2]).flatten(1).pow(2).mean(1).sqrt()
    assert (spread < 2.0 * backend.stds[2]).all()


@pytest.mark.parametrize("number", [2, 5, 12])
def test_it_follows_a_step_that_a_plugin_takes_where_several_times_are_one(number):
    """EDM begins noisier than this path ends, so that 9 of its times are the last one here."""
    backend = mixture(DiscreteSchedule.linear(300))
    solver = DiffusersSolver(EDMEulerScheduler())
    plain, taken = (
        Sampler(backend, plugins, solver, num_inference_steps=20).sample(2, seeds=range(4)).x
        for plugins in ([], [TakesStep(number)])
    )
    torch.testing.assert_close(taken, plain, rtol=0, atol=0.05)


@pytest.mark.parametrize("prediction", ["flow", "epsilon"])
def test_a_flow_scheduler_is_euler_on_the_flow_path(prediction):
    """And drives an epsilon model too."""
    solver = DiffusersSolver(FlowMatchEulerDiscreteScheduler())
    backend = mixture(FlowSchedule(), prediction)
    adapted = Sampler(backend, solver=solver, num_inference_steps=200).sample(1, seeds=[3]).x
    ours = Sampler(backend, solver=Euler(), num_inference_steps=200).sample(1, seeds=[3]).x
    torch.testing.assert_close(adapted, ours, rtol=0, atol=2e-2)


@pytest.mark.parametrize("sigma_max", [2.0, 5.0, 80.0])
def test_it_begins_as_wide_as_the_path_is_there(sigma_max):
    """In front of the model, x of a flow is alpha x_0 + sigma noise, narrower than noise alone."""
    scheduler = EDMEulerScheduler(sigma_max=sigma_max)
    level = sigma_max / (1 + sigma_max)
    states = Sampler(mixture(), solver=DiffusersSolver(scheduler), num_inference_steps=4).stream(0)
    noise = pure_noise(generators_of([0]), mixture())
    expected = noise * math.hypot(1 - level, level)
    torch.testing.assert_close(next(states).estimate.x, expected, rtol=1e-6, atol=1e-6)
    start = [SDEdit(torch.zeros(1, 8, 8), strength=1.0)]  # has its own width
    states = Sampler(mixture(), start, DiffusersSolver(scheduler), num_inference_steps=4).stream(0)
    torch.testing.assert_close(next(states).estimate.x, level * noise, rtol=1e-6, atol=1e-6)


def test_a_plan_is_made_once_for_all_runs_and_again_for_another(monkeypatch):
    made = []

    def counted(scheduler, family, schedule, num_steps):
        made.append(num_steps)
        return plan_of(scheduler, family, schedule, num_steps)

    monkeypatch.setattr(diffusers_solver, "plan_of", counted)
    backend = mixture(DiscreteSchedule.linear(), "epsilon")
    solver = DiffusersSolver(DDIMScheduler(clip_sample=False))
    sampler = Sampler(backend, [], solver, 5)
    first, again = (sampler.sample(1, seeds=[0]).x for _ in range(2))
    assert torch.equal(first, again)
    assert made == [5]
    sampler.replace(num_inference_steps=4).sample(1)
    assert made == [5, 4]
    sampler.replace(backend=mixture(DiscreteSchedule.linear(), "epsilon")).sample(1)
    assert made == [5, 4, 5]


def test_an_output_of_its_own_kind_reaches_the_scheduler_as_it_is(monkeypatch):
    """Not by x_0 and back, which costs time and rounds."""
    scheduler, given = DDIMScheduler(clip_sample=False), []
    step = DDIMScheduler.step

    def noted(self, model_output, *args, **options):
        given.append(model_output)
        return step(self, model_output, *args, **options)

    monkeypatch.setattr(DDIMScheduler, "step", noted)
    backend = mixture(DiscreteSchedule.linear(), "epsilon")
    states = Sampler(backend, [], DiffusersSolver(scheduler), 3).stream(1)
    for state, output in zip(states, given, strict=False):
        assert torch.equal(state.estimate.prediction, output)
    assert len(given) == 3


def test_a_scheduler_is_not_changed_by_use():
    scheduler = DPMSolverMultistepScheduler()
    sampler = Sampler(mixture(), solver=DiffusersSolver(scheduler), num_inference_steps=5)
    first, second = (sampler.sample(1).x for _ in range(2))
    assert torch.equal(first, second)
    assert scheduler.num_inference_steps is None


@pytest.mark.parametrize(
    "solver",
    [*OURS, *ONE_EVALUATION],
    ids=lambda s: s if isinstance(s, str) else type(s).__name__,
)
def test_every_solver_survives_renoising_jumps(solver, schedule):
    solver = DiffusersSolver(ONE_EVALUATION[solver]) if isinstance(solver, str) else solver
    backend = mixture(schedule, "flow")
    image, mask = backend.means[1], torch.zeros(8, 8)
    mask[:, 4:] = 1
    repaint = Inpaint(image, mask, "repaint", jump_length=4, resamples=3)
    x = Sampler(backend, [repaint], solver, num_inference_steps=20).sample(1, seeds=range(4)).x
    assert torch.equal(x[..., :4], image[..., :4].expand(4, 1, 8, 4))
    spread = (x - image)[..., 4:].flatten(1).pow(2).mean(1).sqrt()
    assert (spread < 3 * backend.stds[1]).all()


class TakesStep:
    """Takes one step by DDIM's formula."""

    def __init__(self, number):
        self.number = number

    @hookimpl
    def step(self, state, estimate):
        return DDIM().step(state, estimate) if state.step == self.number else None


@pytest.mark.parametrize("number", [0, 2, 5])
def test_a_scheduler_follows_when_a_plugin_takes_a_step(number):
    backend = mixture(DiscreteSchedule.linear(spacing="leading"), "epsilon")
    adapted = DiffusersSolver(DDIMScheduler(clip_sample=False, set_alpha_to_one=True))
    ours = Sampler(backend, [TakesStep(number)], adapted, num_inference_steps=10).sample(1).x
    torch.testing.assert_close(
        ours, Sampler(backend, solver=DDIM(), num_inference_steps=10).sample(1).x, rtol=0, atol=1e-5
    )
