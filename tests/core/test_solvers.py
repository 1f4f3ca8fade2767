"""Solvers against closed forms, against each other and against diffusers."""

import copy
import math
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from conftest import mixture
from diffusers import (
    CogVideoXDPMScheduler,
    DDIMInverseScheduler,
    DDIMScheduler,
    DDPMScheduler,
    DEISMultistepScheduler,
    DPMSolverMultistepScheduler,
    DPMSolverSinglestepScheduler,
    EDMDPMSolverMultistepScheduler,
    EDMEulerScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    HeunDiscreteScheduler,
    IPNDMScheduler,
    KDPM2DiscreteScheduler,
    LMSDiscreteScheduler,
    PNDMScheduler,
    RePaintScheduler,
    UniPCMultistepScheduler,
)
from scipy import stats

from composer import Sampler, hookimpl
from composer.predictions import EPSILON, FLOW, PREDICTIONS, V
from composer.schedules import DiscreteSchedule, FlowSchedule
from composer.solvers import DDIM, DDPM, DiffusersSolver, DPMSolverPP, Euler, Heun
from composer.testing import GaussianMixtureBackend
from composer_plugins import CFG, Inpaint, SDEdit

OURS = [Euler(), DDIM(), DDIM(eta=1.0), DDPM(), Heun(), DPMSolverPP()]


def gaussian(schedule, prediction=FLOW, mean=0.5, std=0.4):
    means = torch.full((1, 1, 1, 1), mean, dtype=torch.float64)
    return GaussianMixtureBackend(means, [std], schedule=schedule, prediction=prediction)


@pytest.mark.parametrize("solver", OURS, ids=repr)
@pytest.mark.parametrize("prediction", sorted(PREDICTIONS))
def test_every_solver_makes_samples_of_the_mixture(solver, prediction, schedule):
    """Each sample is near one of four images far apart, whatever the model predicts."""
    backend = mixture(schedule, prediction)
    x = Sampler(backend, solver=solver, num_inference_steps=40).sample(seeds=range(16)).x
    spread = (x[:, None] - backend.means).flatten(2).pow(2).mean(2).sqrt()
    nearest = spread.argmin(1)
    limits = torch.tensor(backend.stds)[nearest]
    assert (spread.min(1).values < 1.8 * limits).all()
    assert len(set(nearest.tolist())) > 1


@pytest.mark.parametrize("solver", OURS, ids=repr)
def test_the_sample_does_not_depend_on_the_prediction_type(solver, schedule):
    # From step 1 on: at pure noise, alpha = 0, epsilon says nothing of the image.
    start = SDEdit(torch.zeros(1, 8, 8, dtype=torch.float64), i_start=1)
    xs = []
    for kind in PREDICTIONS:
        sampler = Sampler(mixture(schedule, kind), [start, CFG(2.5)], solver, 12)
        start = SDEdit(start.image, i_start=1)
        xs.append(sampler.sample(1, seeds=[3, 4]).x)
    for x in xs[1:]:
        torch.testing.assert_close(x, xs[0], rtol=1e-7, atol=1e-7)


@dataclass(frozen=True)
class Between:
    """A solver on an even grid of two thirds of the flow path, away from its ends."""

    solver: object

    def times(self, schedule, num_steps):
        return [0.2 + 0.6 * i / num_steps for i in range(num_steps + 1)]

    @hookimpl
    def step(self, state, estimate):
        return self.solver.step(state, estimate)


def slope(solver, steps):
    """Order of convergence: minus the slope of log error over log steps, float64."""
    means = torch.tensor([-0.6, 0.8], dtype=torch.float64).reshape(2, 1, 1, 1)
    backend = GaussianMixtureBackend(means, [0.5, 0.4])

    def end(n, method):
        x = Sampler(backend, solver=method, num_inference_steps=n).sample(seeds=range(32)).x
        return x.flatten()

    exact = end(4000, Between(Heun()) if isinstance(solver, Between) else Heun())
    errors = [(end(n, solver) - exact).norm().item() for n in steps]
    return -np.polyfit(np.log(steps), np.log(errors), 1)[0]


