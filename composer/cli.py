"""The command line: ``composer COMMAND``; packages add commands by entry points."""

from __future__ import annotations

from importlib.metadata import EntryPoint, entry_points
from typing import Any

import click

from composer.commands.check import check
from composer.commands.errors import one_line
from composer.commands.plugins import plugins
from composer.errors import nearest, shown
from composer.foreign import Foreign

_GROUP = "composer.commands"


class _InstalledCommands(click.Group):
    """A group whose commands are entry points, imported when one is used."""

    def make_context(self, *args: Any, **kwargs: Any) -> click.Context:
        with one_line():
            return super().make_context(*args, **kwargs)

    def invoke(self, ctx: click.Context) -> Any:
        with one_line():
            return super().invoke(ctx)

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        if self.get_command(ctx, args[0]) is None:
            close = nearest(args[0], self.list_commands(ctx))
            if close:
                ctx.fail(f"No such command {args[0]!r}. Did you mean {' or '.join(close)}?")
        return super().resolve_command(ctx, args)

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted({*super().list_commands(ctx), *entry_points(group=_GROUP).names})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        own = super().get_command(ctx, cmd_name)
        if own is not None:  # no package replaces a command of the core
            return own
        found = next(iter(entry_points(group=_GROUP, name=cmd_name)), None)
        return None if found is None else _loaded(found)


@click.group(cls=_InstalledCommands)
@click.version_option(package_name="diffusion-composer")
def main() -> None:
    """Pictures by diffusion: one sampling loop; guidance, inpainting and illusions as plugins.

    \b
    A first picture, which reads as 6 upright and as 9 upside down:
      composer anagram 6 9         then look at anagram/sheet.png
    How a picture was made, and the same again:
      composer show anagram/0000.png
      composer replay anagram/0000.png
    Your own recipe, a file of a few lines:
      composer sample recipe.toml
    """


main.add_command(plugins)
main.add_command(check)


def _loaded(entry: EntryPoint) -> click.Command:
    """A package's command; if it fails to load, a command that reports why, so --help works."""
    owner = entry.value
    command: click.Command | None = None
    with Foreign() as loading:
        owner = (entry.dist and entry.dist.name) or owner
        loaded: object = entry.load()
        if not isinstance(loaded, click.Command):
            raise TypeError(f"{entry.value} must be a click command, got {shown(loaded)}.")
        loaded.get_short_help_str()  # as --help will
        command = loaded
    if command is not None:
        return command
    sentence = f"{owner} failed to load: {loading.error}"

    def fail() -> None:
        raise click.ClickException(sentence)

    return click.Command(entry.name, callback=fail, help=sentence)
