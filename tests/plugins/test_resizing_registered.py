"""Every registered plugin scales with a cascade: what it holds of one size is resized with it."""

import dataclasses
import inspect

import pytest
import torch
from conftest import mixture
from torch import nn
from torch.nn.functional import scaled_dot_product_attention

import composer
from composer import Plugin, Sampler, Transform
from composer.authoring import answers, resized, sets_conditions, views_of
from composer.plugin import kind_of
from composer.solvers import DDPM
from composer_plugins import (
    APG,
    CFG,
    DAPS,
    DDNM,
    DPS,
    FDG,
    PAG,
    SEG,
    SLG,
    TCFG,
    TFG,
    AdaptiveGuidance,
    Anagram,
    Autoguidance,
    Canvas,
    Cascade,
    CFGPlusPlus,
    CFGZeroStar,
    Climb,
    Components,
    Conjunction,
    DifferentialEdit,
    DiffPIR,
    DistilledGuidance,
    DynamicThreshold,
    FeynmanKac,
    FeynmanKacCorrector,
    FlowEdit,
    Hybrid,
    Inpaint,
    KnownPixels,
    Langevin,
    LanPaint,
    LatentAnagram,
    Masks,
    Particles,
    Recurrence,
    Reference,
    Regions,
    Rescale,
    ReusedGuidance,
    RFInversion,
    SDEdit,
    Stage,
    Steer,
    SuperDiff,
    SuperResolution,
    TripleHybrid,
    WithWeak,
)
from composer_plugins.transforms import Flip, Permutation

SMALL, LARGE = 8, 16


def image(size):
    return torch.linspace(-1, 1, 3 * size**2).reshape(3, size, size)


