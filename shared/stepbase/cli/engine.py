"""`stepbase engine`: the server that keeps runs in Postgres."""

import asyncio
from collections.abc import Coroutine
from datetime import timedelta
from typing import TYPE_CHECKING

import click

from stepbase.history import asking

if TYPE_CHECKING:
    from stepbase.engine.server import More


@click.group(
    "engine", short_help="Run the server that keeps runs in Postgres.", invoke_without_command=True
)
@click.option(
    "--host",
    default="127.0.0.1",
    show_default=True,
    help="Address to bind; others than loopback need keys.",
)
@click.option(
    "--port", default=8288, show_default=True, type=int, help="Port to bind; 0 takes a free one."
)
@asking.SESSION_URL
@click.option(
    "--project",
    help="Whose database it must be: a reference, or a URL's host.  [default: from SUPABASE_URL]",
)
@click.option(
    "--take-over", is_flag=True, help="Claim the database of another project for this one."
)
@click.option(
    "--retry-interval", type=float, help="Fixed seconds between attempts, for development."
)
@click.option(
    "--lease",
    default=30.0,
    show_default=True,
    type=float,
    help="Seconds until another engine takes over a silent one's work.",
)
@click.option(
    "--max-calls", default=64, show_default=True, type=int, help="Calls in flight at once."
)
@click.option(
    "--drain",
    default=10.0,
    show_default=True,
    type=float,
    help="Seconds that calls in flight may go on after SIGTERM.",
)
@click.option(
    "--private-requests/--no-private-requests",
    default=None,
    help="Whether step.fetch and step.ai may reach private addresses.  [default: only without keys]",
)
@click.option(
    "--sdk-url",
    "-u",
    "sdk_urls",
    multiple=True,
    help="Serve URL of an app to sync, at start and when it has changed; repeatable.",
)
@click.option(
    "--poll",
    default=5.0,
    show_default=True,
    type=click.FloatRange(0),
    help="Seconds between two syncs of those apps; 0 syncs at start only.",
)
@click.option(
    "--console/--no-console",
    default=True,
    show_default=True,
    help="Pages for people, on the same port.",
)
@click.option("--log-level", default="INFO", show_default=True)
@click.option("--log-json", is_flag=True, help="Log lines as JSON.")
@click.pass_context
def command(
    ctx: click.Context,
    host: str,
    port: int,
    database_url: str | None,
    project: str | None,
    take_over: bool,
    retry_interval: float | None,
    lease: float,
    max_calls: int,
    drain: float,
    private_requests: bool | None,
    sdk_urls: tuple[str, ...],
    poll: float,
    console: bool,
    log_level: str,
    log_json: bool,
) -> None:
    """Run the engine: takes events, starts runs, calls functions; state lives in Postgres.

    Keys come from INNGEST_SIGNING_KEY and INNGEST_EVENT_KEY; without them it is in dev mode.
    """
    if ctx.invoked_subcommand is not None:
        return
    from stepbase import config, log
    from stepbase.engine.server import check_address, main, no_more
    from stepbase.engine.settings import Settings
    from stepbase.errors import StoreError

    log.setup(log_level, as_json=log_json)
    signing_keys, event_keys = config.keys()
    settings = Settings(
        database_url=asking.database(database_url),
        project=project or config.engine_project(),
        take_over=take_over,
        host=host,
        port=port,
        signing_keys=signing_keys,
        event_keys=event_keys,
        retry_interval=retry_interval,
        lease=timedelta(seconds=lease),
        max_calls=max_calls,
        drain_seconds=drain,
        private_requests=private_requests,
        is_traced=config.is_traced(),
        sdk_urls=sdk_urls,
        poll_seconds=poll,
    )
    try:
        check_address(settings)
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    try:
        _run(main(settings, _console() if console else no_more))
    except OSError as error:
        raise click.ClickException(f"cannot listen on {host}:{port}: {error}") from error
    except StoreError as error:
        raise click.ClickException(str(error)) from error


@command.command("check")
@asking.SESSION_URL
@click.option("--sdk-url", "-u", "sdk_urls", multiple=True, help="Serve URL of an app; repeatable.")
@asking.JSON
def check(database_url: str | None, sdk_urls: tuple[str, ...], as_json: bool) -> None:
    """Say what is wrong with a set-up: database, schema, rights, clocks, keys, apps.

    Changes nothing. Exit code 1 if an engine could not work like this.
    """
    from stepbase import config
    from stepbase.engine.check import check as look
    from stepbase.engine.settings import Settings

    signing_keys, event_keys = config.keys()
    settings = Settings(
        database_url=asking.database(database_url),
        project=config.engine_project(),
        signing_keys=signing_keys,
        event_keys=event_keys,
        sdk_urls=sdk_urls,
    )
    asking.show_findings(asyncio.run(look(settings)), as_json)


def _console() -> "More":
    from stepbase.console.site import console

    return console


def _run(coroutine: Coroutine[object, object, None]) -> None:
    try:
        import uvloop
    except ImportError:
        runner = asyncio.Runner()
    else:
        runner = asyncio.Runner(loop_factory=uvloop.new_event_loop)
    with runner:
        loop = runner.get_loop()
        import signal

        task = loop.create_task(coroutine)
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, task.cancel)
        try:
            loop.run_until_complete(task)
        except asyncio.CancelledError:
            return
