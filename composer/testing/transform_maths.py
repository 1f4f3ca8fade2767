"""What a view is: a linear, orthogonal map, its inverse, and what follows for variances and noise.

All in float64, where a single misplaced pixel of a 256x256 image stands a million times above
rounding. Unless said otherwise, gaps are those of N(0, 1) images and at most 1e-8.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from composer.testing.checks import Contract, first, off
from composer.testing.probe import Map, Probe, Shape, at, both, noise
from composer.transforms import TOLERANCE

MOST_COLUMNS = 1024
SIGMAS = 5.0


def shape(probe: Probe) -> str:
    """Both maps keep (B, C, H, W) at every accepted size, and stay finite."""

    def troubles() -> Iterator[str]:
        for size in (*probe.small, *probe.fresh):
            for what, view in both(probe.transform):
                x = noise(size, 2)
                seen = view(x)
                if not isinstance(seen, Tensor):
                    yield f"{what}{at(size)} is a {type(seen).__name__}"
                elif seen.shape != x.shape:
                    yield f"{what}{at(size)} has the shape {tuple(seen.shape)}"
                elif not bool(seen.isfinite().all()):
                    yield f"{what}{at(size)} is not finite"

    return first(troubles())


def linear(probe: Probe) -> str:
    """f(2x - 3y) = 2 f(x) - 3 f(y), for both maps."""

    def trouble(size: Shape, what: str, view: Map) -> str:
        x, y = noise(size, 2), noise(size, 2, seed=1)
        combined = 2 * view(x.clone()) - 3 * view(y.clone())
        return off(view(2 * x - 3 * y), combined, TOLERANCE, what + at(size))

    return first(trouble(s, *pair) for s in probe.shapes for pair in both(probe.transform))


def orthogonal_matrix(probe: Probe) -> str:
    """Q^T Q = I, entry by entry, Q being built from basis images at a small size.

    Of images of more than 1024 numbers, 1024 columns of Q drawn by a fixed seed.
    """

    def trouble(size: Shape) -> str:
        rows, _ = columns(probe.transform, size)
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
    """An image of a batch is seen as it is alone."""

    def trouble(size: Shape, what: str, view: Map) -> str:
        x = noise(size, 3)
        alone = torch.cat([view(image[None].clone()) for image in x])
        return off(view(x.clone()), alone, TOLERANCE, f"{what} in a batch{at(size)}")

    return first(trouble(s, *pair) for s in probe.shapes for pair in both(probe.transform))


def leading_dimensions(probe: Probe) -> str:
    """(C, H, W), (1, C, H, W), (B, C, H, W) and (A, B, C, H, W) are seen alike."""

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

    return first(trouble(s, *pair) for s in probe.middling for pair in both(probe.transform))


def variance(probe: Probe) -> str:
    """Variances go through the squared entries: v -> (Q o Q) v to the view, (Q o Q)^T v back.

    They are the variances of Q e where e is independent noise of variances v.
    """

    def troubles() -> Iterator[str]:
        size = probe.small[0]
        rows, chosen = columns(probe.transform, size)
        given = noise(size).abs()
        before = given.clone()
        back = probe.transform.inverse_variance(given[None])[0]
        if back.shape != given.shape:
            yield f"inverse_variance has the shape {tuple(back.shape)}, not {tuple(given.shape)}"
        expected = rows.square() @ given.flatten()
        yield off(back.flatten()[chosen], expected, TOLERANCE, "inverse_variance")
        sparse = torch.zeros_like(given).flatten()
        sparse[chosen] = given.flatten()[chosen]
        seen = probe.transform.view_variance(sparse.reshape(1, *size))
        expected = sparse[chosen] @ rows.square()
        yield off(seen.flatten(), expected, TOLERANCE, "view_variance")
        yield "" if torch.equal(given, before) else "inverse_variance writes into its argument"

    return first(troubles())


def gaussian_noise(probe: Probe) -> str:
    """N(0, I) stays N(0, I): mean, variance, kurtosis and correlations of neighbours.

    Each statistic of n = 2 C H W numbers, scaled to unit variance, must be within 5; for a right
    view, 6 statistics a size at 6 sizes leave less than 1e-4 to chance, and the seed is fixed.
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
    shape: "return a tensor of the argument's shape, or refuse the size in accepts()",
    linear: "move, mix or change the sign of pixels by amounts that the image does not decide",
    orthogonal_matrix: "send every pixel to one place of its own, or mix pixels by an orthogonal "
    "matrix",
    norm: "move, rotate or change the sign of pixels; neither scale, copy, drop nor blend them",
    inner_product: "keep angles: a permutation, a rotation or a change of signs does",
    inverse_on_both_sides: "let inverse() undo __call__ at every size",
    inverse_is_adjoint: "let inverse() be the transpose of an orthogonal map",
    by_image: "act on the last three dimensions alone, each image by itself",
    leading_dimensions: "index dimensions from the end (-3, -2, -1), so that any may lead",
    variance: "override inverse_variance and view_variance by the squares of the matrix's entries: "
    "a sign does not flip a variance",
    gaussian_noise: "make the view orthogonal; the model would see noise it was not trained on",
}
"""The laws of a view, and what to do where one is broken."""


def columns(view: Map, size: Shape) -> tuple[Tensor, Tensor]:
    """Columns of Q as rows (k, C*H*W), and which basis images (k,) they are the views of."""
    n = math.prod(size)
    chosen = torch.arange(n)
    if n > MOST_COLUMNS:
        chosen = torch.randperm(n, generator=torch.Generator().manual_seed(0))[:MOST_COLUMNS]
    basis = torch.zeros(len(chosen), n, dtype=torch.float64)
    basis[torch.arange(len(chosen)), chosen] = 1
    return view(basis.reshape(-1, *size)).flatten(1), chosen


def _relative(measured: Tensor, expected: Tensor, x: Tensor, y: Tensor, what: str) -> str:
    gap = ((measured - expected) / (x.norm() * y.norm())).abs().item()
    return "" if gap < 1e-10 else f"{what} is off by {gap:.2g} of |x| |y|"


def _correlation(x: Tensor, dim: int) -> Tensor:
    """Of neighbours along a dimension, in standard errors; 0 where there are none."""
    length = x.shape[dim]
    if length < 2:
        return torch.zeros(())
    products = x.narrow(dim, 0, length - 1) * x.narrow(dim, 1, length - 1)
    return products.mean() * math.sqrt(products.numel())
