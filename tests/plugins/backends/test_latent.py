"""Latent models: equal to the pipelines of diffusers, of each family, for each task."""

import copy
import dataclasses
import pickle

import pytest
import torch
from diffusers import DDIMScheduler
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
from tiny_latent import PIPELINES, SIZE, load, run

from composer import UNCONDITIONAL, Plugin, Request, Sampler, hookimpl
from composer.model import evaluated
from composer.solvers import DDIM, DiffusersSolver, DPMSolverPP, Heun
from composer.testing.gradient import bent
from composer_plugins import (
    CFG,
    DPS,
    Anagram,
    Components,
    DynamicThreshold,
    GrayColour,
    Hybrid,
    Inpaint,
    LanPaint,
    SDEdit,
)

PROMPT, OTHER = "a photo of a Cat", "an oil painting of a snowman"  # T5 and Qwen see the capital
SEEDS = (3, 11)
TOLERANCE = {"rtol": 0, "atol": 1e-5}
IMAGE = torch.rand(2, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(9)) * 2 - 1
MASK = torch.zeros(SIZE, SIZE)
MASK[3:12, 6:] = 1  # not all on the grid of latents
RUNS = [(3, 1.0), (3, 4.0), (6, 1.0), (6, 4.0)]


@pytest.fixture(scope="module", params=PIPELINES)
def family(request):
    return request.param


@pytest.fixture(scope="module")
def models(family, tiny_latent, tmp_path_factory):
    """The pipeline, and the backend that its folder becomes."""
    pipeline, folder = tiny_latent(family)
    return pipeline, load(folder, tmp_path_factory.mktemp("embeddings") / "x.safetensors")


@pytest.fixture(scope="module")
def backend(models):
    return models[1]


@pytest.fixture
def modes(monkeypatch):
    """The pipelines encode images by the mode of the posterior, and draw nothing for it."""
    monkeypatch.setattr(
        DiagonalGaussianDistribution, "sample", lambda self, generator=None: self.mode()
    )


def answer(backend, prompt=PROMPT, level=0.6, x=None, **beside):
    schedule = backend.schedule
    if x is None:
        x = torch.randn(1, *backend.shape, generator=torch.Generator().manual_seed(0))
    request = Request(x, schedule.time_at(level), backend.encode(prompt), beside=beside)
    with torch.no_grad():
        return evaluated(backend, [request])[0].prediction


def guidance(scale):
    return [CFG(scale)] if scale != 1 else []


def test_the_tiny_models_hear_prompts_and_times(backend):
    """Or equality below would prove little."""
    base = answer(backend)
    for other in (
        answer(backend, OTHER),
        answer(backend, UNCONDITIONAL),
        answer(backend, level=0.5),
        answer(backend, PROMPT.lower()) if backend.family.flow else answer(backend, OTHER),
    ):
        assert (base - other).abs().max() > 1e-4  # ten times the tolerance below


class Kept(Plugin):
    """The latents that a run ends with, before they are decoded."""

    @hookimpl(tryfirst=True)
    def finish(self, state):
        self.latents = state.x


@pytest.mark.parametrize(("steps", "scale"), RUNS)
def test_text_to_image_is_the_pipeline_s(models, steps, scale):
    pipeline, backend = models
    image, latents = run(pipeline, "", PROMPT, steps, scale, SEEDS)
    assert image.std() > 0.05
    kept = Kept()
    sampler = Sampler(backend, [kept, *guidance(scale)], num_inference_steps=steps)
    ours = sampler.sample(PROMPT, SEEDS)
    assert ours.x.shape == (2, *backend.image_shape)
    torch.testing.assert_close(ours.x.clamp(-1, 1), image, **TOLERANCE)
    torch.testing.assert_close(kept.latents, latents, rtol=1e-5, atol=1e-5)  # they have no range


