"""``composer evaluate``: measures of quality by a judge that never guides or chooses."""

from __future__ import annotations

import click

from composer_lab.cli.evaluate_anagrams import anagrams
from composer_lab.cli.evaluate_inpainting import inpainting
from composer_lab.cli.evaluate_samples import samples


@click.group()
def evaluate() -> None:
    """Measure the shipped models, or your own."""


for command in (anagrams, inpainting, samples):
    evaluate.add_command(command)
