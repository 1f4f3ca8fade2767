"""Checks of a view's mathematics: a linear, orthogonal map, its inverse, variances and noise.

They compute in float64, where one misplaced pixel of a 256x256 image is a million times larger than
rounding. Unless stated otherwise, images are N(0, 1) and errors at most 1e-8.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from composer.testing.checks import TOLERANCE, Contract, first, off, rounding
from composer.testing.probe import DTYPES, Map, Probe, Shape, at, maps, noise

MOST_COLUMNS = 1024
FEW_COLUMNS = 4
SIGMAS = 5.0


def shape(probe: Probe) -> str:
    """Both maps keep (B, C, H, W), and stay finite."""

    def troubles() -> Iterator[str]:
        for size in (*probe.small, *probe.shapes):
            for what, view in maps(probe.transform):
                x = noise(size, 2)
                seen = view(x)
                if not isinstance(seen, Tensor):
                    yield f"{what}{at(size)} is a {type(seen).__name__}"
                elif seen.shape != x.shape:
                    yield f"{what}{at(size)} has the shape {tuple(seen.shape)}"
                elif not bool(seen.isfinite().all()):
                    yield f"{what}{at(size)} is not finite"

    return first(troubles())


def every_size(probe: Probe) -> str:
    """inverse(f(x)) = x and |f(x)| = |x| from 1x1 to 1024x1024 pixels, in the dtypes of models."""

    def troubles() -> Iterator[str]:
        view = probe.transform
        for size in probe.extreme:
            exact = noise(size, 1)
            for dtype in DTYPES[:-1]:
                x = exact.to(dtype)
                seen = view(x.clone())
                what, within = f"{at(size)} in {dtype}", rounding(x)
                yield off(view.inverse(seen), x, within, "inverse(f(x))" + what)
                length = seen.double().norm() / x.double().norm()
                yield off(length, torch.ones(()), within, "|f(x)| / |x|" + what)

    return first(troubles())


def linear(probe: Probe) -> str:
    """f(2x - 3y) = 2 f(x) - 3 f(y), for all maps."""

    def trouble(size: Shape, what: str, view: Map) -> str:
        x, y = noise(size, 2), noise(size, 2, seed=1)
        combined = 2 * view(x.clone()) - 3 * view(y.clone())
        return off(view(2 * x - 3 * y), combined, TOLERANCE, what + at(size))

    return first(trouble(s, *pair) for s in probe.shapes for pair in maps(probe.transform))


def orthogonal_matrix(probe: Probe) -> str:
    """Q^T Q = I, entry by entry, with Q built from basis images at a small size.

    For images of more than 1024 numbers, it checks 1024 columns of Q, drawn with a fixed seed.
    """

    def trouble(size: Shape) -> str:
        rows = probe.transform(basis(size, MOST_COLUMNS)).flatten(1)
        identity = torch.eye(len(rows), dtype=torch.float64)
        return off(rows @ rows.T, identity, TOLERANCE, "Q^T Q" + at(size))

    return first(map(trouble, probe.small))


def norm(probe: Probe) -> str:
    """|Qx| = |x|, to a relative 1e-10."""

    def trouble(size: Shape) -> str:
        x = noise(size, 2)
        stretch = (probe.transform(x.clone()).norm() / x.norm() - 1).abs().item()
        return "" if stretch < 1e-10 else f"|f(x)|{at(size)} is off by the factor {stretch:.2g}"

    return first(map(trouble, probe.shapes))


def inner_product(probe: Probe) -> str:
    """<Qx, Qy> = <x, y>, relative to |x| |y| to 1e-10."""

    def trouble(size: Shape) -> str:
        x, y = noise(size), noise(size, seed=1)
        seen = (probe.transform(x.clone()) * probe.transform(y.clone())).sum()
        return _relative(seen, (x * y).sum(), x, y, "<f(x), f(y)>" + at(size))

    return first(map(trouble, probe.shapes))


def inverse_is_adjoint(probe: Probe) -> str:
    """<Qx, y> = <x, Q^-1 y>, relative to |x| |y| to 1e-10."""

    def trouble(size: Shape) -> str:
        x, y = noise(size), noise(size, seed=1)
        seen = (probe.transform(x.clone()) * y).sum()
        back = (x * probe.transform.inverse(y.clone())).sum()
        return _relative(seen, back, x, y, "<f(x), y> - <x, inverse(y)>" + at(size))

    return first(map(trouble, probe.shapes))


def inverse_on_both_sides(probe: Probe) -> str:
    """Q^-1 Q x = x = Q Q^-1 x."""

    def troubles() -> Iterator[str]:
        view = probe.transform
        for size in probe.shapes:
            x = noise(size, 2)
            yield off(view.inverse(view(x.clone())), x, TOLERANCE, "inverse(f(x))" + at(size))
            yield off(view(view.inverse(x.clone())), x, TOLERANCE, "f(inverse(x))" + at(size))

    return first(troubles())


def by_image(probe: Probe) -> str:
    """An image has the same view in a batch as alone."""

    def trouble(size: Shape, what: str, view: Map) -> str:
        x = noise(size, 3)
        alone = torch.cat([view(image[None].clone()) for image in x])
        return off(view(x.clone()), alone, TOLERANCE, f"{what} in a batch{at(size)}")

    return first(trouble(s, *pair) for s in probe.shapes for pair in maps(probe.transform))


def leading_dimensions(probe: Probe) -> str:
    """(C, H, W), (1, C, H, W), (B, C, H, W) and (A, B, C, H, W) have the same views."""

    def trouble(size: Shape, what: str, view: Map) -> str:
        x = noise(size, 2, 3)
        expected = view(x.flatten(0, 1))
        folded = view(x.clone())
        if folded.shape != x.shape:
            return f"{what} of shape {tuple(x.shape)} has the shape {tuple(folded.shape)}"
        return first(
            [
                off(folded.flatten(0, 1), expected, TOLERANCE, f"{what} of (A, B, C, H, W)"),
                off(view(x[0, 0].clone()), expected[0], TOLERANCE, f"{what} of (C, H, W)"),
                off(view(x[0, :1].clone())[0], expected[0], TOLERANCE, f"{what} of (1, C, H, W)"),
            ]
        )

    return first(trouble(s, *pair) for s in probe.middling for pair in maps(probe.transform))


def variance(probe: Probe) -> str:
    """Variances map by the squared entries: v -> (Q o Q) v to the view, (Q o Q)^T v back.

    These are the variances of Q e for independent noise e of variances v: (Q e_i)^2 for the image
    e_i of one pixel. Rows and columns of Q o Q sum to one, so ones stay ones.
    """

    def troubles() -> Iterator[str]:
        view = probe.transform
        pairs: dict[str, tuple[Map, Map]] = {
            "view_variance": (view.view_variance, view),
            "inverse_variance": (view.inverse_variance, view.inverse),
        }
        cases = [(s, MOST_COLUMNS) for s in probe.small] + [(s, FEW_COLUMNS) for s in probe.shapes]
        for size, most in cases:
            pixels, ones = basis(size, most), torch.ones(2, *size, dtype=torch.float64)
            for what, (carried, seen) in pairs.items():
                expected = seen(pixels.clone()).square()
                yield off(carried(pixels.clone()), expected, TOLERANCE, what + at(size))
                yield off(carried(ones.clone()), ones, TOLERANCE, f"{what} of ones{at(size)}")

    return first(troubles())


def gradient(probe: Probe) -> str:
    """The gradient of <f(x), y> in x is inverse(y), also after a call in inference mode."""
    view = probe.transform
    size = (probe.fresh[2:] or probe.shapes)[0]
    x, y = noise(size), noise(size, seed=1)
    with torch.inference_mode():
        view.inverse(view(x.clone()))

    def trouble(what: str, seen: Map, back: Map) -> str:
        given = x.clone().requires_grad_()
        with torch.enable_grad():
            (found,) = torch.autograd.grad((seen(given) * y).sum(), given)
        return off(found, back(y.clone()), TOLERANCE, f"the gradient of {what}{at(size)}")

    return trouble("f(x)", view, view.inverse) or trouble("inverse(x)", view.inverse, view)


def gaussian_noise(probe: Probe) -> str:
    """N(0, I) stays N(0, I): mean, variance, kurtosis and correlations of neighbours.

    Each statistic of n = 2 C H W numbers, scaled to unit variance, must lie within 5. For a correct
    view, 6 statistics at each of 10 sizes fail with a chance below 1e-4, and the seed is fixed.
    """

    def trouble(size: Shape) -> str:
        seen = probe.transform(noise(size, 2, seed=2))
        deviations = {
            "mean": seen.mean() * math.sqrt(seen.numel()),
            "variance": (seen.square().mean() - 1) * math.sqrt(seen.numel() / 2),
            "kurtosis": (seen.pow(4).mean() - 3) * math.sqrt(seen.numel() / 96),
            "correlation of rows": _correlation(seen, -2),
            "correlation of columns": _correlation(seen, -1),
            "correlation of channels": _correlation(seen, -3),
        }
        wrong = {name: float(z) for name, z in deviations.items() if not abs(z) < SIGMAS}
        return first(
            f"{name} is {z:.3g} standard errors off{at(size)}" for name, z in wrong.items()
        )

    return first(map(trouble, probe.shapes))


MATHS: Contract[Probe] = {
    shape: "return a tensor of the argument's shape; otherwise return False from accepts() for a "
    "size, and raise a ValueError for a number of channels",
    every_size: "let the maps work from one pixel to a million and in every dtype, with integer "
    "indices, or return False from accepts()",
    linear: "move, mix or change the sign of pixels by amounts that do not depend on the image",
    orthogonal_matrix: "send every pixel to one place of its own, or mix pixels by an orthogonal "
    "matrix",
    norm: "move, rotate or change the sign of pixels; do not scale, copy, drop or blend them",
    inner_product: "keep angles, as a permutation, a rotation or a change of signs does",
    inverse_on_both_sides: "let inverse() undo __call__ at every size",
    inverse_is_adjoint: "let inverse() be the transpose of an orthogonal map",
    by_image: "act on the last three dimensions alone, each image by itself",
    leading_dimensions: "index dimensions from the end (-3, -2, -1), so that any may lead",
    variance: "override inverse_variance and view_variance with the squares of the matrix's "
    "entries: a sign does not flip a variance",
    gradient: "compute with torch alone, without detach, and keep no tensors of inference mode",
    gaussian_noise: "make the view orthogonal, so that the model sees its training noise",
}
"""The laws of a view, and what to do where one is broken."""


def basis(size: Shape, most: int) -> Tensor:
    """Images (k, C, H, W) of one pixel each: all of them, or ``most`` drawn with a fixed seed."""
    n = math.prod(size)
    chosen = torch.randperm(n, generator=torch.Generator().manual_seed(0))[:most]
    images = torch.zeros(len(chosen), n, dtype=torch.float64)
    images[torch.arange(len(chosen)), chosen] = 1
    return images.reshape(-1, *size)


def _relative(measured: Tensor, expected: Tensor, x: Tensor, y: Tensor, what: str) -> str:
    gap = ((measured - expected) / (x.norm() * y.norm())).abs().item()
    return "" if gap < 1e-10 else f"{what} is off by {gap:.2g} of |x| |y|"


def _correlation(x: Tensor, dim: int) -> Tensor:
    """The correlation of neighbours along a dimension, in standard errors; 0 if there are none."""
    length = x.shape[dim]
    if length < 2:
        return torch.zeros(())
    products = x.narrow(dim, 0, length - 1) * x.narrow(dim, 1, length - 1)
    return products.mean() * math.sqrt(products.numel())
