"""PAG, SEG and skip-layer guidance, against diffusers' guiders and pipeline."""

import json
import math
import threading

import pytest
import torch
from conftest import mixture
from diffusers import DDIMScheduler, StableDiffusionPAGPipeline
from diffusers.guiders import (
    PerturbedAttentionGuidance,
    SkipLayerGuidance,
    SmoothedEnergyGuidance,
)
from diffusers.hooks import LayerSkipConfig
from diffusers.hooks.smoothed_energy_guidance_utils import (
    SmoothedEnergyGuidanceConfig,
    _gaussian_blur_2d,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_latent import load
from tiny_unet import tiny_unet
from torch import nn
from torch.nn import functional as F

import composer
from composer import UNCONDITIONAL, Request, Sampler, installed
from composer.model import Model, evaluated
from composer.predictions import EPSILON
from composer.recipes import decode, encode
from composer.schedules import DiscreteSchedule, FlowSchedule
from composer.solvers import DDIM
from composer.stats import Stats
from composer_plugins import (
    APG,
    CFG,
    PAG,
    SEG,
    SLG,
    Anagram,
    Canvas,
    CFGZeroStar,
    Rescale,
    WithWeak,
)
from composer_plugins.backends.diffusers_unet.backend import DiffusersBackend
from composer_plugins.guidance.seg import blurred

MID = "mid_block.attentions.0"
EVERY = [lambda s, g=None: PAG(s, g), lambda s, g=None: SEG(s, g), lambda s, g=None: SLG(s, MID, g)]
X = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(3))
T = 600.0


@pytest.fixture(scope="module")
def backend():
    unet = tiny_unet(num_class_embeds=11)
    with torch.no_grad():  # untrained attention is nearly uniform
        for name, parameter in unet.named_parameters():
            if "to_q.weight" in name or "to_k.weight" in name:
                parameter.mul_(4)
    return DiffusersBackend(
        unet, DiscreteSchedule.linear(), EPSILON, DDIM(), unconditional_label=10
    )


BLOCKS = "mid_block.attentions.0.transformer_blocks"
GUIDERS = {
    "PAG": (
        lambda g, s: PerturbedAttentionGuidance(
            g, s, perturbed_guidance_config=LayerSkipConfig([0], BLOCKS)
        ),
        lambda s, g: PAG(s, g, f"{BLOCKS}.0"),
    ),
    "SEG": (
        # By a slip of the guider's, a finite blur is the one that takes the mean.
        lambda g, s: SmoothedEnergyGuidance(
            g,
            s,
            seg_blur_sigma=2.0,
            seg_guidance_config=SmoothedEnergyGuidanceConfig([0], BLOCKS),
        ),
        lambda s, g: SEG(s, g, f"{BLOCKS}.0"),
    ),
    "SLG": (
        lambda g, s: SkipLayerGuidance(g, s, skip_layer_config=LayerSkipConfig([0], BLOCKS)),
        lambda s, g: SLG(s, f"{BLOCKS}.0", g),
    ),
}


@pytest.mark.parametrize("name", GUIDERS)
def test_it_is_diffusers_guider(tiny_latent, tmp_path, name):
    _, folder = tiny_latent("sd2")
    model = load(folder, tmp_path / "x.safetensors")
    x = torch.randn(1, *model.shape, generator=torch.Generator().manual_seed(0))
    guider, ours = GUIDERS[name][0](4.0, 2.8), GUIDERS[name][1]
    answers = []
    for number, prompt in enumerate(("a cat", UNCONDITIONAL, "a cat")):
        # The guider of SEG forgets to count.
        guider._count_prepared = number + isinstance(guider, SmoothedEnergyGuidance)
        guider.prepare_models(model.network)
        with torch.no_grad():
            request = Request(x, T, model.encode(prompt))
            answers.append(evaluated(model, [request])[0].prediction)
        guider.cleanup_models(model.network)
    made = Sampler(model, [ours(2.8, CFG(4.0))]).denoise(x, T, "a cat").prediction
    assert (answers[0] - answers[2]).abs().max() > 1e-3
    torch.testing.assert_close(made, guider.forward(*answers).pred, rtol=1e-5, atol=1e-5)


