"""What is wrong with a set-up, in words: database, schema, rights, clocks, keys, apps.

Looks only; nothing is written, and no app is asked to register. A database that cannot be reached ends
it, because the rest hangs on that.
"""

import json
from dataclasses import dataclass
from enum import StrEnum

import asyncpg

from stepbase import clock
from stepbase.database import readers
from stepbase.database.dberrors import translated
from stepbase.database.session import probe
from stepbase.engine.caller import Caller
from stepbase.engine.settings import Settings
from stepbase.engine.store import SCHEMA_VERSION
from stepbase.errors import StoreError
from stepbase.protocol import signing

_MIN_SERVER = 15
# An app refuses signatures beyond five minutes.
_SKEW_BROKEN, _SKEW_SEEN = 240.0, 5.0
_APPLY = "apply the migrations (stepbase db apply, or supabase db push)"


class State(StrEnum):
    """How bad it is: a warning may be meant so."""

    OK = "ok"
    WARNING = "warning"
    BROKEN = "broken"


@dataclass(frozen=True, slots=True)
class Finding:
    """What was looked at, how it is, and what to do about it."""

    what: str
    state: State
    text: str


async def check(settings: Settings) -> list[Finding]:
    """Look at everything an engine with these settings needs."""
    findings = [_keys(settings)]
    try:
        with translated():
            connection = await asyncpg.connect(
                settings.database_url, timeout=10, command_timeout=30
            )
    except (StoreError, ValueError) as error:
        return [*findings, Finding("database", State.BROKEN, str(error))]
    try:
        with translated():
            findings += await _database(connection, settings)
    except StoreError as error:
        findings.append(Finding("database", State.BROKEN, str(error)))
    finally:
        connection.terminate()
    return findings


def _keys(settings: Settings) -> Finding:
    try:
        for key in settings.signing_keys:
            signing.hash_key(key)
    except ValueError as error:
        return Finding("keys", State.BROKEN, str(error))
    if settings.signing_keys and not settings.event_keys:
        text = "INNGEST_SIGNING_KEY is set and INNGEST_EVENT_KEY is not: nobody can send events"
        return Finding("keys", State.BROKEN, text)
    if settings.is_dev:
        text = "none (dev mode): nothing is signed, everybody may ask, only loopback can be bound"
        return Finding("keys", State.WARNING, text)
    return Finding("keys", State.OK, "calls are signed, the API asks for keys")


async def _database(
    connection: "asyncpg.Connection[asyncpg.Record]", settings: Settings
) -> list[Finding]:
    version = connection.get_server_version()
    fits = version.major >= _MIN_SERVER
    text = f"PostgreSQL {version.major}.{version.minor}"
    findings = [
        Finding("database", State.OK, text)
        if fits
        else Finding("database", State.BROKEN, f"{text}: {_MIN_SERVER} or later is needed"),
        await _session(connection, settings.database_url),
    ]
    if findings[-1].state is State.BROKEN:
        return findings  # no statement can be relied on there
    findings.append(await _clock(connection))
    schema = await _schema(connection)
    findings.append(schema)
    if schema.state is State.BROKEN:
        return findings
    rights = await _rights(connection)
    findings.append(rights)
    if rights.state is not State.BROKEN:
        findings += await _owner(connection, settings)
        findings += await _apps(connection, settings)
    return findings


async def _owner(
    connection: "asyncpg.Connection[asyncpg.Record]", settings: Settings
) -> list[Finding]:
    """Say if the database is another project's: an engine would not start on it."""
    owner = await connection.fetchval("select project from stepbase.relay_state")
    if readers.fits(owner, settings.project):
        return []
    text = f"the database belongs to {owner!r}, not to {settings.project!r}. {readers.ENGINE_ON_A_COPY}"
    return [Finding("project", State.BROKEN, text)]


async def _session(connection: "asyncpg.Connection[asyncpg.Record]", dsn: str) -> Finding:
    try:
        with translated():
            await probe(connection, dsn)
    except StoreError as error:
        return Finding("session", State.BROKEN, str(error))
    return Finding("session", State.OK, "notifications arrive")


async def _clock(connection: "asyncpg.Connection[asyncpg.Record]") -> Finding:
    before = clock.utcnow()
    there = await connection.fetchval("select clock_timestamp()")
    after = clock.utcnow()
    skew = (there - (before + (after - before) / 2)).total_seconds()
    way = f"the database's clock is {abs(skew):.1f} s {'ahead' if skew > 0 else 'behind'}"
    if abs(skew) > _SKEW_BROKEN:
        text = f"{way}: set this machine's clock; signatures more than 5 minutes off are refused"
        return Finding("clock", State.BROKEN, text)
    if abs(skew) > _SKEW_SEEN:
        return Finding("clock", State.WARNING, f"{way}; timers keep to the database's")
    return Finding("clock", State.OK, way)


