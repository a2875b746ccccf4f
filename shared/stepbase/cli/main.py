"""The root of `stepbase`: finds a subcommand's module by its name and loads only that one."""

import importlib
import pkgutil

import click

import stepbase.cli

_NOT_COMMANDS = {"main", "__main__"}

SECTIONS = {
    "Start": ("dev", "demo", "engine", "host", "gateway", "relay"),
    "Look": ("runs", "trace", "events", "functions", "apps", "outbox", "tail", "doctor"),
    "Act": ("send", "cancel", "rerun", "pause", "resume", "forget"),
    "Set up": ("init", "new", "gen", "db", "deploy", "token", "completion"),
}
"""What `--help` lists under which heading, in this order; a test wants every subcommand in one."""


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

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the subcommands by what they are for."""
        found = self.list_commands(ctx)
        rest = tuple(name for name in found if not any(name in s for s in SECTIONS.values()))
        width = formatter.width - 6 - max(map(len, found))
        for heading, named in {**SECTIONS, "More": rest}.items():
            rows = []
            for name in named:
                command = self.get_command(ctx, name)
                if command is not None and not command.hidden:
                    rows.append((name, command.get_short_help_str(width)))
            if rows:
                with formatter.section(heading):
                    formatter.write_dl(rows)


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="stepbase")
def main() -> None:
    """Durable step functions for Supabase: develop, run and look at them.

    What looks reads a database (DATABASE_URL or --database), what acts asks an engine (--url).
    """
