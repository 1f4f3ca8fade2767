"""The command line: ``composer COMMAND``; packages add commands by entry points."""

from __future__ import annotations

from importlib.metadata import entry_points

import click

GROUP = "composer.commands"


class InstalledCommands(click.Group):
    """A group whose commands are entry points, imported when one is used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted({*super().list_commands(ctx), *entry_points(group=GROUP).names})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        found = entry_points(group=GROUP, name=cmd_name)
        for entry in found:
            command: click.Command = entry.load()
            return command
        return super().get_command(ctx, cmd_name)


@click.group(cls=InstalledCommands)
@click.version_option(package_name="diffusion-composer")
def main() -> None:
    """One diffusion sampling loop; guidance, inpainting and illusions as plugins."""
