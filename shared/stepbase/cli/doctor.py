"""`stepbase doctor`: a set-up from end to end, and what to do about it."""

import click

from stepbase.history import acting, asking


@click.command("doctor", short_help="Look at a set-up from end to end, and say what to do.")
@asking.DATABASE_URL
@acting.URL
@click.option("--sdk-url", "-u", "sdk_urls", multiple=True, help="Serve URL of an app; repeatable.")
@asking.JSON
def command(
    database_url: str | None, url: str | None, sdk_urls: tuple[str, ...], as_json: bool
) -> None:
    """Look at a set-up from end to end, and say of each thing what is wrong and what to do.

    Database, schema, grants, keys, clock, apps, syncs, queue, outbox, who takes events, pg_cron, the engine
    and Supabase's API. Changes nothing. Exit code 1 if something is broken; warnings may be meant so.
    """
    import asyncio

    from stepbase import config
    from stepbase.engine.settings import Settings
    from stepbase.history.doctor import examine

    signing_keys, event_keys = config.keys()
    settings = Settings(
        database_url=asking.database(database_url),
        project=config.engine_project(),
        signing_keys=signing_keys,
        event_keys=event_keys,
        sdk_urls=sdk_urls,
    )
    asking.show_findings(asyncio.run(examine(settings, url)), as_json)