def test_a_run_with_skipped_layers_is_the_pipeline_s(tiny_latent, tmp_path):
    pipeline, folder = tiny_latent("sd3")
    model = load(folder, tmp_path / "x.safetensors")
    start = torch.randn(1, *model.shape, generator=torch.Generator().manual_seed(5))
    image = pipeline(
        "a cat",
        height=16,
        width=16,
        num_inference_steps=3,
        guidance_scale=4.0,
        latents=start,
        output_type="pt",
        skip_guidance_layers=[0],
        skip_layer_guidance_scale=2.8,
        skip_layer_guidance_start=-1,
        skip_layer_guidance_stop=2,
    ).images
    stack = [SLG(2.8, "transformer_blocks.0", CFG(4.0))]
    made = Sampler(model, stack, num_inference_steps=3).sample("a cat", x=start)
    torch.testing.assert_close(made.x.clamp(-1, 1), image * 2 - 1, rtol=0, atol=1e-5)
    assert (made.stats.evaluated, made.stats.calls) == (3 * 3, 3 * 2)


def test_a_run_with_pag_is_the_pipeline_s(tiny_latent, tmp_path):
    pipeline, folder = tiny_latent("sd2")
    scheduler = DDIMScheduler.from_config(pipeline.scheduler.config)
    parts = {**pipeline.components, "scheduler": scheduler}
    theirs = StableDiffusionPAGPipeline(
        **parts, requires_safety_checker=False, pag_applied_layers="mid"
    )
    theirs.set_progress_bar_config(disable=True)
    model = load(folder, tmp_path / "x.safetensors")
    start = torch.randn(1, *model.shape, generator=torch.Generator().manual_seed(5))
    options = {"height": 16, "width": 16, "num_inference_steps": 3, "latents": start}
    image = theirs("a cat", guidance_scale=4.0, pag_scale=3.0, output_type="pt", **options).images
    sampler = Sampler(model, [PAG(3.0, CFG(4.0))], num_inference_steps=3)
    made = sampler.sample("a cat", x=start)
    torch.testing.assert_close(made.x.clamp(-1, 1), image * 2 - 1, rtol=0, atol=1e-5)
    assert (made.stats.evaluated, made.stats.calls) == (3 * 3, 3 * 2)


@settings(max_examples=30)
@given(st.integers(2, 9), st.floats(0.2, 6), st.integers(0, 99))
def test_the_blur_is_diffusers_on_squares(side, sigma, seed):
    queries = torch.randn(2, side**2, 4, generator=torch.Generator().manual_seed(seed))
    size = math.ceil(6 * sigma) + 1 - math.ceil(6 * sigma) % 2
    expected = _gaussian_blur_2d(queries.clone(), size, sigma, -1.0)  # its branch that blurs
    torch.testing.assert_close(blurred(queries, (1, 1), sigma), expected, rtol=1e-5, atol=1e-5)


def test_the_blur_knows_the_image_s_proportions():
    queries = torch.arange(6.0)[None, :, None]  # 2 rows of 3
    rows = blurred(queries.expand(1, 6, 2), (20, 30), math.inf)
    torch.testing.assert_close(rows, torch.full((1, 6, 2), 2.5))
    tall = torch.tensor([[0.0, 0, 1, 1, 2, 2, 3, 3]])[..., None]  # 4 rows of 2, equal across
    made = blurred(tall, (8, 4), 0.5)[0, :, 0].view(4, 2)
    torch.testing.assert_close(made[:, 0], made[:, 1])
    assert made[0, 0] > 0
    with pytest.raises(ValueError, match="SEG: the tokens of a layer must be an image"):
        blurred(queries, (1, 1), 1.0)


def test_a_wide_blur_is_the_mean_and_a_narrow_one_nothing():
    queries = torch.randn(1, 16, 4, generator=torch.Generator().manual_seed(0))
    mean = queries.mean(1, keepdim=True).expand_as(queries)
    torch.testing.assert_close(blurred(queries, (1, 1), math.inf), mean)
    torch.testing.assert_close(blurred(queries, (1, 1), 0.05), queries)