@pytest.mark.parametrize(
    ("solver", "order"),
    [
        (Euler(), 1),
        (Heun(), 2),
        (Between(Euler()), 1),
        (Between(DDIM()), 1),
        (Between(Heun()), 2),
        # At the ends of the path log(alpha / sigma) diverges, and 2M falls to order 1.7.
        (Between(DPMSolverPP()), 2),
    ],
    ids=repr,
)
def test_errors_fall_with_the_order_of_the_solver(solver, order):
    assert slope(solver, [32, 64, 128, 256]) == pytest.approx(order, abs=0.1)


def samples(backend, solver, steps, count=4000, seed=0):
    seeds = range(seed, seed + count)
    sampler = Sampler(backend, solver=solver, num_inference_steps=steps)
    return sampler.sample(seeds=seeds).x.flatten().numpy()


def p_value(x, mean=0.5, std=0.4):
    """Of the hypothesis x ~ N(mean, std^2): shape, location and spread, Bonferroni-corrected."""
    shape = stats.kstest(x, stats.norm(mean, std).cdf).pvalue
    location = 2 * stats.norm.sf(abs(x.mean() - mean) / std * len(x) ** 0.5)
    ratio = stats.chi2(len(x) - 1)
    statistic = (len(x) - 1) * x.var(ddof=1) / std**2
    spread = 2 * min(ratio.sf(statistic), ratio.cdf(statistic))
    return 3 * min(shape, location, spread)


# A correct sampler fails a test with probability 1e-6, up to its discretisation error; the seeds
# are fixed, so in practice never.
RARE = 1e-6


@pytest.mark.parametrize("solver", [Heun(), DPMSolverPP(), Euler()], ids=repr)
def test_ode_solvers_sample_the_known_distribution(solver):
    assert p_value(samples(gaussian(FlowSchedule()), solver, 100)) > RARE


@pytest.mark.parametrize("solver", [DDPM(), DDIM(eta=1.0)], ids=repr)
def test_stochastic_solvers_sample_the_known_distribution(solver):
    backend = gaussian(DiscreteSchedule.linear(), EPSILON)
    assert p_value(samples(backend, solver, 1000)) > RARE


def test_a_mixture_is_sampled_in_its_proportions():
    means = torch.tensor([-0.7, 0.7], dtype=torch.float64).reshape(2, 1, 1, 1)
    backend = GaussianMixtureBackend(means, [0.1, 0.1], weights=[0.2, 0.8])
    high = int((samples(backend, Heun(), 100) > 0).sum())
    assert stats.binomtest(high, 4000, 0.8).pvalue > RARE


def test_the_distribution_tests_have_power():
    """They do see an error of ten per cent in spread, and of a tenth of it in location."""
    right = samples(gaussian(FlowSchedule()), Heun(), 100)
    assert p_value(right, std=0.44) < RARE
    assert p_value(right, mean=0.46) < RARE


def pure_noise(generators, backend):
    """Of one image a generator, (B, C, H, W)."""
    draws = [torch.randn(1, *backend.shape, generator=g, dtype=backend.dtype) for g in generators]
    return torch.cat(draws)


def generators_of(seeds):
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def reference(scheduler, backend, steps, seeds, condition):
    """The loop of diffusers' pipelines, written out."""
    scheduler.set_timesteps(steps)
    generators = generators_of(seeds)
    x = pure_noise(generators, backend) * scheduler.init_noise_sigma
    accepted = scheduler.step.__code__.co_varnames
    extra = {"generator": generators} if "generator" in accepted else {}
    for t in scheduler.timesteps:
        shown = scheduler.scale_model_input(x, t)
        alpha, sigma = backend.schedule.at(float(t))
        x0 = backend.posterior_mean(shown, alpha, sigma, condition)
        noise = (shown - alpha * x0) / sigma
        out = backend.prediction.target(x0, noise, alpha, sigma)
        x = scheduler.step(out, t, x, **extra).prev_sample
    return x


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

    def evaluate(self, requests):
        return [
            o._replace(variance=variance.expand_as(o.prediction)) for o in plain(self, requests)
        ]

    monkeypatch.setattr(type(backend), "evaluate", evaluate)
    ours = Sampler(backend, solver=DDPM(), num_inference_steps=10).sample(1, seeds=[5]).x
    adapted = DiffusersSolver(DDPMScheduler(clip_sample=False, variance_type="learned_range"))
    theirs = Sampler(backend, solver=adapted, num_inference_steps=10).sample(1, seeds=[5]).x
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
    without = mixture(DiscreteSchedule.linear(spacing="leading"), "epsilon")
    monkeypatch.undo()
    fixed = Sampler(without, solver=DDPM(), num_inference_steps=10).sample(1, seeds=[5]).x
    assert (ours - fixed).abs().max() > 1e-3


