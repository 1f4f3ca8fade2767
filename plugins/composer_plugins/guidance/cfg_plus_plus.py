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

    the point of which both are true, in place of x. So a solver re-mixes these two: DDIM and Euler
    go to alpha_s x_0 + sigma_s noise, which is the paper's algorithm; others step from x' too.
    Under DDIM it is CFG whose scale depends on the step,
    scale * alpha_s sigma_t / (alpha_s sigma_t - alpha_t sigma_s); but it is a step rule, and its
    strength depends on the number of steps.

    It obeys the law of composition. As it decides what the solver steps from, it stands outermost,
    around anagrams and the like; since all is linear, views apart would give the same image.

    Chung et al. 2024, "CFG++: Manifold-constrained Classifier Free Guidance for Diffusion Models",
    arXiv 2406.08070, algorithm 1.

    Args:
        scale: the paper's lambda in [0, 1]: 0 is the unconditional model; 1 has the conditional
            clean image, and is not the conditional model.
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
                "CFGPlusPlus decides what the solver steps from and must be outermost; put it "
                "before all other plugins that estimate noise"
            )
        if walkers := [p for p in stack.plugins if declared(p, "walks")]:
            raise ValueError(
                f"CFGPlusPlus moves x before each step, and {type(walkers[0]).__name__} would "
                "move it again at every walk; use CFG beside it"
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
        # As a shift of x: where alpha or sigma is 0, one of the two says nothing of x.
        x = request.x + alpha * (guided.x0 - uncond.x0)
        return guided.replace(prediction=prediction, x=x)