async def _schema(connection: "asyncpg.Connection[asyncpg.Record]") -> Finding:
    if await connection.fetchval("select to_regnamespace('stepbase') is null"):
        return Finding("schema", State.BROKEN, f"there is no schema stepbase: {_APPLY}")
    if not await connection.fetchval("select has_schema_privilege('stepbase', 'usage')"):
        role = await connection.fetchval("select current_user")
        return Finding("schema", State.BROKEN, f"{role} may not use it: connect as its owner")
    if await connection.fetchval("select to_regclass('stepbase.schema_version') is null"):
        return Finding("schema", State.BROKEN, f"schema stepbase is not complete: {_APPLY}")
    try:
        found = await connection.fetchval("select version from stepbase.schema_version")
    except asyncpg.InsufficientPrivilegeError:
        found = None
    if found is None:
        return Finding("schema", State.OK, "its version may not be read")  # the rights say why
    if found != SCHEMA_VERSION:
        text = (
            f"version {found}, this engine knows {SCHEMA_VERSION}: {_APPLY}, or upgrade the engine"
        )
        return Finding("schema", State.BROKEN, text)
    return Finding("schema", State.OK, f"version {found}")


_REFUSED = """
select c.oid::regclass::text as name
  from pg_class c
  where c.relnamespace = 'stepbase'::regnamespace and c.relkind in ('r', 'p')
    and not (has_table_privilege(c.oid, 'select') and has_table_privilege(c.oid, 'insert')
             and has_table_privilege(c.oid, 'update') and has_table_privilege(c.oid, 'delete'))
union all
select p.oid::regprocedure::text
  from pg_proc p
  where p.pronamespace = 'stepbase'::regnamespace and p.prokind = 'f'
    and not has_function_privilege(p.oid, 'execute')
order by name
"""


async def _rights(connection: "asyncpg.Connection[asyncpg.Record]") -> Finding:
    role = await connection.fetchval("select current_user")
    refused = [row["name"] for row in await connection.fetch(_REFUSED)]
    if refused:
        shown = ", ".join(refused[:3]) + (f" and {len(refused) - 3} more" if refused[3:] else "")
        return Finding(
            "rights", State.BROKEN, f"{role} may not use {shown}: connect as the schema's owner"
        )
    if await connection.fetchval("select row_security_active('stepbase.runs')"):
        text = f"{role} sees no rows (row level security): connect as the schema's owner"
        return Finding("rights", State.BROKEN, text)
    return Finding("rights", State.OK, f"{role} may do what an engine does")


_REGISTERED = """
select a.name, a.url, count(f.function_id) filter (
         where f.archived_at is null
           and not exists (select from stepbase.functions o where f.slug = o.slug || '-failure')
       ) as functions
  from stepbase.apps a
  left join stepbase.functions f on f.app_id = a.app_id
  where a.archived_at is null
  group by a.name, a.url
  order by a.name
"""


async def _apps(
    connection: "asyncpg.Connection[asyncpg.Record]", settings: Settings
) -> list[Finding]:
    registered = await connection.fetch(_REGISTERED)
    known = {row["url"] for row in registered}
    findings = [
        Finding(f"app at {url}", State.WARNING, "not registered under this URL")
        for url in settings.sdk_urls
        if url not in known
    ]
    if not registered:
        text = "none is registered: send a PUT to an app's serve URL, or start with --sdk-url"
        return [*findings, Finding("apps", State.WARNING, text)]
    key = settings.signing_keys[0] if settings.signing_keys else None
    caller = Caller(signing_key=key, server_kind=settings.server_kind, timeout=10)
    try:
        for row in registered:
            state, text = await _app(caller, settings, row["url"], row["functions"])
            findings.append(Finding(f"app {row['name']}", state, f"{row['url']}: {text}"))
    finally:
        await caller.close()
    return findings


async def _app(caller: Caller, settings: Settings, url: str, functions: int) -> tuple[State, str]:
    try:
        status, body = await caller.inspect(url)
    except (OSError, ValueError) as error:
        return State.BROKEN, f"does not answer: {error}"
    try:
        about = json.loads(body)
    except ValueError:
        about = None
    if status in (401, 403):
        return State.BROKEN, f"refuses us (HTTP {status}): is its signing key ours, and its mode?"
    if status != 200 or not isinstance(about, dict):
        return State.BROKEN, f"HTTP {status}, not an app's answer: is that its serve URL?"
    mode, ours = about.get("mode"), settings.server_kind
    if mode in ("dev", "cloud") and mode != ours:
        need = "unset INNGEST_DEV there" if ours == "cloud" else "set INNGEST_DEV=1 there"
        return State.BROKEN, f"is in {mode} mode, the engine in {ours} mode: {need}"
    if not settings.is_dev and about.get("authentication_succeeded") is not True:
        return State.BROKEN, "does not accept our signature: its INNGEST_SIGNING_KEY is another"
    count = about.get("function_count")
    if isinstance(count, int) and count != functions:
        text = f"serves {count} functions, {functions} are registered: have it register again"
        return State.WARNING, text
    return State.OK, "1 function" if functions == 1 else f"{functions} functions"
