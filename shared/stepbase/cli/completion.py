"""`stepbase completion`: lets a shell complete commands and options."""

import click


@click.command("completion", short_help="Print a shell's completion script.")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def command(shell: str) -> None:
    """Print a script that has SHELL complete stepbase's commands and options.

    Load it where the shell starts: eval "$(stepbase completion bash)", the same for zsh, and
    stepbase completion fish | source.
    """
    from click.shell_completion import get_completion_class

    from stepbase.cli.main import main

    kind = get_completion_class(shell)
    assert kind is not None  # click knows these three
    script = kind(main, {}, "stepbase", "_STEPBASE_COMPLETE")
    # Not `source()`: it would start the user's bash to look at its version.
    click.echo(script.source_template % script.source_vars())
