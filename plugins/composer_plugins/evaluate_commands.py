"""``composer evaluate``: figures of quality, by a judge that never guides or chooses."""

from __future__ import annotations

import click

from composer_plugins.anagrams_command import anagrams
from composer_plugins.inpainting_command import inpainting
from composer_plugins.samples_command import samples


@click.group()
def evaluate() -> None:
    """Measure the shipped models, or your own."""


for command in (anagrams, inpainting, samples):
    evaluate.add_command(command)
