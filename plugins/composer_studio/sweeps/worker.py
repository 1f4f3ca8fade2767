"""Makes the batches of a sweep; its model is loaded once."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from composer import Result, Sampler, call_of
from composer.recipes import Trust
from composer_studio.sweeps.plan import Job


class Worker:
    """Samples jobs.

    Args:
        recipes: of the variants.
        trust: as ``Sampler.from_recipe`` has it.
    """

    def __init__(self, recipes: Sequence[dict[str, Any]], trust: Trust = ()) -> None:
        self._recipes, self._trust = recipes, trust
        self._sampler, self._made = Sampler.from_recipe(recipes[0], trust=trust), 0

    def sample(self, job: Job) -> Result:
        """The images of a job."""
        if job.variant != self._made:
            recipe = self._recipes[job.variant]
            same = recipe["backend"] == self._recipes[self._made]["backend"]
            backend = self._sampler.backend if same else None
            self._sampler = Sampler.from_recipe(recipe, backend=backend, trust=self._trust)
            self._made = job.variant
        condition = call_of(self._recipes[job.variant])["condition"]
        return self._sampler.sample(condition, job.seeds)

    def save(self, job: Job, folder: Path, size: int | None) -> list[Path]:
        """Sample a job into a folder; a file a seed."""
        return self.sample(job).save(folder, size)
