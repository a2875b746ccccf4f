"""`stepbase host`: serves every function folder from one process, for development."""

from pathlib import Path

import click


@click.command("host", short_help="Serve function folders.")
@click.argument(
    "root", default=Path("functions"), type=click.Path(path_type=Path, exists=True, file_okay=False)
)
@click.option("--host", default="127.0.0.1", show_default=True, envvar="STEPBASE_HOST_HOST")
@click.option(
    "--port",
    default=8290,
    show_default=True,
    type=click.IntRange(0, 65535),
    envvar="STEPBASE_HOST_PORT",
    help="0 takes a free port.",
)
@click.option("--reload", is_flag=True, help="Start anew when a Python file changes.")
@click.option(
    "--watch",
    "watched",
    multiple=True,
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="Another folder whose changes count, with --reload.",
)
@click.option("--listen-fd", type=int, hidden=True, envvar="STEPBASE_LISTEN_FD")
def command(
    root: Path,
    host: str,
    port: int,
    reload: bool,
    watched: tuple[Path, ...],
    listen_fd: int | None,
) -> None:
    """Serve the function folders under ROOT at /<folder>/api/inngest."""
    from stepbase import log
    from stepbase.local.errors import LocalError
    from stepbase.local.host import run, run_reloading
    from stepbase.local.serving import inherited, listen

    log.setup()
    try:
        sock = listen(host, port) if listen_fd is None else inherited(listen_fd)
        if reload:
            run_reloading(root, sock, watched)
        else:
            run(root, sock)
    except LocalError as error:
        raise click.ClickException(str(error)) from error