@pytest.mark.parametrize(("steps", "scale"), [(4, 1.0), (6, 4.0)])
def test_image_to_image_is_the_pipeline_s(models, family, modes, steps, scale):
    pipeline, backend = models
    solver = backend.default_solver
    if family == "sd":  # PNDM evaluates twice a step and cannot begin inside its plan
        scheduler = DDIMScheduler.from_config(pipeline.scheduler.config, clip_sample=False)
        pipeline, solver = copy.copy(pipeline), DiffusersSolver(scheduler)
        pipeline.scheduler = scheduler
    given = {"image": IMAGE / 2 + 0.5, "strength": 0.5}
    image, _ = run(pipeline, "Img2Img", PROMPT, steps, scale, SEEDS, **given)
    stack = [SDEdit(IMAGE, strength=0.5), *guidance(scale)]
    ours = Sampler(backend, stack, solver, steps).sample(PROMPT, SEEDS)
    torch.testing.assert_close(ours.x.clamp(-1, 1), image, **TOLERANCE)
    assert ours.stats.calls == steps // 2


@pytest.mark.parametrize(("steps", "scale", "strength"), [(3, 1.0, 1.0), (6, 4.0, 0.5)])
def test_inpainting_is_the_pipeline_s(models, family, modes, steps, scale, strength):
    pipeline, backend = models
    if family == "sd" and strength < 1:
        pytest.skip("PNDM cannot begin inside its plan")
    # Of its latents: the pipeline of SD 3 decodes without the shift of its autoencoder.
    given = {"image": IMAGE / 2 + 0.5, "mask_image": MASK[None, None].expand(2, -1, -1, -1)}
    _, latents = run(pipeline, "Inpaint", PROMPT, steps, scale, SEEDS, strength=strength, **given)
    begun = [SDEdit(IMAGE, strength=strength)] if strength < 1 else []
    stack = [*begun, Inpaint(IMAGE, MASK, mode="fixed"), *guidance(scale)]
    ours = Sampler(backend, stack, num_inference_steps=steps).sample(PROMPT, SEEDS).x
    made = (MASK == 1).expand_as(ours)
    torch.testing.assert_close(ours[made], backend.decode(latents)[made], **TOLERANCE)
    assert torch.equal(ours[~made], IMAGE[~made])


@pytest.mark.parametrize(
    "plugin",
    [
        Inpaint(IMAGE[0], MASK),
        Inpaint(IMAGE[0], MASK, mode="clean"),
        LanPaint(IMAGE[0], MASK, steps=1),
    ],
    ids=lambda plugin: f"{type(plugin).__name__}-{getattr(plugin, 'mode', '')}",
)
def test_known_pixels_are_exact_and_the_others_new(backend, plugin):
    x = Sampler(backend, [plugin, CFG(3.0)], DPMSolverPP(), 3).sample(PROMPT, SEEDS).x
    known = (MASK == 0).expand_as(x)
    assert torch.equal(x[known], IMAGE[:1].expand_as(x)[known])
    assert (x - IMAGE[:1])[~known].abs().max() > 0.1


def test_encoding_undoes_the_scale_of_decoding(backend):
    """By the formula of the pipelines."""
    vae, x = backend.autoencoder.vae, IMAGE
    config = vae.config
    with torch.no_grad():
        mode = vae.encode(x).latent_dist.mode()
    expected = (mode - (config.shift_factor or 0)) * config.scaling_factor
    latents = backend.encode_image(x)
    torch.testing.assert_close(latents, expected, **TOLERANCE)
    assert latents.shape == (2, *backend.shape)
    with torch.no_grad():
        torch.testing.assert_close(backend.decode(latents), vae.decode(mode).sample, **TOLERANCE)


def test_one_call_a_step_whatever_is_asked_and_rows_as_alone(backend):
    """Prompts of several lengths, guidance and two images: bound by nothing, or by one row."""
    together = Sampler(backend, [CFG(3.0)], num_inference_steps=2)
    alone = together.replace(max_rows=1)
    results = [sampler.sample(PROMPT, SEEDS) for sampler in (together, alone)]
    evaluations = len(together.times) - 1
    assert results[0].stats.calls == evaluations
    assert results[1].stats.calls == 4 * evaluations
    torch.testing.assert_close(results[0].x, results[1].x, **TOLERANCE)


