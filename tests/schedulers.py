"""Schedulers of diffusers as users configure them, and the loop of diffusers' own pipelines."""

import copy
import inspect

import torch
from diffusers import (
    CogVideoXDDIMScheduler,
    DDIMParallelScheduler,
    DDIMScheduler,
    DDPMParallelScheduler,
    DDPMScheduler,
    DEISMultistepScheduler,
    DPMSolverMultistepScheduler,
    DPMSolverSinglestepScheduler,
    EDMDPMSolverMultistepScheduler,
    EDMEulerScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    FlowMatchHeunDiscreteScheduler,
    FlowMatchLCMScheduler,
    HeunDiscreteScheduler,
    IPNDMScheduler,
    KDPM2AncestralDiscreteScheduler,
    KDPM2DiscreteScheduler,
    LCMScheduler,
    LMSDiscreteScheduler,
    PNDMScheduler,
    SASolverScheduler,
    TCDScheduler,
    UnCLIPScheduler,
    UniPCMultistepScheduler,
)

from composer.schedules import DiscreteSchedule

KARRAS = {"use_karras_sigmas": True}
COSINE = {"beta_schedule": "squaredcos_cap_v2"}
FREE = {"clip_sample": False}
ZERO_SNR = {
    "rescale_betas_zero_snr": True,
    "timestep_spacing": "trailing",
    "prediction_type": "v_prediction",
}
MULTISTEP = (
    DEISMultistepScheduler,
    DPMSolverMultistepScheduler,
    DPMSolverSinglestepScheduler,
    SASolverScheduler,
    UniPCMultistepScheduler,
)
DISCRETE = {
    "DDIM": DDIMScheduler(**FREE),
    "DDIM trailing": DDIMScheduler(timestep_spacing="trailing", **FREE),
    "DDIM zero SNR": DDIMScheduler(**ZERO_SNR, **FREE),
    "DDIM parallel": DDIMParallelScheduler(**FREE),
    "DDIM of CogVideoX": CogVideoXDDIMScheduler(**FREE),
    "DDPM": DDPMScheduler(**FREE),
    "DDPM parallel": DDPMParallelScheduler(**FREE),
    "Euler": EulerDiscreteScheduler(),
    "Euler Karras": EulerDiscreteScheduler(**KARRAS),
    "Euler Karras cosine": EulerDiscreteScheduler(**KARRAS, **COSINE),
    "Euler zero SNR": EulerDiscreteScheduler(**ZERO_SNR),
    "Euler ancestral": EulerAncestralDiscreteScheduler(),
    "LCM": LCMScheduler(),
    "LMS": LMSDiscreteScheduler(),
    "LMS Karras": LMSDiscreteScheduler(**KARRAS),
    "TCD": TCDScheduler(),
    "UnCLIP": UnCLIPScheduler(**FREE),
    "DPM lu": DPMSolverMultistepScheduler(use_lu_lambdas=True),
    "DPM 3": DPMSolverMultistepScheduler(solver_order=3, **KARRAS),
    "DPM stochastic": DPMSolverMultistepScheduler(algorithm_type="sde-dpmsolver++", **KARRAS),
    "UniPC 3": UniPCMultistepScheduler(solver_order=3, **KARRAS),
    **{f"{kind.__name__}": kind() for kind in MULTISTEP},
    **{f"{kind.__name__} Karras": kind(**KARRAS) for kind in MULTISTEP},
    **{f"{kind.__name__} Karras cosine": kind(**KARRAS, **COSINE) for kind in MULTISTEP},
    **{f"{kind.__name__} exponential": kind(use_exponential_sigmas=True) for kind in MULTISTEP},
}
"""Of DDPM's kind, one evaluation a step."""
ONE_EVALUATION = {
    **DISCRETE,
    "EDM": EDMEulerScheduler(),
    "EDM exponential": EDMEulerScheduler(sigma_schedule="exponential"),
    "EDM DPM": EDMDPMSolverMultistepScheduler(),
    "flow": FlowMatchEulerDiscreteScheduler(),
    "flow shifted": FlowMatchEulerDiscreteScheduler(shift=3.0),
    "flow stochastic": FlowMatchEulerDiscreteScheduler(stochastic_sampling=True),
    "flow LCM": FlowMatchLCMScheduler(),
    "IPNDM": IPNDMScheduler(),
}
SEVERAL = {
    "flow Heun": FlowMatchHeunDiscreteScheduler(),
    "Heun": HeunDiscreteScheduler(),
    "Heun Karras": HeunDiscreteScheduler(**KARRAS),
    "KDPM2": KDPM2DiscreteScheduler(),
    "KDPM2 Karras": KDPM2DiscreteScheduler(**KARRAS),
    "KDPM2 ancestral": KDPM2AncestralDiscreteScheduler(),
    "PNDM": PNDMScheduler(),
    "PNDM without Runge-Kutta": PNDMScheduler(skip_prk_steps=True),
}
"""Several evaluations a step."""


def path_of(scheduler):
    """The path that a scheduler of DDPM's kind is made for."""
    return DiscreteSchedule(scheduler.alphas_cumprod.cummin(0).values)


def generators_of(seeds):
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def pure_noise(generators, backend):
    """Of one image a generator, (B, C, H, W)."""
    draws = [torch.randn(1, *backend.shape, generator=g, dtype=backend.dtype) for g in generators]
    return torch.cat(draws)


def reference(scheduler, backend, steps, seeds, condition, image=None, begin=0):
    """The loop of diffusers' pipelines, written out: from noise, or from an image (1, C, H, W)
    noised to where the evaluation ``begin`` is."""
    scheduler = copy.deepcopy(scheduler)
    scheduler.set_timesteps(steps)
    if hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(begin)
    generators = generators_of(seeds)
    x, times = pure_noise(generators, backend), scheduler.timesteps[begin:]
    if image is None:
        x = x * scheduler.init_noise_sigma
    else:  # the network is to be shown the image at its time
        shown = scheduler.scale_model_input(torch.ones(1, dtype=torch.float64), times[0])
        x = backend.schedule.add_noise(image, x, float(times[0])) / shown
    for k, t in enumerate(times):
        shown = scheduler.scale_model_input(x, t)
        alpha, sigma = backend.schedule.at(float(t))
        x0 = backend.posterior_mean(shown, alpha, sigma, condition)
        noise = (shown - alpha * x0) / sigma
        out = backend.prediction.target(x0, noise, alpha, sigma)
        further = {
            "generator": generators,
            "order": min(k + 1, 4),  # LMS takes it that it began at 0
            "prev_timestep": times[k + 1] if k + 1 < len(times) else None,
        }
        accepted = inspect.signature(scheduler.step).parameters
        further = {name: value for name, value in further.items() if name in accepted}
        x = scheduler.step(out, t, x, **further).prev_sample
    return x