@pytest.mark.parametrize("plugin", EVERY)
def test_the_law_holds_and_anagrams_commute(backend, plugin):
    views = Anagram({"identity": 0, "rotate_180": 1})
    inside, around = (
        Sampler(backend, stack).denoise(X, T).prediction
        for stack in ([views, plugin(2.0)], [plugin(2.0), views])
    )
    torch.testing.assert_close(inside, around, rtol=1e-4, atol=1e-5)
    plain, one, two = (
        Sampler(backend, stack).denoise(X, T, 1).prediction
        for stack in ([], [plugin(1.0)], [plugin(2.0)])
    )
    torch.testing.assert_close(two - one, one - plain, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("plugin", EVERY)
def test_rows_and_calls(backend, plugin):
    for stack, rows, calls in (
        ([plugin(2.0)], 2, 2),
        ([plugin(0.0)], 1, 1),
        ([plugin(0.0, CFG(3.0))], 2, 1),
        ([plugin(2.0, CFG(3.0))], 3, 2),
        ([CFG(3.0), plugin(2.0)], 4, 2),
        ([Rescale(plugin(2.0, CFG(3.0)))], 3, 2),
        ([APG(plugin(2.0))], 2, 2),
    ):
        stats = Sampler(backend, stack, num_inference_steps=2).sample(1, seeds=[0, 1]).stats
        assert (stats.evaluated, stats.rows, stats.calls) == (2 * rows, 4 * rows, 2 * calls)


def test_memory_bounds_hold(backend):
    """From half way, because at pure noise x_0 = (x - sigma noise) / alpha magnifies rounding."""
    x = torch.randn(3, *backend.shape, generator=torch.Generator().manual_seed(0))
    whole, cut = (
        sampler.sample(1, range(3), x=x, t=sampler.times[1])
        for sampler in (
            Sampler(backend, [PAG(2.0, CFG(3.0))], num_inference_steps=2, max_rows=rows)
            for rows in (None, 2)
        )
    )
    # One step from noise divides by alpha, .006, and so enlarges rounding.
    largest = whole.x.abs().max().item()
    torch.testing.assert_close(cut.x, whole.x, rtol=0, atol=1e-3 * largest)
    assert (whole.stats.calls, cut.stats.calls) == (2, 3 + 2)


@pytest.mark.parametrize("plugin", EVERY)
def test_the_network_is_as_before(backend, plugin):
    before = Sampler(backend).denoise(X, T, 1).prediction
    Sampler(backend, [plugin(2.0)]).denoise(X, T, 1)
    assert torch.equal(Sampler(backend).denoise(X, T, 1).prediction, before)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in backend.unet.modules())


def test_the_network_is_as_before_after_an_error(backend, monkeypatch):
    def fail(*_):
        raise RuntimeError("no memory")

    monkeypatch.setattr(backend.unet.mid_block.attentions[0].to_v, "forward", fail)
    with pytest.raises(RuntimeError, match="no memory"):
        perturbed_call(backend, PAG(2.0))
    monkeypatch.undo()
    query = torch.randn(1, 1, 4, 2)
    assert not torch.equal(F.scaled_dot_product_attention(query, query, 2 * query), 2 * query)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in backend.unet.modules())


def perturbed_call(backend, plugin):
    request = Request(X, T, 1, schedule=backend.schedule, model=plugin.perturbation)
    with torch.no_grad():
        return Model(backend, None, Stats())([request])[0].prediction


@pytest.mark.parametrize("plugin", EVERY)
def test_another_thread_is_not_perturbed(backend, plugin):
    plain, seen = Sampler(backend).denoise(X, T, 1).prediction, []

    def other():
        with torch.no_grad():
            seen.append(evaluated(backend, [Request(X, T, 1)])[0].prediction)

    with plugin(2.0).perturbation.applied(backend.networks):
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
        with torch.no_grad():
            mine = evaluated(backend, [Request(X, T, 1)])[0].prediction
    assert torch.equal(seen[0], plain)
    assert (mine - plain).abs().max() > 1e-4


class Attention(nn.Module):
    """Attention that diffusers knows nothing of."""

    def forward(self, x):
        tokens = x.flatten(2).mT[:, None]
        return F.scaled_dot_product_attention(tokens, tokens, tokens)[:, 0].mT.view_as(x)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.attention, self.out = Attention(), nn.Conv2d(1, 1, 3, padding=1)

    def forward(self, x, t):
        return self.out(self.attention(x))


def test_a_network_of_one_s_own():
    torch.manual_seed(0)
    net = Net().eval()
    model = composer.wrap(net, shape=(1, 8, 8), schedule=FlowSchedule(), prediction="flow")
    x = X[:, :1]
    for plugin in (PAG(1.0, layers="attention"), SLG(1.0, "attention")):
        made = Sampler(model, [plugin]).denoise(x, 0.5).prediction
        with torch.no_grad():  # a token that sees itself alone keeps its value
            torch.testing.assert_close(made, 2 * net(x, None) - net.out(x))
    with pytest.raises(ValueError, match="SEG: the layers attention must have self-attention"):
        Sampler(model, [SEG(1.0, layers="attention")])
    with pytest.raises(ValueError, match="PAG: layers must have self-attention.*none in out"):
        Sampler(model, [PAG(1.0, layers="out")])