def mask(size):
    return torch.cat([torch.zeros(size // 2, size), torch.ones(size // 2, size)])


def shuffled(size):
    """A view that holds an index a pixel, within another that holds nothing."""
    order = torch.randperm(size**2, generator=torch.Generator().manual_seed(0))
    return Flip() @ Permutation(order.tolist()).inverse_transform


def views(size):
    return Anagram({"identity": 1, shuffled(size): 2})


def brightness(x):
    return x.flatten(1).mean(1)


PLUGINS = {
    "cfg": lambda n: CFG(2.0, negative=3),
    "anagram": views,
    "latent_anagram": lambda n: LatentAnagram({"identity": 1, shuffled(n): 2}),
    "components": lambda n: Components(Masks((mask(n), 1 - mask(n))), (views(n), 2)),
    "hybrid": lambda n: Hybrid(views(n), 2),
    "triple_hybrid": lambda n: TripleHybrid(1, views(n), 2),
    "inpaint": lambda n: Inpaint(image(n), mask(n)),
    "sdedit": lambda n: SDEdit(image(n), 0.8),
    "super_resolution": lambda n: SuperResolution(image(n)),
    "conjunction": lambda n: Conjunction({views(n): 2.0, 3: -0.5}),
    "reference": lambda n: Reference(image(n), Masks((mask(n), 1 - mask(n)))),
    "particles": lambda n: Particles(brightness),
    "feynman_kac": lambda n: FeynmanKac(brightness),
    "langevin": lambda n: Langevin(),
    "lanpaint": lambda n: LanPaint(image(n), mask(n)),
    "ddnm": lambda n: DDNM(image(n), KnownPixels(mask(n))),
    "diffpir": lambda n: DiffPIR(image(n), KnownPixels(mask(n))),
    "daps": lambda n: DAPS(image(n), KnownPixels(mask(n))),
    "differential_edit": lambda n: DifferentialEdit(image(n), mask(n)),
    "flow_edit": lambda n: FlowEdit(image(n), 2),
    "rf_inversion": lambda n: RFInversion(image(n)),
    "dynamic_threshold": lambda n: DynamicThreshold(),
    "distilled_guidance": lambda n: DistilledGuidance([2.0, 5.0]),
    "rescale": lambda n: Rescale(Conjunction({views(n): 2.0})),
    "apg": lambda n: APG(Conjunction({views(n): 2.0})),
    "autoguidance": lambda n: Autoguidance(2.0),
    "cfg_plus_plus": lambda n: CFGPlusPlus(0.5),
    "cfg_zero_star": lambda n: CFGZeroStar(3.0),
    "tcfg": lambda n: TCFG(3.0),
    "fdg": lambda n: FDG((2.0, 4.0), Masks((mask(n), 1 - mask(n)))),
    "pag": lambda n: PAG(2.0, Conjunction({views(n): 2.0})),
    "seg": lambda n: SEG(2.0, Conjunction({views(n): 2.0})),
    "slg": lambda n: SLG(2.0, "mid_block", Conjunction({views(n): 2.0})),
    "adaptive_guidance": lambda n: AdaptiveGuidance(2.0),
    "reused_guidance": lambda n: ReusedGuidance(2.0),
    "climb": lambda n: Climb(brightness),
    "steer": lambda n: Steer(brightness, view=shuffled(n)),
    "dps": lambda n: DPS(brightness, view=shuffled(n)),
    "tfg": lambda n: TFG(brightness, view=shuffled(n)),
    "recurrence": lambda n: Recurrence(3),
    "super_diff": lambda n: SuperDiff({"identity": 1, shuffled(n): 2}),
    "feynman_kac_corrector": lambda n: FeynmanKacCorrector(
        {"identity": 1, shuffled(n): 2}, (0.5, 0.5)
    ),
    "regions": lambda n: Regions((1, 2), (mask(n), 1 - mask(n))),
}
"""{name: a plugin that holds all it can of images of n x n}"""
OFFERED = {o.name: o.factory for o in composer.installed().offers.values() if o.kind == "plugin"}
SOLVERS = {"super_diff": DDPM()}
# The image it enlarges is smaller than those of the model, by whatever factor.
ANY_SIZE = {"super_resolution"}


class Attention(nn.Module):
    """Self-attention of images (N, C, H, W), named as diffusers names it."""

    processor, heads = None, 1

    def __init__(self):
        super().__init__()
        self.to_q = nn.Identity()

    def forward(self, x):
        tokens = x.flatten(2).mT
        made = scaled_dot_product_attention(
            self.to_q(tokens)[:, None], tokens[:, None], tokens[:, None]
        )
        return made[:, 0].mT.view_as(x)


class Distilled(WithWeak):
    """It takes a scale, and has a network; and answers without either."""

    guidance, network = 3.5, nn.ModuleDict({"mid_block": Attention()})
    networks = {"network": network}  # noqa: RUF012

    def evaluate(self, batch):
        self.network["mid_block"](batch.x)
        return super().evaluate(batch)


def backend(size):
    """A model that every plugin accepts."""
    model = mixture(shape=(3, size, size))
    return Canvas(Distilled(model, model), (size, size))


def test_no_plugin_is_missing_here():
    built_in = {n for n, f in OFFERED.items() if f.__module__.startswith("composer_plugins.")}
    assert PLUGINS.keys() == built_in


@pytest.mark.parametrize("name", sorted(PLUGINS.keys() - ANY_SIZE))
def test_a_plugin_runs_in_both_stages_of_a_cascade(name):
    """Given for the large images as the documentation asks; permutations for the small ones."""
    solver = SOLVERS.get(name)
    stages = [Stage(backend(size), solver=solver, num_inference_steps=4) for size in (SMALL, LARGE)]
    stages[1] = dataclasses.replace(stages[1], enlarge=lambda x: CFG(1.0))
    size = SMALL if holds_permutation(name) else LARGE
    plugin = PLUGINS[name](size)
    condition = None if sets_conditions(plugin) else 1
    small, large = Cascade(stages, [plugin]).sample(condition, seeds=[0, 1])
    assert (small.x.shape[-1], large.x.shape[-1]) == (SMALL, LARGE)
    alone = Sampler(stages[1].backend, [resized(plugin, LARGE, LARGE)], solver, 4)
    assert torch.equal(large.x, alone.sample(condition, seeds=[0, 1]).x)


def holds_permutation(name):
    plugin = PLUGINS[name](SMALL)
    return bool(views_of([plugin])) or isinstance(getattr(plugin, "view", None), Transform)


@pytest.mark.parametrize("name", sorted(PLUGINS))
def test_estimates_predict_what_the_plugin_declares(name):
    plugin = PLUGINS[name](SMALL)
    if not answers(plugin, "noise_estimate"):
        pytest.skip("it answers no noise_estimate")
    sampler = Sampler(backend(SMALL), [plugin], SOLVERS.get(name))
    x = torch.randn(2, 3, SMALL, SMALL, dtype=torch.float64)
    assert sampler.denoise(x, 0.3).kind == kind_of(plugin, sampler.backend.prediction)


def test_whoever_takes_an_image_or_a_mask_can_be_resized():
    """Also plugins of other packages, if any are installed."""
    takers = {
        name: factory
        for name, factory in OFFERED.items()
        if {"ImageLike", "Operator"} & set(inspect.get_annotations(factory.__init__).values())
    }
    assert {"inpaint", "sdedit", "ddnm", *ANY_SIZE} <= takers.keys()
    for name, factory in takers.items():
        own = getattr(factory, "resized", Plugin.resized) is not Plugin.resized
        assert own or name in ANY_SIZE
