"""SuperDiff: AND and OR of conditions, by their densities along the way."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal

import torch
from torch import Tensor

from composer import Estimate, Request, Stack, Transform, hookimpl
from composer.arguments import choice, integer, positive, sequence
from composer.authoring import Hutchinson, combine, declared, to_device
from composer_plugins.steering.densities import OverReadings, Readings, asked, parsed, squared
from composer_plugins.steering.estimators import ByDivergence, Estimator, Ito, Place


@dataclass(frozen=True, eq=False)
class SuperDiff(OverReadings):
    """Combine conditions, or views with conditions, by how likely each holds the image to be.

    The estimate is sum_i k_i f_i(x) with k_i that sum to one, for each image by itself. With q_i
    the density of condition i at the noise level reached, along the image's own way,

    * "and": the k_i after which all q_i(x) p_i are equal, p_i the priors. They solve a linear
      system of the size of the number of readings, and may be negative. No reading dominates.
    * "or": k = softmax((log q_i(x) + log p_i) / temperature). At temperature 1 this is the score of
      the mixture sum_i p_i q_i.

    The log densities begin equal in pure noise, and two estimators follow them. Both are exact,
    whatever the steps, for conditions that are Gaussians of standard deviation ``data_std``.

    * probes=0: each step adds log q_i(x_s | x_t) (see ``densities``), which costs no row; as steps
      get short, this is the paper's Ito density estimator. It is one of the reverse SDE: the solver
      must be DDPM() or DDIM(eta=1). A walk or a jump back to noise raises an error.
    * probes=P: each step adds the change that the divergence of each condition's flow implies (see
      ``estimators``), estimated along P random directions (Hutchinson). Any other solver will do
      that makes its estimates of all images at once, as all but Adaptive do. A reading costs
      1 + 2P rows in place of one, and no gradient of the network.

    Where the paper's AND knows the noise of a step beforehand, here the weights of the next step
    make up for it. They count on a step a x_0 + b x by the present estimate: a solver that also
    uses earlier ones, such as Adams', would overshoot, and raises an error with "and".

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
        probes: 0, or random directions of the divergence, at most 10,000; None for all pixels, the
            exact trace.
    """

    readings: Readings
    rule: Literal["and", "or"] = "and"
    temperature: float = 1.0
    priors: Sequence[float] | None = None
    data_std: float = 0.5
    probes: int | None = 0

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
        if self.probes is not None:
            integer(self.probes, "SuperDiff: probes", least=0, most=10_000)
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

    @property
    def needs_ancestral(self) -> bool:
        return self.probes == 0

    @property
    def estimator(self) -> Estimator:
        """What follows the log densities."""
        return Ito(self.data_std) if self.needs_ancestral else ByDivergence(self.data_std)

    @hookimpl
    def check(self, stack: Stack) -> None:
        super().check(stack)
        ancestral = declared(stack.solver, "ancestral")
        if ancestral and not self.needs_ancestral:
            raise ValueError(
                f"SuperDiff: probes must be 0 with {type(stack.solver).__name__}, got "
                f"{self.probes}. The noise of the reverse SDE gives the densities at no cost."
            )
        if self.needs_ancestral and not ancestral:
            raise ValueError(
                "SuperDiff: solver must draw the noise of the reverse SDE, got "
                f"{type(stack.solver).__name__}. Use solver=DDPM() or DDIM(eta=1), or probes=1, "
                "which follows the densities along any solver's way."
            )
        if self.rule == "and" and declared(stack.solver, "multistep"):
            raise ValueError(
                'SuperDiff: solver of the rule "and" must step by the present estimate alone, got '
                f"{type(stack.solver).__name__}. Use solver=Euler() or Heun()."
            )

    @hookimpl
    def noise_estimate(
        self, request: Request
    ) -> Generator[list[Request], list[Estimate], Estimate]:
        along = request.condition is None and request.t_next is not None  # within a run
        hutchinson = self._hutchinson(request) if along else None
        places = [request, *_beside(request, hutchinson)]
        answers = yield [asked(place, *pair) for place in places for pair in self.pairs]
        views = [view for view, _ in self.pairs] * len(places)
        every = [a.seen_back(view) for a, view in zip(answers, views, strict=True)]
        seen, near = every[: len(self.pairs)], every[len(self.pairs) :]
        if request.condition is not None:
            return combine([1 / len(seen)] * len(seen), seen)
        here = self._followed(request, seen, _divergences(hutchinson, near, len(seen)))
        weights = RULES[self.rule](self, here, request)
        if along:
            request.carried[self, request.place] = replace(here, weights=weights).detached()
        return combine([w[:, None, None, None] for w in weights.unbind(1)], seen)

    def _hutchinson(self, request: Request) -> Hutchinson | None:
        if self.probes is None:
            return Hutchinson.exact(request.x.detach())
        noise = [request.randn() for _ in range(self.probes)]
        return Hutchinson.random(noise) if noise else None

    def _followed(
        self, request: Request, seen: Sequence[Estimate], divergence: Tensor | None
    ) -> Place:
        """Where the images are, with log q_i(x) + log p_i up to what all readings share."""
        x0 = torch.stack([estimate.x0 for estimate in seen], 1)
        past: Place | None = request.carried.get((self, request.place))
        if past is None:
            if request.t_next is not None and request.step > 0 and not request.carried:
                raise ValueError(
                    f"SuperDiff: the densities of earlier steps must be carried to step "
                    f"{request.step}, got none. Use a solver that estimates all images together, "
                    "such as Euler(), and no plugin around it that estimates at other images."
                )
            priors = self.priors or [1.0] * len(self.pairs)
            logs = torch.tensor([math.log(p) for p in priors], dtype=x0.dtype)
            density = to_device(logs, x0.device).expand(len(x0), -1)
            equal = torch.full_like(density, 1 / len(seen))
            return Place(request.x, request.t, seen[0].schedule, x0, divergence, density, equal)
        here = replace(past, x=request.x, t=request.t, x0=x0, divergence=divergence)
        density = past.log_density + self.estimator.growth(past, here)
        return replace(here, log_density=density - density.mean(1, keepdim=True))

    def _and(self, here: Place, request: Request) -> Tensor:
        """The weights (B, N) after whose step the log densities are expected to be equal.

        The step's mean is a sum_i k_i x0_i + b x_t, where the growth of log q_i has the slope
        c x0_i, up to shared terms. With G the products of the centred x0_i and l_i the log
        densities expected after equal weights, equal log densities mean
        a c G (k - 1/N) = -l + a shared number.
        """
        if request.t_next == here.t:  # a solver's further estimate at the end of its step
            return here.weights
        centred = (here.x0 - here.x0.mean(1, keepdim=True)).flatten(2)
        products = centred @ centred.mT
        count, eps = products.shape[1], torch.finfo(products.dtype).eps
        if request.t_next is None:
            wanted = products.diagonal(dim1=1, dim2=2) / 2 - here.log_density
        else:
            step = self.estimator.step(here, request.t_next)
            mean = step.of_x0 * here.x0.mean(1) + step.of_x * here.x
            expected = here.log_density + self.estimator.ahead(here, mean, request.t_next)
            wanted = -expected / (step.of_x0 * step.slope)
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


def _beside(request: Request, hutchinson: Hutchinson | None) -> list[Request]:
    """The requests near by from which the divergence is computed; without a gradient."""
    if hutchinson is None:
        return []
    width = sum(request.schedule.at(request.t))  # type: ignore[union-attr]  # offsets are those of u
    x = request.x.detach()
    return [request.replace(x=x + width * offset) for offset in hutchinson.offsets]


def _divergences(
    hutchinson: Hutchinson | None, near: Sequence[Estimate], count: int
) -> Tensor | None:
    """The divergence of noise - x_0 with respect to u for each reading, (B, N)."""
    if hutchinson is None:
        return None
    slopes = torch.stack([estimate.noise - estimate.x0 for estimate in near])
    return hutchinson.divergence(slopes.unflatten(0, (-1, count)).transpose(1, 2))


RULES: dict[str, Callable[[SuperDiff, Place, Request], Tensor]] = {
    "and": SuperDiff._and,
    "or": SuperDiff._or,
}
