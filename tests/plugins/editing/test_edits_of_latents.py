"""Edits over latents: where the coder is exact and orthogonal they are those over pixels."""

import torch
from conftest import mixture

from composer import Sampler
from composer.authoring import draw
from composer.solvers import Euler
from composer.testing import GaussianMixtureBackend, OrthogonalCodecBackend
from composer_plugins import (
    CFG,
    DAPS,
    BlockMean,
    DifferentialEdit,
    DiffPIR,
    FlowEdit,
    RFInversion,
    SDEdit,
    invert,
)

IMAGE = torch.linspace(-0.8, 0.4, 64, dtype=torch.float64).reshape(1, 8, 8)
SMALL = torch.full((1, 2, 2), 0.3, dtype=torch.float64)


def pair():
    inner = mixture()
    return inner, OrthogonalCodecBackend(inner, 2)


def both(plugins, **options):
    """The run over pixels and over latents, from the same noise."""
    inner, latent = pair()
    noise = draw([torch.Generator().manual_seed(5)], inner)
    pixels = Sampler(inner, plugins(), Euler(), 6).sample(1, x=noise, **options).x
    start = latent.encode_image(noise)
    return pixels, Sampler(latent, plugins(), Euler(), 6).sample(1, x=start, **options).x


def test_diffpir_and_the_pull_are_those_over_pixels():
    for plugins in (
        lambda: [DiffPIR(SMALL, BlockMean(4), 0.1, spread=0.5), CFG(2.0)],
        lambda: [RFInversion(IMAGE, 0.6, (0.3, 1.0)), CFG(2.0)],
    ):
        torch.testing.assert_close(*both(plugins))


def test_daps_explains_a_measurement_of_pixels():
    _, latent = pair()
    x = Sampler(latent, [DAPS(SMALL, BlockMean(4), 0.01)], num_inference_steps=8).sample(1).x
    assert (BlockMean(4).apply(x) - SMALL).abs().max() < 0.05


def test_the_inverse_is_the_coded_inverse_of_pixels():
    inner, latent = pair()
    one, other = (
        invert(Sampler(b, num_inference_steps=12), IMAGE, 1, 0.7, 3) for b in (inner, latent)
    )
    torch.testing.assert_close(other.x, latent.encode_image(one.x))
    assert one.t == other.t


def test_flow_edit_shifts_pixels_by_the_means():
    means = torch.tensor([-0.4, 0.5], dtype=torch.float64).reshape(2, 1, 1, 1).expand(2, 1, 8, 8)
    latent = OrthogonalCodecBackend(GaussianMixtureBackend(means.contiguous(), [0.3, 0.3]), 2)
    x = Sampler(latent, [FlowEdit(IMAGE, 0, 1.0)], num_inference_steps=3).sample(1).x
    torch.testing.assert_close(x, IMAGE[None] + 0.9)


def test_a_constant_map_is_sdedit_and_black_is_kept():
    _, latent = pair()
    x, y = (
        Sampler(latent, [plugin], num_inference_steps=8).sample(1, seeds=[3]).x
        for plugin in (DifferentialEdit(IMAGE, torch.full((8, 8), 0.5)), SDEdit(IMAGE, 0.5))
    )
    torch.testing.assert_close(x, y)
    strengths = torch.zeros(8, 8)
    strengths[:, 4:] = 1
    edit = DifferentialEdit(IMAGE, strengths)
    x = Sampler(latent, [edit], num_inference_steps=8).sample(1).x
    assert torch.equal(x[0, 0, :, :4], IMAGE[0, :, :4])