class Own(nn.Conv2d):
    """A layer that only its own code knows: it may attend, and does not."""


def test_only_a_forward_pass_tells_of_one_s_own_layers():
    net = Net().eval()
    net.attention, net.attends = Own(1, 1, 1), nn.MultiheadAttention(2, 1).eval()
    model = composer.wrap(net, shape=(1, 8, 8), schedule=FlowSchedule(), prediction="flow")
    sampler = Sampler(model, [PAG(1.0, layers="attention")])
    with pytest.raises(ValueError, match="PAG: layers must have self-attention.*none in attention"):
        sampler.denoise(X[:, :1], 0.5)
    Sampler(model, [PAG(1.0, layers="attends")])


def test_a_shipped_network_without_attention_raises_when_built():
    networks = composer.load_backend("mnist").networks
    layers = [name for network in networks.values() for name, _ in network.named_children()]
    with pytest.raises(ValueError, match="PAG: layers must have self-attention"):
        Sampler(composer.load_backend("mnist"), [PAG(2.0, layers=layers)])


def test_it_works_over_other_backends(backend):
    canvas = Canvas(backend, (8, 12))
    stats = Sampler(canvas, [PAG(2.0, CFG(3.0))], num_inference_steps=1).sample(1).stats
    assert (stats.rows, stats.calls) == (2 * 3, 2)


def test_it_perturbs_what_guidance_of_x0_makes(backend):
    made, zero = (
        Sampler(backend, [plugin]).denoise(X, T, 1)
        for plugin in (PAG(2.0, CFGZeroStar(3.0, 0)), CFGZeroStar(3.0, 0))
    )
    plain, worse = (Sampler(backend, s).denoise(X, T, 1) for s in ([], [PAG(-1.0)]))
    torch.testing.assert_close(made.x0, zero.x0 + 2 * (plain.x0 - worse.x0), rtol=1e-3, atol=1e-2)


def test_names_and_perturbations_are_told_apart(backend):
    both = WithWeak(mixture(), mixture())
    with pytest.raises(ValueError, match="Request: model must be one of WithWeak's"):
        Model(both, None, Stats())([Request(X, 0.5, 1, model="strong")])


@pytest.mark.parametrize("plugin", EVERY)
def test_a_backend_without_networks_raises_when_built(plugin):
    with pytest.raises(ValueError, match="GaussianMixtureBackend declares no networks"):
        Sampler(mixture(), [plugin(2.0)])


def test_unknown_layers_raise_when_built(backend):
    with pytest.raises(ValueError, match=r"got 'middle'. With self-attention: .*mid_block"):
        Sampler(backend, [PAG(2.0, layers="middle")])
    with pytest.raises(ValueError, match=r"got 'mid_block'. It has no self-attention"):
        Sampler(composer.load_backend("mnist"), [PAG(2.0)])


def test_a_layer_that_returns_another_shape_cannot_be_skipped(backend):
    with pytest.raises(ValueError, match="SLG: a layer that is skipped must be given one tensor"):
        Sampler(backend, [SLG(2.0, "down_blocks.0")]).denoise(X, T, 1)


@pytest.mark.parametrize(
    "plugin",
    [
        PAG(2.0, CFG(3.0), ("a", "b"), (0.1, 0.9)),
        SEG(2.0, CFG(3.0), "a", 1.5, (0.1, 0.9)),
        SLG(2.0, ("a",), CFG(3.0), (0.1, 0.9)),
    ],
)
def test_they_are_in_the_recipe(plugin):
    again = decode(json.loads(json.dumps(encode(plugin, installed()))), installed())
    assert again.perturbation == plugin.perturbation
    assert (again.scale, again.guidance.scale, again.interval) == (2.0, 3.0, (0.1, 0.9))


@pytest.mark.parametrize(
    ("make", "error"),
    [
        (lambda: PAG("a"), TypeError),
        (lambda: PAG(2.0, 3.0), TypeError),
        (lambda: PAG(2.0, layers=()), ValueError),
        (lambda: PAG(2.0, layers=5), TypeError),
        (lambda: SEG(2.0, sigma=0.0), ValueError),
        (lambda: SEG(2.0, interval=(0.5, 0.2)), ValueError),
        (lambda: SLG(2.0, [""]), ValueError),
    ],
)
def test_bad_arguments_raise(make, error):
    with pytest.raises(error, match=r"(PAG|SEG|SLG): "):
        make()
