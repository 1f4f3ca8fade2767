"""The commands of the studio; entry points of the group composer.commands."""
