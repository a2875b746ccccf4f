"""`stepbase relay`: posts the outbox's events to an event API elsewhere."""

from typing import TYPE_CHECKING

import click

from stepbase.history import asking

if TYPE_CHECKING:
    from stepbase.relay.settings import Settings


@click.command("relay", short_help="Post the events of the outbox to a server elsewhere.")
@asking.SESSION_URL
@click.option(
    "--project",
    help="The project it works for: its reference, or its URL's host.  [default: from SUPABASE_URL]",
)
@click.option("--take-over", is_flag=True, help="Claim the outbox of a copy for this project.")
@click.option(
    "--batch", default=500, show_default=True, help="Events in a request at most (up to 5000)."
)
@click.option("--batch-kib", default=1024, show_default=True, help="KiB in a request at most.")
@click.option("--in-flight", default=4, show_default=True, help="Requests under way at once.")
@click.option(
    "--lease", default=60.0, show_default=True, help="Seconds until others may send what it took."
)
@click.option("--timeout", default=20.0, show_default=True, help="Seconds a request may take.")
@click.option(
    "--most-tries",
    default=20,
    show_default=True,
    help="Tries before an event nobody took becomes a dead letter …",
)
@click.option(
    "--most-age", default="7d", show_default=True, help="… and its age, as in 12h; both must be."
)
@click.option(
    "--drain",
    default=25.0,
    show_default=True,
    help="Seconds that requests may go on after SIGTERM.",
)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address of the metrics.")
@click.option("--metrics-port", type=int, help="Serve /health and /metrics here; 0: a free one.")
@click.option("--log-level", default="INFO", show_default=True)
@click.option("--log-json", is_flag=True, help="Log lines as JSON.")
def command(log_level: str, log_json: bool, **options: object) -> None:
    """Post the events of the outbox to Inngest, or to an engine with a database of its own.

    Where to and with which key is what the SDK's variables say: INNGEST_EVENT_KEY,
    INNGEST_EVENT_API_BASE_URL, INNGEST_DEV. Any number of relays may run on one outbox.
    """
    import asyncio

    from stepbase import log
    from stepbase.errors import StoreError

    log.setup(log_level, as_json=log_json)
    settings = _settings(options)
    try:
        asyncio.run(_until_signal(settings))
    except OSError as error:
        raise click.ClickException(
            f"cannot listen on {settings.host}:{settings.metrics_port}: {error}"
        ) from error
    except StoreError as error:
        raise click.ClickException(str(error)) from error


def _settings(options: dict[str, object]) -> "Settings":
    """Read options and environment.

    Raises:
        click.UsageError: What is missing, and where to say it.
    """
    from datetime import timedelta
    from typing import Any

    from stepbase import config
    from stepbase.protocol import names
    from stepbase.protocol.duration import parse_duration
    from stepbase.relay.settings import Settings

    given: dict[str, Any] = options
    inngest = config.inngest()
    url = asking.database(given["database_url"])
    project = given["project"] or config.project()
    if project is None:
        raise click.UsageError(
            "say which project the outbox belongs to: set SUPABASE_URL or give --project"
        )
    if inngest.event_key is None and not inngest.is_dev:
        raise click.UsageError(
            "no event key: set INNGEST_EVENT_KEY, or INNGEST_DEV=1 for a dev server"
        )
    try:
        return Settings(
            database_url=url,
            event_origin=inngest.event_origin,
            event_key=inngest.event_key or names.NO_EVENT_KEY,
            project=project,
            take_over=given["take_over"],
            env=inngest.env,
            batch_events=given["batch"],
            batch_bytes=given["batch_kib"] * 1024,
            in_flight=given["in_flight"],
            lease=timedelta(seconds=given["lease"]),
            timeout=given["timeout"],
            most_tries=given["most_tries"],
            most_age=parse_duration(given["most_age"]),
            drain_seconds=given["drain"],
            host=given["host"],
            metrics_port=given["metrics_port"],
        )
    except ValueError as error:
        raise click.UsageError(str(error)) from error


async def _until_signal(settings: "Settings") -> None:
    """Relay; the first signal ends it gently, the second at once."""
    import asyncio
    import contextlib
    import signal
    from collections.abc import Callable

    from stepbase.relay.process import main

    loop = asyncio.get_running_loop()
    task = asyncio.current_task()
    assert task is not None  # asyncio.run runs us as one
    signals = (signal.SIGINT, signal.SIGTERM)

    def first(stop: Callable[[], None]) -> None:
        stop()
        for number in signals:
            loop.add_signal_handler(number, task.cancel)

    def gently(stop: Callable[[], None]) -> None:
        for number in signals:
            loop.add_signal_handler(number, first, stop)

    for number in signals:
        loop.add_signal_handler(number, task.cancel)
    with contextlib.suppress(asyncio.CancelledError):
        await main(settings, gently)
