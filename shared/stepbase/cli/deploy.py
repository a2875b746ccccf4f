"""`stepbase deploy`: the function folders and all they need, to where they run."""

from pathlib import Path
from typing import Any

import click


@click.command("deploy", short_help="Deploy function folders.")
@click.argument("apps", nargs=-1, metavar="[APP]...")
@click.option(
    "--target",
    type=click.Choice(["compute", "cloudrun", "docker"]),
    default="compute",
    show_default=True,
    help="Supabase Compute, Google Cloud Run, or containers on a host of yours.",
)
@click.option("--env", default="", help="Environment: reads .env.NAME instead of .env.")
@click.option("--dry-run", is_flag=True, help="Print every file, command and request; do nothing.")
@click.option("--only", multiple=True, metavar="STAGE", help="Only this stage; repeatable.")
@click.option("--skip-db", is_flag=True, help="Leave the database as it is.")
@click.option("--front-door", is_flag=True, help="Serve the apps through Edge Functions.")
@click.option("--with-engine", is_flag=True, help="With docker: an engine of your own, too.")
@click.option(
    "--plan",
    "allowance",
    type=click.Choice(["free", "pro"]),
    help="Refuse what this plan of Inngest Cloud does not allow.",
)
@click.option(
    "--wait",
    default=300.0,
    show_default=True,
    type=click.FloatRange(1),
    help="Seconds a folder may take until it answers.",
)
@click.option("--yes", is_flag=True, help="Do not ask before the first change.")
@click.option("--lock", is_flag=True, help="Choose the versions of packages anew, and stop.")
@click.option("--write-config", is_flag=True, help="Add missing blocks and front doors, and stop.")
@click.option(
    "--project",
    default=Path("."),
    show_default=True,
    type=click.Path(path_type=Path, exists=True, file_okay=False),
)
@click.option("--json", "as_json", is_flag=True, help="With --dry-run: the plan as JSON.")
def command(
    project: Path, apps: tuple[str, ...], lock: bool, write_config: bool, **options: Any
) -> None:
    """Deploy the function folders APP (all, if none is named), database and secrets first.

    Looks for problems before it changes anything, and verifies afterwards that what was deployed is what is
    registered. An interrupted deploy goes on where it stopped when it is run again.
    """
    from stepbase.deploy import terminal
    from stepbase.deploy.errors import DeployError

    try:
        if lock:
            terminal.write_lock(project.resolve())
        elif write_config:
            terminal.write_config(project.resolve(), apps, is_front_door=options["front_door"])
        else:
            raise SystemExit(terminal.deploy(project.resolve(), apps, **options))
    except DeployError as error:
        raise click.ClickException(str(error)) from error