SCHEDULERS = [
    DDPMScheduler(clip_sample=False),
    DDIMScheduler(clip_sample=False),
    EulerDiscreteScheduler(timestep_spacing="leading"),
    EulerDiscreteScheduler(use_karras_sigmas=True, timestep_spacing="leading"),
    EulerAncestralDiscreteScheduler(timestep_spacing="leading"),
    HeunDiscreteScheduler(timestep_spacing="leading"),
    LMSDiscreteScheduler(timestep_spacing="leading"),
    KDPM2DiscreteScheduler(timestep_spacing="leading"),
    DPMSolverMultistepScheduler(),
    DPMSolverSinglestepScheduler(),
    DEISMultistepScheduler(),
    UniPCMultistepScheduler(),
    PNDMScheduler(skip_prk_steps=True),
    PNDMScheduler(),
]
OTHERS = [EDMEulerScheduler(), EDMDPMSolverMultistepScheduler(), IPNDMScheduler()]
names = [type(s).__name__ for s in SCHEDULERS]


@pytest.mark.parametrize("scheduler", SCHEDULERS, ids=names)
@pytest.mark.parametrize("prediction", ["epsilon", "v"])
def test_the_adapter_equals_the_pipeline_loop(scheduler, prediction):
    kind = {"v": "v_prediction", "epsilon": "epsilon"}[prediction]
    scheduler = type(scheduler).from_config(scheduler.config, prediction_type=kind)
    # Their own betas: diffusers' schedulers differ in the defaults.
    backend = mixture(DiscreteSchedule(scheduler.alphas_cumprod), prediction)
    ours = Sampler(backend, solver=DiffusersSolver(scheduler), num_inference_steps=20)
    theirs = reference(copy.deepcopy(scheduler), backend, 20, [5, 6], 2)
    torch.testing.assert_close(ours.sample(2, seeds=[5, 6]).x, theirs, rtol=2e-3, atol=2e-3)


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


@pytest.mark.parametrize("scheduler", [*SCHEDULERS, *OTHERS], ids=lambda s: type(s).__name__)
def test_any_scheduler_drives_a_flow_model(scheduler):
    backend = mixture()
    sampler = Sampler(backend, solver=DiffusersSolver(scheduler), num_inference_steps=40)
    x = sampler.sample(2, seeds=range(8)).x
    spread = (x - backend.means[2]).flatten(1).pow(2).mean(1).sqrt()
    assert (spread < 2.0 * backend.stds[2]).all()


@pytest.mark.parametrize("prediction", ["flow", "epsilon"])
def test_a_flow_scheduler_is_euler_on_the_flow_path(prediction):
    """And drives an epsilon model too."""
    solver = DiffusersSolver(FlowMatchEulerDiscreteScheduler())
    backend = mixture(FlowSchedule(), prediction)
    adapted = Sampler(backend, solver=solver, num_inference_steps=200).sample(1, seeds=[3]).x
    ours = Sampler(backend, solver=Euler(), num_inference_steps=200).sample(1, seeds=[3]).x
    torch.testing.assert_close(adapted, ours, rtol=0, atol=2e-2)


def test_a_scheduler_is_not_changed_by_use():
    scheduler = DPMSolverMultistepScheduler()
    sampler = Sampler(mixture(), solver=DiffusersSolver(scheduler), num_inference_steps=5)
    first, second = (sampler.sample(1).x for _ in range(2))
    assert torch.equal(first, second)
    assert scheduler.num_inference_steps is None


def test_a_scheduler_that_adds_noise_is_refused():
    with pytest.raises(ValueError, match="DDIMInverseScheduler in .* goes from cleaner to noisier"):
        Sampler(mixture(), solver=DiffusersSolver(DDIMInverseScheduler()))


def test_a_number_of_steps_that_a_scheduler_cannot_plan_is_refused():
    with pytest.raises(ValueError, match="PNDMScheduler has no plan of 2 steps .*; take another"):
        Sampler(mixture(), solver=DiffusersSolver(PNDMScheduler()), num_inference_steps=2)


