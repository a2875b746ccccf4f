"""`stepbase send`: an event, as an app would send it."""

import click

from stepbase.history import acting, asking


@click.command("send", short_help="Send an event.")
@click.argument("name")
@click.argument("data", default="{}")
@acting.URL
@click.option("--id", "event_id", help="Its id: an event with the same id starts nothing again.")
@click.option("--ts", help="When it happened: a time as in 2026-11-24T12:00Z, or milliseconds.")
@click.option("--user", help="Whom it is of: a JSON object.")
@asking.JSON_OBJECT
def command(
    name: str,
    data: str,
    url: str | None,
    event_id: str | None,
    ts: str | None,
    user: str | None,
    as_json: bool,
) -> None:
    """Send event NAME with DATA, a JSON object; - reads it from standard input.

    Uses the event key in INNGEST_EVENT_KEY, if there is one. Prints the event's id.
    """
    import json
    import sys

    text = sys.stdin.read() if data == "-" else data
    event: dict[str, object] = {"name": name, "data": asking.json_object("DATA", text)}
    if event_id is not None:
        event["id"] = event_id
    if ts is not None:
        event["ts"] = asking.milliseconds("--ts", ts)
    if user is not None:
        event["user"] = asking.json_object("--user", user)
    sent = acting.Api(url).send(event)
    click.echo(json.dumps({"id": sent, "name": name}) if as_json else sent)
    if not as_json and sys.stdout.isatty():
        click.echo(f"what came of it: stepbase events --id {sent}", err=True)