def test_what_it_gets_of_prompts_is_made_once_a_run(backend):
    made = []

    def counted(texts):
        made.append(len(texts.tokens))
        return backend.family.given(texts)

    family = dataclasses.replace(backend.family, given=counted)
    sampler = Sampler(dataclasses.replace(backend, family=family), [CFG(3.0)], None, 3)
    expected = sampler.replace(backend=backend)
    for prompt in (PROMPT, OTHER, PROMPT):
        x = sampler.sample(prompt).x
        assert torch.equal(x, expected.sample(prompt).x)
    assert made == [2] * 3


@pytest.mark.parametrize("solver", [Heun(), DPMSolverPP()], ids=repr)
def test_the_solvers_of_the_library_take_its_steps_too(backend, solver):
    """On the same times; nearer to each other with more steps."""

    def apart(steps):
        own, other = (
            Sampler(backend, [], chosen, steps).sample(PROMPT).x for chosen in (DDIM(), solver)
        )
        return (own - other).abs().mean()

    assert apart(32) < apart(4)


@pytest.mark.parametrize(
    ("plugin", "sentence"),
    [
        (Anagram({"identity": PROMPT, "flip": OTHER}), "Use LatentAnagram in its place"),
        (DynamicThreshold(), "DynamicThreshold works on pixels .* Remove it"),
    ],
)
def test_plugins_of_pixels_raise_an_error_that_says_what_to_use(backend, plugin, sentence):
    with pytest.raises(ValueError, match=sentence):
        Sampler(backend, [plugin])


def test_parts_of_one_prompt_in_pixels_are_the_model_alone(backend):
    """The decoder and the encoder lose much of it, which the residual gives back."""
    plain = Sampler(backend, [], None, 2).sample(PROMPT).x
    for plugin in (Hybrid(PROMPT, PROMPT), Components(GrayColour(), (PROMPT, PROMPT))):
        alone = Sampler(backend, [plugin], None, 2).sample().x
        torch.testing.assert_close(alone, plain, rtol=0, atol=1e-4)


def test_it_is_copied_and_pickled(backend):
    base, backend = answer(backend), dataclasses.replace(backend, default_solver=DDIM())
    for other in (copy.deepcopy(backend), pickle.loads(pickle.dumps(backend))):
        torch.testing.assert_close(answer(other), base, **TOLERANCE)
        assert other.family is backend.family


def test_previews_of_a_run_are_pictures(backend):
    for state in Sampler(backend, [], num_inference_steps=2).stream(PROMPT):
        assert state.images[0].size == (SIZE, SIZE)


def test_gradients_flow_through_network_and_decoder(backend):
    """As finite differences say, so that DPS can steer by a loss of the decoded image; also after
    a call without gradients, which runs in inference mode."""
    answer(backend)
    x = torch.randn(2, *backend.shape, generator=torch.Generator().manual_seed(5))
    time = backend.schedule.time_at(0.5)

    def prediction(x):
        return evaluated(backend, [Request(x, time, backend.encode(PROMPT))])[0].prediction

    assert bent(prediction, x) == ""
    assert bent(backend.decode, x) == ""
    dark = DPS(lambda x: (x + 1).square().sum((1, 2, 3)), 1e-3)
    steered, plain = (
        Sampler(backend, plugins).denoise(x, time, PROMPT).x0 for plugins in ([dark], [])
    )
    assert (dark.loss(backend.decode(steered)) < dark.loss(backend.decode(plain))).all()


def test_a_model_that_offloads_is_not_differentiable(backend, monkeypatch):
    steer = DPS(lambda x: x.square().sum((1, 2, 3)))
    Sampler(backend, [steer])
    monkeypatch.setattr(backend.network, "_diffusers_hook", object(), raising=False)
    with pytest.raises(ValueError, match="DPS: backend must be differentiable, got LatentBackend"):
        Sampler(backend, [steer])