@pytest.mark.parametrize(
    "solver",
    [*OURS, *(DiffusersSolver(s) for s in SCHEDULERS if "PNDM" not in str(s) and s.order == 1)],
    ids=lambda s: type(getattr(s, "scheduler", s)).__name__,
)
def test_every_solver_survives_renoising_jumps(solver, schedule):
    backend = mixture(schedule, "flow")
    image, mask = backend.means[1], torch.zeros(8, 8)
    mask[:, 4:] = 1
    repaint = Inpaint(image, mask, "repaint", jump_length=4, resamples=3)
    x = Sampler(backend, [repaint], solver, num_inference_steps=20).sample(1, seeds=range(4)).x
    assert torch.equal(x[..., :4], image[..., :4].expand(4, 1, 8, 4))
    spread = (x - image)[..., 4:].flatten(1).pow(2).mean(1).sqrt()
    assert (spread < 3 * backend.stds[1]).all()


def test_schedulers_that_cannot_start_or_jump_inside_their_plan_say_so():
    inpaint = Inpaint(torch.zeros(1, 8, 8), torch.ones(8, 8), "repaint")
    sdedit = SDEdit(torch.zeros(1, 8, 8), 0.5)
    several = [HeunDiscreteScheduler(), KDPM2DiscreteScheduler(), PNDMScheduler()]
    for scheduler in several:
        for plugin in (inpaint, sdedit):
            sampler = Sampler(mixture(), [plugin], DiffusersSolver(scheduler))
            name = type(scheduler).__name__
            with pytest.raises(ValueError, match=rf"{name} .* use Heun\(\)"):
                sampler.sample(0)


def test_history_is_forgotten_at_a_jump():
    """DPM-Solver++(2M) after a jump takes a first-order step, which DDIM's is."""
    backend = mixture()
    state_times = [0.5, 0.6, 0.2, 0.3]

    class Plan:
        def __init__(self, solver):
            self.step = solver.step

        def times(self, schedule, num_steps):
            return state_times

    both = [
        [s.x.clone() for s in Sampler(backend, solver=Plan(m)).stream(1, seeds=[0])]
        for m in (DPMSolverPP(), DDIM())
    ]
    for ours, first_order in zip(*both, strict=True):
        torch.testing.assert_close(ours, first_order)


def test_v_at_the_ends_is_regular():
    """On v and flow nothing is divided by alpha, so the first step needs no clipping."""
    for prediction in (V, FLOW):
        backend = gaussian(FlowSchedule(), prediction)
        x = Sampler(backend, solver=Heun(), num_inference_steps=4).sample(seeds=range(50)).x
        assert x.abs().max() < 0.5 + 6 * 0.4


@pytest.mark.parametrize("eta", [-0.1, 1.1, math.nan])
def test_eta_outside_0_1_is_refused(eta):
    with pytest.raises(ValueError, match="eta"):
        DDIM(eta)


def test_what_is_no_solver_is_refused():
    for bad in ("euler", DDIM, object()):
        with pytest.raises(TypeError, match="solver must be a solver object"):
            Sampler(mixture(), solver=bad)
    with pytest.raises(TypeError, match="needs a diffusers scheduler"):
        DiffusersSolver("euler")


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


def test_a_plan_with_foreign_times_is_refused():
    class Foreign:
        @hookimpl
        def start(self, state):
            state.times = [0.0, 0.123456, 1.0]

    sampler = Sampler(mixture(), [Foreign()], DiffusersSolver(DDIMScheduler()))
    with pytest.raises(ValueError, match="DDIMScheduler has no time .* in its plan"):
        sampler.sample(1)


@pytest.mark.parametrize(
    ("scheduler", "sentence"),
    [
        (RePaintScheduler(), "RePaintScheduler is neither a DDPM-like scheduler"),
        (CogVideoXDPMScheduler(), "of CogVideoXDPMScheduler asks for old_pred_original_sample and"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_schedulers_of_another_kind_are_refused(scheduler, sentence):
    with pytest.raises(ValueError, match=sentence):
        DiffusersSolver(scheduler)


def test_a_learned_variance_that_is_not_there_is_refused():
    solver = DiffusersSolver(DDPMScheduler(variance_type="learned_range"))
    with pytest.raises(ValueError, match="expects a learned variance and the backend has none"):
        Sampler(mixture(), solver=solver).sample(1)


def test_ddpm_knows_two_fixed_variances():
    with pytest.raises(ValueError, match="DDPM: variance must be one of .* got 'learned'"):
        DDPM("learned")
