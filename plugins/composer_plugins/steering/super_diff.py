"""SuperDiff: AND and OR of conditions, by their densities along the way."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import torch
from torch import Tensor

from composer import Estimate, Request, Transform, hookimpl
from composer.arguments import choice, positive, sequence
from composer.authoring import combine, to_device
from composer.schedules import Schedule
from composer_plugins.steering.densities import (
    OverReadings,
    Readings,
    asked,
    parsed,
    reverse_of,
    squared,
)


@dataclass(frozen=True, eq=False)
class SuperDiff(OverReadings):
    """Combine conditions, or views with conditions, by how likely each holds the image to be.

    The estimate is sum_i k_i f_i(x) with k_i that sum to one, for each image by itself. With q_i
    the density of condition i at the noise level reached, along the image's own way,

    * "and": the k_i after which all q_i(x) p_i are equal, p_i the priors. They solve a linear
      system of the size of the number of readings, and may be negative. No reading dominates.
    * "or": k = softmax((log q_i(x) + log p_i) / temperature). At temperature 1 this is the score of
      the mixture sum_i p_i q_i.

    The log densities begin equal in pure noise. Each step adds log q_i(x_s | x_t) (see
    ``densities``), which costs no row; as steps get short, this is the paper's Ito density
    estimator. It is exact, whatever the steps, for conditions that are Gaussians of standard
    deviation ``data_std``. Where the paper's AND knows the noise of a step beforehand, here the
    weights of the next step make up for it.

    The estimator is one of the reverse SDE: the solver must be DDPM() or DDIM(eta=1). A
    deterministic one would need the divergence of each score, which is not computed. A walk or a
    jump back to noise would break the way and raises an error.

    The coefficients sum to one, so the law of composition holds. Guidance inside it (after it in
    the list) makes q_i the guided density; guidance around it guides the combined estimate. Where
    something outside decides the condition, as guidance does for its unconditional branch, the
    k_i are equal.

    Skreta et al. 2025, "The Superposition of Diffusion Models Using the Ito Density Estimator",
    arXiv 2412.17762, theorem 1 and algorithm 1; its T is 1 / temperature, its l the log priors.

    Args:
        readings: two or more conditions, or {view: condition} as for an Anagram. A condition may be
            a plugin.
        rule: "and" or "or".
        temperature: of "or", above 0.
        priors: p_i > 0, one per reading; None for equal.
        data_std: the standard deviation of a pixel of the images of one condition, above 0.
    """

    needs_ancestral = True

    readings: Readings
    rule: Literal["and", "or"] = "and"
    temperature: float = 1.0
    priors: Sequence[float] | None = None
    data_std: float = 0.5

    def __post_init__(self) -> None:
        count = len(parsed(self.readings, "SuperDiff"))
        if count < 2 or any(condition is None for condition in self.conditions):
            raise TypeError(
                "SuperDiff: readings must be two or more conditions, none of them None, got "
                f"{[*self.conditions]}. Name what to make."
            )
        choice(self.rule, "SuperDiff: rule", RULES)
        positive(self.temperature, "SuperDiff: temperature")
        positive(self.data_std, "SuperDiff: data_std")
        if self.priors is None:
            return
        for prior in sequence(self.priors, "SuperDiff: priors"):
            positive(prior, "SuperDiff: priors")
        if len(self.priors) != count:
            raise ValueError(
                f"SuperDiff: priors must be {count}, one per reading, got {len(self.priors)}."
            )

    @cached_property
    def pairs(self) -> tuple[tuple[Transform, Any], ...]:
        """(view, condition), views looked up."""
        return parsed(self.readings, "SuperDiff")

    @property
    def conditions(self) -> tuple[Any, ...]:
        return tuple(condition for _, condition in self.pairs)

    @hookimpl
    def noise_estimate(
        self, request: Request
    ) -> Generator[list[Request], list[Estimate], Estimate]:
        answers = yield [asked(request, view, condition) for view, condition in self.pairs]
        seen = [a.seen_back(view) for a, (view, _) in zip(answers, self.pairs, strict=True)]
        if request.condition is not None:
            return combine([1 / len(seen)] * len(seen), seen)
        x0 = torch.stack([estimate.x0 for estimate in seen], 1)
        density = self._log_densities(request, x0)
        here = Place(request.x, x0, density, request.t, seen[0].schedule)
        if request.t_next is not None:  # within a run
            request.carried[self._key(request)] = here.detached()
        weights = RULES[self.rule](self, here, request)
        return combine([w[:, None, None, None] for w in weights.unbind(1)], seen)

    def _key(self, request: Request) -> Any:
        return self if request.model is None else (self, request.model)

    def _log_densities(self, request: Request, x0: Tensor) -> Tensor:
        """log q_i(x) + log p_i (B, N), up to a number that all readings of an image share."""
        past: Place | None = request.carried.get(self._key(request))
        if past is None:
            priors = self.priors or [1.0] * len(self.pairs)
            logs = torch.tensor([math.log(p) for p in priors], dtype=x0.dtype)
            return to_device(logs, x0.device).expand(len(x0), -1)
        if not past.is_noisier(request):
            raise ValueError(
                f"SuperDiff: the noise must fall from one estimate to the next, got t = "
                f"{past.t:g} and then {request.t:g}. Use one SuperDiff object for each place in a "
                "stack, and no plugin that jumps back to noise."
            )
        reverse = reverse_of(past.schedule, past.t, request.t, self.data_std)
        mean = reverse.of_x0 * past.x0 + reverse.of_x * past.x[:, None]
        density = past.log_density - squared(request.x[:, None] - mean) / (2 * reverse.variance)
        return density - density.mean(1, keepdim=True)

    def _and(self, here: Place, request: Request) -> Tensor:
        """The weights (B, N) after whose step the log densities are expected to be equal.

        The step's mean is a sum_i k_i x0_i + b x_t, so with c = a^2 / variance log q_i grows by
        -c |sum_j k_j x0_j - x0_i|^2 / 2, up to shared terms. With G the products of the centred
        x0_i, equal log densities mean G k = diag(G) / 2 - log q / c + a shared number.
        """
        gain = 1.0
        if request.t_next is not None:
            step = reverse_of(here.schedule, request.t, request.t_next, self.data_std)
            gain = step.of_x0**2 / step.variance
        centred = (here.x0 - here.x0.mean(1, keepdim=True)).flatten(2)
        products = centred @ centred.mT
        count, eps = products.shape[1], torch.finfo(products.dtype).eps
        wanted = products.diagonal(dim1=1, dim2=2) / 2 - here.log_density / gain
        wanted = wanted - wanted.mean(1, keepdim=True)
        # Differences of the size of rounding say nothing: a ridge of that size ignores them.
        size = squared(here.x0).mean(1).clamp(min=eps)
        eye = torch.eye(count, dtype=products.dtype, device=products.device)
        ridge = eps * size[:, None, None] * eye
        # On the numbers that sum to zero, as a change of weights does, adding ones changes nothing.
        system = products + ridge + size[:, None, None]
        change, _ = torch.linalg.solve_ex(system, wanted[..., None])
        weights: Tensor = 1 / count + change[..., 0]
        return weights

    def _or(self, here: Place, request: Request) -> Tensor:
        """softmax of the log densities (B, N)."""
        return (here.log_density / self.temperature).softmax(1)


@dataclass(frozen=True, eq=False)
class Place:
    """Where the images are: x (B, C, H, W), x0 (B, N, C, H, W), log densities (B, N) and time."""

    x: Tensor
    x0: Tensor
    log_density: Tensor
    t: float
    schedule: Schedule

    def detached(self) -> Place:
        """Without a gradient: one that a plugin outside asks for is of this step alone."""
        x, x0, density = self.x.detach(), self.x0.detach(), self.log_density.detach()
        return Place(x, x0, density, self.t, self.schedule)

    def rows(self, rows: Tensor) -> Place:
        x, x0, density = self.x[rows], self.x0[rows], self.log_density[rows]
        return Place(x, x0, density, self.t, self.schedule)

    def is_noisier(self, request: Request) -> bool:
        """Whether a request is at a cleaner time."""
        return self.schedule.goes_back(request.t, self.t)


RULES: dict[str, Callable[[SuperDiff, Place, Request], Tensor]] = {
    "and": SuperDiff._and,
    "or": SuperDiff._or,
}
