"""`stepbase demo`: real purchases become awards, through crashes and refunds."""

from pathlib import Path

import click


@click.command("demo")
@click.option(
    "--sample",
    type=click.IntRange(1),
    default=500,
    show_default=True,
    help="How many purchases, spread evenly over the file.",
)
@click.option("--all", "everything", is_flag=True, help="All of them: 6,919 in the file we ship.")
@click.option(
    "--data",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="Another file of that form: master id, sample id, date, number of CDs, dollars.",
)
@click.option("--seed", type=int, default=1, show_default=True, help="Chooses who is refunded.")
@click.option("--keep", is_flag=True, help="Leave it running afterwards, until Ctrl-C.")
@click.option("--json", "as_json", is_flag=True, help="Print the report as one JSON object.")
def command(
    sample: int, everything: bool, data: Path | None, seed: int, keep: bool, as_json: bool
) -> None:
    """Show it: sell, refund, kill processes, and check every wallet.

    Everything runs on a throwaway PostgreSQL on this machine; nothing is left behind. Exit code 0
    if the books are right, 1 if not.
    """
    from rich.console import Console

    from stepbase.demo import purchase, session
    from stepbase.demo.play import Options
    from stepbase.local.errors import LocalError

    options = Options(
        data=data or purchase.sample_file(), sample=None if everything else sample, seed=seed
    )
    try:
        code = session.run(options, Console(stderr=as_json), keep=keep, as_json=as_json)
    except purchase.DataError as error:
        raise click.BadParameter(str(error), param_hint="--data") from error
    except LocalError as error:
        raise click.ClickException(str(error)) from error
    raise SystemExit(code)
