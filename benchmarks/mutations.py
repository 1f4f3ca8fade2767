"""Break the library on purpose and see that the tests notice: ``make mutations``.

    python benchmarks/mutations.py --matching solvers

Each mutation replaces one piece of text in a copy of the sources; the test suite, run on the
copy, must fail. ``--matching`` takes those whose file's path contains a word. Exits with 1 if a
mutation survives.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent


@dataclass(frozen=True)
class Mutation:
    """One deliberate error, and the tests to run on it (all would do; these are quick)."""

    name: str
    file: str
    before: str
    after: str
    tests: str


MUTATIONS = [
    Mutation(
        "rows of several conditions get the first one's",
        "composer/requests.py",
        "tuple(self.condition.conditions[k] for k in self.origin or range(len(self.x)))",
        "self.condition.conditions[:1] * len(self.x)",
        "tests/core/test_rows.py",
    ),
    Mutation(
        "candidates take the scale of their own number",
        "composer/requests.py",
        "        return numbers[origin]\n",
        "        return numbers[: len(origin)]\n",
        "tests/core/test_rows.py",
    ),
    Mutation(
        "rows answered apart are not put back in order",
        "composer/batch.py",
        "together.take(sorted(range(len(order)), key=order.__getitem__))",
        "together",
        "tests/core/test_rows.py",
    ),
    Mutation(
        "a wide path begins in narrow noise",
        "composer/protocols.py",
        "noise if scale == 1 else scale * noise",
        "noise",
        "tests/core/test_schedules.py",
    ),
    Mutation(
        "edited images are noised by the scale of the noise, twice",
        "plugins/composer_plugins/editing/sdedit.py",
        "state.x / noise_scale_of(state.backend)",
        "state.x",
        "tests/core/test_schedules.py",
    ),
    Mutation(
        "a pixel flow divides by s, however small",
        "plugins/composer_plugins/backends/pixel_flow/backend.py",
        "if min(noise) < self.least:",
        "if False:",
        "tests/plugins/backends/test_prx.py",
    ),
    Mutation(
        "a flow's least time is shifted once",
        "plugins/composer_plugins/backends/pixel_flow/prx.py",
        "shift * least / (1 + (shift - 1) * least)",
        "least",
        "tests/plugins/backends/test_prx.py",
    ),
    Mutation(
        "beta in place of sqrt(beta)",
        "composer/solvers/ancestral.py",
        "alpha=math.sqrt(fixed))",
        "alpha=fixed)",
        "tests/core/test_solvers.py",
    ),
    Mutation(
        "EDM's network answers noise for its negative",
        "composer/solvers/_families.py",
        "-sign * data / size",
        "sign * data / size",
        "tests/core/test_diffusers_solver.py",
    ),
    Mutation(
        "a scheduler noisier than the model is handed the model's x",
        "composer/solvers/_families.py",
        "beyond=True",
        "beyond=False",
        "tests/core/test_diffusers_solver_settings.py",
    ),
    Mutation(
        "evaluations at one noise level share a time",
        "composer/solvers/_plan.py",
        "level = last - GAP",
        "level = last",
        "tests/core/test_diffusers_solver_places.py",
    ),
    Mutation(
        "a scheduler keeps its history over walks and jumps",
        "composer/solvers/diffusers.py",
        "where == (state.position, state.selections) and",
        "",
        "tests/core/test_diffusers_solver_places.py",
    ),
    Mutation(
        "LMS takes it that it began at the first time",
        "composer/solvers/diffusers.py",
        "min(4, run.index - run.begun + 1)",
        "min(4, run.index + 1)",
        "tests/core/test_diffusers_solver_places.py",
    ),
    Mutation(
        "a corrector goes back behind a change",
        "composer/solvers/diffusers.py",
        'torch.where(same, correct(**given), given["this_sample"])',
        "correct(**given)",
        "tests/core/test_diffusers_solver_places.py",
    ),
    Mutation(
        "the scheduler clips beside the backend",
        "plugins/composer_plugins/backends/diffusers_unet/loading.py",
        "**off)",
        ")",
        "tests/plugins/backends/test_diffusers_schedulers.py",
    ),
    Mutation(
        "float64 on the device",
        "composer/schedules/schedule.py",
        "v.to(x0.dtype).to(x0.device)",
        "v.to(x0.device).to(x0.dtype)",
        "tests/core/test_schedules.py",
    ),
    Mutation(
        "the quantile below in place of that between",
        "composer/_clipping.py",
        "float(rank - below)",
        "0.0",
        "tests/plugins/guidance/test_thresholding.py",
    ),
    Mutation(
        "alpha shifted by one step",
        "composer/schedules/discrete.py",
        "place = t + 1\n",
        "place = t.clamp(min=0)\n",
        "tests/core/test_schedules.py",
    ),
    Mutation(
        "mask polarity flipped",
        "composer/_known.py",
        "return self.mask * unknown + (1 - self.mask) * known",
        "return (1 - self.mask) * unknown + self.mask * known",
        "tests/plugins/editing/test_editing.py",
    ),
    Mutation(
        "the known region's score without the model's",
        "plugins/composer_plugins/editing/lanpaint.py",
        "(self.guidance / pull) * sigma",
        "0.0 * sigma",
        "tests/plugins/editing/test_lanpaint.py",
    ),
    Mutation(
        "what a measurement sees is added, not replaced",
        "plugins/composer_plugins/editing/ddnm.py",
        "(x0 - self.operator.pinv(self.operator.apply(x0)))",
        "x0",
        "tests/plugins/editing/test_ddnm.py",
    ),
    Mutation(
        "variance negated with the image",
        "plugins/composer_plugins/transforms/negative.py",
        "def inverse_variance(self, variance: Tensor) -> Tensor:\n        return variance",
        "def inverse_variance(self, variance: Tensor) -> Tensor:\n        return -variance",
        "tests/plugins/transforms/test_transforms.py",
    ),
    Mutation(
        "guidance from the wrong branch",
        "plugins/composer_plugins/guidance/cfg.py",
        "cond.lerp(uncond, 1 - scale)",
        "cond.lerp(uncond, -scale)",
        "tests/plugins/guidance/test_cfg.py",
    ),
    Mutation(
        "a view carried back by itself instead of its inverse",
        "composer/estimates.py",
        "prediction=view.inverse(self.prediction)",
        "prediction=view(self.prediction)",
        "tests/core/test_law.py",
    ),
    Mutation(
        "history kept over a jump",
        "composer/loop.py",
        "            state.estimate = None\n",
        "",
        "tests/core/test_solvers.py",
    ),
    Mutation(
        "the probe of a view forgets lengths",
        "composer/_probes.py",
        "_stretched(seen[0], x[0]) or ",
        "",
        "tests/core/testing/test_at_build.py",
    ),
    Mutation(
        "the probe of a view forgets the way back",
        "composer/_probes.py",
        " or _not_undone(back, x[::2])",
        "",
        "tests/core/testing/test_at_build.py",
    ),
    Mutation(
        "what is examined is known by its place in memory",
        "composer/_once.py",
        "isinstance(other, _Itself) and mine is not None and mine is other._thing()",
        "isinstance(other, _Itself)",
        "tests/core/test_once.py",
    ),
    Mutation(
        "a cascade resizes its plugins at every call",
        "plugins/composer_plugins/cascade/cascade.py",
        "*self._shared[place]",
        "*self._resized(place)",
        "tests/plugins/test_building.py",
    ),
    Mutation(
        "deduplication by time and condition alone",
        "composer/model.py",
        "return id(request.x), request.t,",
        "return request.t,",
        "tests/core/test_driver.py",
    ),
    Mutation(
        "each asker of a question gets a conversation of its own",
        "composer/driver.py",
        "self._questions.setdefault(question.key, question)",
        "self._questions.setdefault(id(question), question)",
        "tests/core/test_sharing.py",
    ),
    Mutation(
        "questions of two models are one",
        "composer/requests.py",
        "self.step, self.model",
        "self.step",
        "tests/core/test_sharing.py",
    ),
    Mutation(
        "infinity is taken for a number",
        "composer/finiteness.py",
        "if not math.isfinite(next(each)):",
        "if math.isnan(next(each)):",
        "tests/core/test_finiteness.py",
    ),
    Mutation(
        "each step waits to see whether it is finite",
        "composer/finiteness.py",
        "if self.at_once:",
        "if True:",
        "tests/core/test_reads.py",
    ),
    Mutation(
        "who writes into the clean image of an answer is not seen",
        "composer/estimates.py",
        'for name in ("noise", "x0"):',
        'for name in ("noise",):',
        "tests/core/test_finiteness.py",
    ),
    Mutation(
        "a sum takes the variance of its left term",
        "composer/estimates.py",
        "_distinct_variances((self, other))",
        "_distinct_variances((self,))",
        "tests/core/test_estimates.py",
    ),
    Mutation(
        "equal images of two tensors are added",
        "composer/estimates.py",
        "if other.x is not self.x:",
        "if other.x.shape != self.x.shape:",
        "tests/core/test_estimates.py",
    ),
    Mutation(
        "a plan cut short after a step is taken",
        "composer/loop.py",
        "        _run_checks.check_plan_kept(state, plan)\n",
        "",
        "tests/core/test_sampler.py",
    ),
    Mutation(
        "the last call holds what is left of the images",
        "composer/row_bounds.py",
        "return math.ceil(images / calls) * each",
        "return max(1, PIXELS // (each * height * width)) * each",
        "tests/core/test_row_bounds.py",
    ),
    Mutation(
        "what a plugin carries stays when images are copied",
        "composer/protocols.py",
        "key: value[rows] if isinstance(value, Tensor) else value.rows(rows)",
        "key: value",
        "tests/core/test_requests.py",
    ),
    Mutation(
        "rows outside DPS keep a gradient",
        "composer/model.py",
        "[a if request.x.requires_grad else _detached(a) for request, a in pairs]",
        "[a for _, a in pairs]",
        "tests/plugins/steering/test_steer.py",
    ),
    Mutation(
        "inner plugins of DPS compute without a gradient",
        "composer/driver.py",
        "request is not None and request.x.requires_grad",
        "False",
        "tests/plugins/steering/test_steer.py",
    ),
    Mutation(
        "SuperDiff forgets the densities of the step before",
        "plugins/composer_plugins/steering/super_diff.py",
        "density = past.log_density + ",
        "density = ",
        "tests/plugins/steering/test_super_diff.py",
    ),
    Mutation(
        "SuperDiff's flows have no divergence",
        "plugins/composer_plugins/steering/estimators.py",
        "growth - change * here.divergence",
        "growth",
        "tests/plugins/steering/test_super_diff.py",
    ),
    Mutation(
        "SuperDiff looks ahead only, which is of first order",
        "plugins/composer_plugins/steering/estimators.py",
        "(self.ahead(past, here.x, here.t) - self.ahead(here, past.x, past.t)) / 2",
        "self.ahead(past, here.x, here.t)",
        "tests/plugins/steering/test_super_diff.py",
    ),
    Mutation(
        "TFG's smoothed loss is the mean of the losses",
        "plugins/composer_plugins/steering/tfg.py",
        "(-each).logsumexp(0) - math.log(self.draws)",
        "-each.mean(0)",
        "tests/plugins/steering/test_tfg.py",
    ),
    Mutation(
        "the reverse transition is DDPM's, whatever the data's width",
        "plugins/composer_plugins/steering/densities.py",
        "beta * wide_s / wide_t",
        "beta * sigma_s**2 / sigma_t**2",
        "tests/plugins/steering/test_super_diff.py",
    ),
    Mutation(
        "a corrector's weights have half their size",
        "plugins/composer_plugins/steering/feynman_kac_corrector.py",
        "step.of_x0**2 / (2 * step.variance)",
        "step.of_x0**2 / (4 * step.variance)",
        "tests/plugins/steering/test_feynman_kac_corrector.py",
    ),
    Mutation(
        "FeynmanKac drops what a corrector weighs",
        "plugins/composer_plugins/steering/feynman_kac.py",
        "weights = weights + added.cpu().double().reshape(last.shape)",
        "weights = weights + 0.0",
        "tests/plugins/steering/test_feynman_kac_corrector.py",
    ),
    Mutation(
        "Steer takes all of its steps at the first length",
        "plugins/composer_plugins/steering/steer.py",
        "            past = u, slope\n",
        "",
        "tests/plugins/steering/test_steer.py",
    ),
    Mutation(
        "a gradient goes through the length of Steer's steps, which may be 0 / 0",
        "plugins/composer_plugins/steering/steer.py",
        "(u - past[0]).detach(), (slope - past[1]).detach()",
        "u - past[0], slope - past[1]",
        "tests/plugins/steering/test_steer.py",
    ),
    Mutation(
        "a backend's property that fails is the inner backend's",
        "composer/backend_wrapper.py",
        "if hasattr(type(self), name):",
        "if False:",
        "tests/core/test_backend_wrapper.py",
    ),
    Mutation(
        "a gradient is compared with nothing",
        "composer/testing/gradient.py",
        "for direction in directions:",
        "for direction in directions[:0]:",
        "tests/core/testing/test_backend_kit.py",
    ),
    Mutation(
        "rows that are asked of a perturbed model get the model itself",
        "composer/model.py",
        "with perturbation.applied(networks_of(self.backend)):",
        "with perturbation.applied({}):",
        "tests/plugins/guidance/test_perturbed.py",
    ),
    Mutation(
        "other threads are perturbed too",
        "plugins/composer_plugins/guidance/perturbed.py",
        "return lambda: threading.get_ident() == owner",
        "return lambda: owner > 0",
        "tests/plugins/guidance/test_perturbed.py",
    ),
    Mutation(
        "rows of a canvas are counted as the loop has them",
        "composer/model.py",
        "self.stats.rows += len(rows)",
        "self.stats.rows += len(batch)",
        "tests/plugins/canvas/test_canvas.py",
    ),
    Mutation(
        "windows of a canvas that wraps are those of one that ends",
        "plugins/composer_plugins/canvas/crops.py",
        "return [round(k * side / count) for k in range(count)]",
        "return [round(k * (side - length) / count) for k in range(count)]",
        "tests/plugins/canvas/test_canvas.py",
    ),
    Mutation(
        "a region's condition is asked wherever its crop lies",
        "plugins/composer_plugins/canvas/backend.py",
        "if (part := crop(mask)).any():",
        "if (part := crop(mask)) is not None:",
        "tests/plugins/canvas/test_regions.py",
    ),
    Mutation(
        "a bootstrapped region sees the whole canvas",
        "plugins/composer_plugins/canvas/bootstrapping.py",
        "torch.where(here, x, background(request, k))",
        "x.clone()",
        "tests/plugins/canvas/test_bootstrapping.py",
    ),
    Mutation(
        "the rows of a backend around a canvas are spread by the canvas",
        "composer/backend_wrapper.py",
        '_OWN = {"inner", "spread", "loaded_as"}',
        '_OWN = {"inner", "loaded_as"}',
        "tests/core/test_backend_wrapper.py",
    ),
    Mutation(
        "crops of one place are taken for one image in all canvases",
        "plugins/composer_plugins/canvas/backend.py",
        "tuple(image * len(self._placed) + term.number for image in batch.images)",
        "(term.number,) * len(batch)",
        "tests/plugins/canvas/test_canvas.py",
    ),
    Mutation(
        "CFG-Zero* fits the conditional velocity to the unconditional one",
        "plugins/composer_plugins/guidance/cfg_zero_star.py",
        "fitted = fit(away, towards)",
        "fitted = fit(towards, away)",
        "tests/plugins/guidance/test_cfg_zero_star.py",
    ),
    Mutation(
        "Adams-Bashforth weighs uneven steps as even ones",
        "plugins/composer_plugins/solvers/adams_bashforth.py",
        "np.asarray(places) ** powers[:, None]",
        "-powers * 1.0 ** powers[:, None]",
        "tests/plugins/solvers/test_adams_bashforth.py",
    ),
    Mutation(
        "a history goes on after a walk",
        "plugins/composer_plugins/solvers/history.py",
        "before is None or before.t == estimate.t",
        "before is None",
        "tests/plugins/solvers/test_adams_bashforth.py",
    ),
    Mutation(
        "UniPC corrects what plugins changed",
        "plugins/composer_plugins/solvers/unipc.py",
        "left.x is estimate.x and ",
        "",
        "tests/plugins/solvers/test_unipc.py",
    ),
    Mutation(
        "the adaptive solver steps as the first image needs",
        "plugins/composer_plugins/solvers/adaptive.py",
        "error = h * gap",
        "error = h * errors[0]",
        "tests/plugins/solvers/test_adaptive.py",
    ),
    Mutation(
        "a likelihood forgets the width of the noise",
        "plugins/composer_plugins/solvers/likelihood.py",
        "(widths[0] / scale)",
        "widths[0]",
        "tests/plugins/solvers/test_likelihood.py",
    ),
    Mutation(
        "FlowEdit forgets the noise of the source",
        "plugins/composer_plugins/editing/flow_edit.py",
        "estimate.x / size - tau * (held.noise - image)",
        "estimate.x / size",
        "tests/plugins/editing/test_flow_edit.py",
    ),
    Mutation(
        "DiffPIR trusts the model alike at all levels",
        "plugins/composer_plugins/editing/diffpir.py",
        "(self.noise / r) ** 2",
        "(self.noise / self.spread) ** 2",
        "tests/plugins/editing/test_posteriors.py",
    ),
    Mutation(
        "DAPS takes the measurement as exact",
        "plugins/composer_plugins/editing/daps.py",
        "y + self.noise * state.randn",
        "y + 0 * state.randn",
        "tests/plugins/editing/test_posteriors.py",
    ),
    Mutation(
        "a pixel is freed one step late",
        "plugins/composer_plugins/editing/differential.py",
        "held.last > left",
        "held.last > left + 1",
        "tests/plugins/editing/test_differential.py",
    ),
]


def passes(tests: str, mutation: Mutation | None = None) -> bool:
    """Whether the tests pass on a copy of the sources, with a mutation or as they are."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder)
        ignore = shutil.ignore_patterns("__pycache__", "_build", "figures", "gallery")
        for name in ("composer", "plugins", "tests", "benchmarks", "docs", "examples"):
            shutil.copytree(ROOT / name, copy / name, ignore=ignore)
        shutil.copy(ROOT / "pyproject.toml", copy)
        if mutation is not None:
            file = copy / mutation.file
            source = file.read_text()
            if source.count(mutation.before) != 1:
                raise SystemExit(f"{mutation.name}: its text is not found once in {mutation.file}")
            file.write_text(source.replace(mutation.before, mutation.after))
        paths = os.pathsep.join([str(copy), str(copy / "plugins")])
        run = subprocess.run(
            [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", tests],
            cwd=copy,
            env={**os.environ, "PYTHONPATH": paths},
            capture_output=True,
            text=True,
            check=False,
        )
        if run.returncode not in (0, 1):
            raise SystemExit(f"{tests} did not run\n{run.stdout[-2000:]}")
        return run.returncode == 0


def main() -> None:
    parser = argparse.ArgumentParser(description="Break the library on purpose.")
    parser.add_argument("--matching", default="", help="a part of the paths of the files to break")
    matching = parser.parse_args().matching
    mutations = [mutation for mutation in MUTATIONS if matching in mutation.file]
    survivors = 0
    for tests in sorted({mutation.tests for mutation in mutations}):
        if not passes(tests):
            raise SystemExit(f"{tests} fails without any mutation; mend that first")
    for mutation in mutations:
        found = not passes(mutation.tests, mutation)
        survivors += not found
        print(
            f"{'caught  ' if found else 'SURVIVED'}  {mutation.name} ({mutation.file})", flush=True
        )
    sys.exit(1 if survivors else 0)


if __name__ == "__main__":
    main()
