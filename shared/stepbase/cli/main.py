"""The root of `stepbase`: finds a subcommand's module by its name and loads only that one."""

import importlib
import pkgutil

import click

import stepbase.cli

_NOT_COMMANDS = {"main", "__main__"}


class LazyGroup(click.Group):
    """A group whose subcommands are the sibling modules, each with a `command`."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the subcommands' names, sorted."""
        found = (m.name for m in pkgutil.iter_modules(stepbase.cli.__path__))
        return sorted(set(found) - _NOT_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return the subcommand, or None (click then says which ones exist)."""
        if cmd_name not in self.list_commands(ctx):
            return None
        module = importlib.import_module(f"stepbase.cli.{cmd_name}")
        command = module.command
        if not isinstance(command, click.Command):
            raise TypeError(f"stepbase.cli.{cmd_name}.command is not a click command")
        return command


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="stepbase")
def main() -> None:
    """Durable step functions for Supabase: develop, run and look at them."""
