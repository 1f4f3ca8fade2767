"""CFG++: the clean image guided, the noise unconditional."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass

from composer import UNCONDITIONAL, Estimate, Plugin, Request, Stack, hookimpl
from composer.arguments import finite
from composer.authoring import answers, declared
from composer.errors import shown
from composer_plugins.guidance.cfg import guide


@dataclass(frozen=True, eq=False)
class CFGPlusPlus(Plugin):
    """Step to the guided clean image, renoised with the unconditional noise.

    With x_0 = uncond + scale * (cond - uncond) in clean images, and the unconditional noise, the
    solver steps from

        x' = alpha x_0 + sigma noise,

    the point whose clean image is x_0 and whose noise is that noise, in place of x. So a solver
    mixes these two again: DDIM and Euler go to alpha_s x_0 + sigma_s noise, which is the paper's
    algorithm; others step from x' too. Under DDIM it is CFG whose scale depends on the step,
    scale * alpha_s sigma_t / (alpha_s sigma_t - alpha_t sigma_s), so its strength depends on the
    number of steps.

    It obeys the law of composition. It decides what the solver steps from, so it must be the
    outermost plugin, around anagrams and the like. All maps are linear, so applying it within each
    view would give the same image.

    Chung et al. 2024, "CFG++: Manifold-constrained Classifier Free Guidance for Diffusion Models",
    arXiv 2406.08070, algorithm 1.

    Args:
        scale: the paper's lambda in [0, 1]. 0 is the unconditional model. 1 takes the clean image
            from the conditional model and still the noise from the unconditional one.
    """

    scale: float

    def __post_init__(self) -> None:
        if not 0 <= finite(self.scale, "CFGPlusPlus: scale") <= 1:
            raise ValueError(f"CFGPlusPlus: scale must be in [0, 1], got {shown(self.scale)}")

    @hookimpl
    def check(self, stack: Stack) -> None:
        estimators = [p for p in stack.plugins if answers(p, "noise_estimate")]
        if estimators[:1] != [self]:
            raise ValueError(
                "CFGPlusPlus: it must be the outermost plugin that estimates noise. Put it before "
                "the others in the list of plugins."
            )
        if walkers := [p for p in stack.plugins if declared(p, "walks")]:
            raise ValueError(
                f"CFGPlusPlus: it cannot be combined with {type(walkers[0]).__name__}, whose walks "
                "would repeat its shift of x. Use CFG instead."
            )

    @hookimpl
    def noise_estimate(
        self, request: Request
    ) -> Generator[list[Request], list[Estimate], Estimate]:
        unconditional = request.replace(condition=UNCONDITIONAL)
        if self.scale == 0:
            return (yield [unconditional])[0]
        cond, uncond = yield [request, unconditional]
        guided = guide(uncond, cond, self.scale)
        alpha, sigma = guided.schedule.at(guided.t)
        prediction = guided.kind.target(guided.x0, uncond.noise, alpha, sigma)
        # Computed as a shift of x, which also holds where alpha or sigma is 0.
        x = request.x + alpha * (guided.x0 - uncond.x0)
        return guided.replace(prediction=prediction, x=x)
