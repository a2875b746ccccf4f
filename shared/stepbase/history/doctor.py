"""What is wrong with a set-up from end to end: what an engine's check sees, and all that is around an engine.

Looks only. It adds to `engine.check`: who takes events out of the outbox, what is stuck in it, timers that
nobody looks at, syncs that failed, functions that are paused, Supabase's roles, its REST API, pg_cron, and
whether the engine that people ask answers with these keys.
"""

import json
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias

import asyncpg

from stepbase import config
from stepbase.engine.check import Finding, State, check
from stepbase.engine.settings import Settings
from stepbase.errors import StoreError
from stepbase.history.acting import Api, RefusedError
from stepbase.history.reads import reading

Db: TypeAlias = "asyncpg.Connection[asyncpg.Record]"
Look = Callable[[Db], Awaitable[list[Finding]]]

_LATE_SECONDS = 60.0
_SECONDS = 10.0


async def examine(settings: Settings, url: str | None) -> list[Finding]:
    """Look at everything; `url` is where an engine is said to be, or None for what the environment names."""
    findings = await check(settings)
    is_readable = any(each.what == "rights" and each.state is State.OK for each in findings)
    if is_readable:
        for look in (_takers, _outbox, _timers, _syncs, _roles, _cron):
            findings += await _looked(settings.database_url, look)
    return [*findings, engine(url), rest_api()]


async def _looked(database_url: str, look: Look) -> list[Finding]:
    """Look at one thing, in a transaction of its own: one that cannot be seen hides no other."""
    try:
        async with reading(database_url) as db:
            return await look(db)
    except StoreError as error:
        what = look.__name__.strip("_")
        return [Finding(what, State.WARNING, f"could not be looked at: {error}")]


async def _takers(db: Db) -> list[Finding]:
    """Say who moves events out of the outbox."""
    counts = Counter(row["kind"] for row in await db.fetch(_TAKERS))
    text = ", ".join(_READERS[kind].format(n=n, s="s"[: n - 1]) for kind, n in counts.items())
    if len(counts) > 1:
        text += (
            ": each gets a part of the events. One kind must go: docs/relays.md, one kind of reader"
        )
        return [Finding("takes events", State.BROKEN, text)]
    if counts:
        return [Finding("takes events", State.OK, text)]
    text = "nobody: start stepbase engine (or stepbase relay, or stepbase.relay_start) on this database"
    return [Finding("takes events", State.WARNING, text)]


async def _outbox(db: Db) -> list[Finding]:
    row = await db.fetchrow("select * from stepbase.outbox_health")
    assert row is not None  # an aggregate
    lag = float(row["oldest_due_s"] or 0)
    text = f"{row['waiting']} events wait, {row['retrying']} of them after a failure"
    if lag > _LATE_SECONDS:
        text += (
            f"; the oldest has been due for {lag:.0f} s: whoever takes events is away or too slow"
        )
        found = [Finding("outbox", State.BROKEN, f"{text} (stepbase outbox list)")]
    else:
        found = [Finding("outbox", State.OK, text)]
    if row["dead"]:
        last = " ".join(str(row["last_dead_error"] or "").split())[:200]
        text = (
            f"{row['dead']} events will not be tried again; the last because: {last}. "
            "See stepbase outbox list, mend the cause, then stepbase outbox requeue --all"
        )
        found.append(Finding("dead letters", State.BROKEN, text))
    return found


async def _timers(db: Db) -> list[Finding]:
    row = await db.fetchrow("select * from stepbase.measures($1)", 10_000)
    assert row is not None  # an aggregate
    late = max(float(row["oldest_due_s"] or 0), float(row["oldest_ready_s"] or 0))
    text = f"{row['ready']} calls are ready, {row['leased']} under way"
    if late > _LATE_SECONDS:
        text += f"; the oldest has waited for {late:.0f} s: no engine is running, or all are full"
        return [Finding("queue", State.BROKEN, text)]
    return [Finding("queue", State.OK, text)]


async def _syncs(db: Db) -> list[Finding]:
    found = [
        Finding(
            f"sync of {row['name']}",
            State.BROKEN,
            f"failed: {row['error']}; mend it and have it register again (PUT {row['url']})",
        )
        for row in await db.fetch(_FAILED_SYNCS)
    ]
    paused = [row["slug"] for row in await db.fetch(_PAUSED)]
    if paused:
        text = f"paused: {', '.join(paused[:10])}; stepbase resume lets them go on"
        found.append(Finding("functions", State.WARNING, text))
    return found


async def _roles(db: Db) -> list[Finding]:
    """Look at what the API's roles may do: service_role enough, everybody else nothing."""
    rows = await db.fetch(_GRANTS)
    if not rows:
        text = "role service_role is not here: fine unless functions come through Supabase's API"
        return [Finding("grants", State.WARNING, text)]
    lacks = [row["name"] for row in rows if row["role"] == "service_role" and not row["may"]]
    leaks = [
        f"{row['role']} may execute {row['name']}"
        for row in rows
        if row["role"] != "service_role" and row["may"]
    ]
    if lacks or leaks:
        said = [*leaks, *(f"service_role may not execute {name}" for name in lacks)]
        text = f"{'; '.join(said)}: run migration …000900_grants.sql again"
        return [Finding("grants", State.BROKEN, text)]
    return [Finding("grants", State.OK, "service_role may call, anon and authenticated may not")]


async def _cron(db: Db) -> list[Finding]:
    """Look at the schedules of ours in pg_cron, where it is."""
    lacks = await db.fetchval("select stepbase.relay_lacks() from stepbase.relay_pg_net")
    if lacks:
        text = f"the relay on pg_net is set up, but extension {lacks} is not here"
        return [Finding("pg_cron", State.BROKEN, text)]
    if not await db.fetchval("select to_regclass('cron.job') is not null"):
        return []
    rows = await db.fetch(_CRON)
    failed = [f"{row['jobname']}: {row['return_message']}" for row in rows if row["failed"]]
    if failed:
        return [Finding("pg_cron", State.BROKEN, f"the last tick failed of {'; '.join(failed)}")]
    names = ", ".join(row["jobname"] for row in rows)
    return [Finding("pg_cron", State.OK, names or "nothing of stepbase is scheduled")]


def engine(url: str | None) -> Finding:
    """Ask the engine's API whether it answers with our keys."""
    inngest = config.inngest()
    if url is None and inngest.signing_key and inngest.api_origin == config.CLOUD_API_ORIGIN:
        text = "not asked: the environment means Inngest Cloud; --url names an engine of your own"
        return Finding("engine", State.OK, text)
    api = Api(url)
    is_named = url is not None or inngest.api_origin != config.CLOUD_API_ORIGIN
    try:
        api.ask("GET", "/v1/events?limit=1")
    except RefusedError as error:
        is_away = error.message.startswith("no engine answers")
        state = State.BROKEN if is_named or not is_away else State.WARNING
        return Finding("engine", state, error.message)
    return Finding("engine", State.OK, f"{api.url} answers, and takes our key")


def rest_api() -> Finding:
    """Ask Supabase's REST API for a call that cannot be: how it refuses says whether calls would work."""
    import httpx

    try:
        supabase = config.supabase()
    except (LookupError, ValueError) as error:
        text = f"not asked, {error}; step.rpc and step.table need it where the functions run"
        return Finding("Supabase API", State.WARNING, text)
    headers = {"apikey": supabase.secret_key}
    if supabase.secret_key.startswith("eyJ"):  # a legacy key is a token; the new ones are none
        headers["authorization"] = f"Bearer {supabase.secret_key}"
    try:
        answer = httpx.post(
            f"{supabase.url}/rest/v1/rpc/stepbase_call",
            json={"p_function": "public.stepbase_doctor_asks_for_what_is_not"},
            headers=headers,
            timeout=_SECONDS,
        )
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        text = f"does not answer at {supabase.url} ({type(error).__name__}: {error}): is SUPABASE_URL right?"
        return Finding("Supabase API", State.BROKEN, text)
    return _refusal(supabase.url, answer.status_code, answer.text)


def _refusal(url: str, status: int, text: str) -> Finding:
    try:
        body: Any = json.loads(text)
    except ValueError:
        body = None
    body = body if isinstance(body, dict) else {}
    code, message = body.get("code"), str(body.get("message") or text[:200])
    said = f"{url} answered HTTP {status}: {message}"
    if code == "42883":
        return Finding("Supabase API", State.OK, f"{url} passes calls on, with this secret key")
    if code == "PGRST202":
        hint = "apply the migrations, then notify pgrst, 'reload schema'"
    elif code == "42501":
        hint = "SUPABASE_SECRET_KEY must be a secret key (sb_secret_…), not a publishable one"
    elif status == 401:
        hint = "SUPABASE_SECRET_KEY is not a key of this project"
    elif status >= 500:
        hint = "is the project paused or restarting?"
    else:
        hint = "is SUPABASE_URL a project's URL?"
    return Finding("Supabase API", State.BROKEN, f"{said}: {hint}")


_TAKERS = "select kind from stepbase.outbox_readers()"
_READERS = {
    "engine": "{n} engine{s}",
    "relay": "{n} stepbase relay{s}",
    "pg_net": "the relay on pg_net",
}
_FAILED_SYNCS = """
select a.name, a.url, a.error from stepbase.apps a
  where a.archived_at is null and coalesce(a.error, '') <> '' order by a.name
"""
_PAUSED = """
select f.slug from stepbase.functions f
  where f.paused_at is not null and f.archived_at is null order by f.slug
"""
_GRANTS = """
select r.rolname as role, p.proname as name, has_function_privilege(r.oid, p.oid, 'execute') as may
  from pg_catalog.pg_proc p cross join pg_catalog.pg_roles r
  where p.pronamespace = 'public'::regnamespace
    and p.proname in ('stepbase_call', 'stepbase_write', 'stepbase_record', 'stepbase_accept')
    and r.rolname in ('service_role', 'anon', 'authenticated')
  order by role, name
"""
_CRON = """
select j.jobname, d.status = 'failed' as failed, d.return_message
  from cron.job j
  left join lateral (
    select x.status, x.return_message from cron.job_run_details x
      where x.jobid = j.jobid order by x.runid desc limit 1
  ) as d on true
  where j.command like '%stepbase.%' order by j.jobname
"""
