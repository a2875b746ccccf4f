"""Who may do what, read from the catalogue: everything granted is on a list, and nothing else is.

Owners and superusers are left out; `*` in a list of columns' place stands for the whole object.
"""

import asyncpg
import pytest

_API_ROLES = ("public", "anon", "authenticated", "service_role")

# Every function of stepbase, and of public and rewards, that a role other than its owner may execute.
_EXECUTE = {
    "service_role": {
        "public.awards_to_expire(text,timestamp with time zone,bigint,integer)",
        "public.calc_currency_for_source(text)",
        "public.email_of(uuid)",
        "public.expire_award(bigint)",
        "public.get_merchant_config(text)",
        "public.list_merchants()",
        "public.merchants_with_expiry()",
        "public.points_between(text,date,date,text)",
        "public.post_wallet_transaction(uuid,text,bigint)",
        "public.post_welcome_bonus(uuid,text,bigint)",
        "public.reverse_wallet_transaction(text)",
        "public.stepbase_accept(text,json,json,integer,bigint,integer)",
        "public.sales_between(text,date,date,text)",
        "public.stepbase_call(text,json,text,text,text,json,integer)",
        "public.stepbase_record(json)",
        "public.stepbase_write(text,text,json,text,text,text,json,integer,boolean)",
        "rewards.book_transaction(uuid,text,text,bigint)",
        "stepbase.call_statement(stepbase.callable)",
        "stepbase.change_part(regclass,text,text,jsonb)",
        "stepbase.check_event_name(text)",
        "stepbase.conflict_clause(regclass,text[],jsonb,boolean)",
        "stepbase.emit(text,jsonb,text,timestamp with time zone,jsonb,text)",
        "stepbase.emit_event(text,jsonb,text,timestamp with time zone,jsonb,text)",
        "stepbase.enqueue_event(text,json,text,timestamp with time zone,text)",
        "stepbase.filter_condition(regclass,text,jsonb)",
        "stepbase.fitting_functions(text,jsonb)",
        "stepbase.hash_args(jsonb,jsonb)",
        "stepbase.insert_parts(regclass,text,jsonb)",
        "stepbase.ledger_key(text,text,text,text,text)",
        "stepbase.ledger_take(text,text,text,text,jsonb)",
        "stepbase.now()",
        "stepbase.outbox_ack(text[],text)",
        "stepbase.outbox_alone(text)",
        "stepbase.outbox_claim(text,boolean)",
        "stepbase.outbox_doze(interval)",
        "stepbase.outbox_fail(text,text,timestamp with time zone,text)",
        "stepbase.outbox_give_back(text[],text,text,interval,integer,interval)",
        "stepbase.outbox_idle(interval)",
        "stepbase.outbox_others(text)",
        "stepbase.outbox_put_back(text[],text)",
        "stepbase.outbox_read_as(text)",
        "stepbase.outbox_readers()",
        "stepbase.outbox_report(interval,integer)",
        "stepbase.outbox_requeue(text[])",
        "stepbase.outbox_retry(text[])",
        "stepbase.outbox_state(stepbase.outbox,timestamp with time zone)",
        "stepbase.outbox_take(integer,text,interval)",
        "stepbase.outbox_take_some(integer,bigint,text,interval)",
        "stepbase.refuse_call(text,jsonb)",
        "stepbase.relay_delay(integer)",
        "stepbase.relay_home()",
        "stepbase.resolve_call(text,jsonb)",
        "stepbase.resolve_table(text)",
        "stepbase.run_call(text,json,text,jsonb)",
        "stepbase.run_once(text,text,text,text,jsonb,text,json,text,jsonb,integer)",
        "stepbase.take_rate(text,integer,interval,integer)",
        "stepbase.typed_columns(regclass,text[])",
        "stepbase.ulid_floor(timestamp with time zone)",
        "stepbase.write_arguments(jsonb)",
        "stepbase.write_statement(regclass,text,text,jsonb,boolean)",
    },
}

_LOOK = {"SELECT"}
_TABLES = {
    "authenticated": {
        "public.customers": _LOOK,
        "public.purchases": _LOOK,
        "public.wallet_transactions": _LOOK,
        "public.wallets": _LOOK,
    },
    "service_role": {
        "public.customers": {"SELECT", "INSERT", "UPDATE"},
        "public.merchant_rankings": {"SELECT", "INSERT", "UPDATE"},
        "public.merchant_reports": {"SELECT", "INSERT", "UPDATE"},
        "public.merchants": {"SELECT", "INSERT", "UPDATE"},
        "public.order_follow_ups": {"SELECT", "INSERT", "UPDATE"},
        "public.order_reviews": {"SELECT", "INSERT", "UPDATE"},
        "public.sales_journal": {"SELECT", "INSERT", "UPDATE"},
        "public.purchases": {"SELECT", "INSERT", "UPDATE"},
        "public.wallet_transactions": {"SELECT", "INSERT"},
        "public.wallets": {"SELECT", "INSERT", "UPDATE"},
        "stepbase.apps": _LOOK,
        "stepbase.attempts": _LOOK,
        "stepbase.callable_schemas": _LOOK,
        "stepbase.crons": _LOOK,
        "stepbase.event_overview": _LOOK,
        "stepbase.events": _LOOK,
        "stepbase.failing_functions": _LOOK,
        "stepbase.failing_steps": _LOOK,
        "stepbase.functions": _LOOK,
        "stepbase.ledger": {"SELECT", "INSERT", "UPDATE"},
        "stepbase.outbox": {"SELECT", "INSERT", "UPDATE", "DELETE"},
        "stepbase.outbox_health": _LOOK,
        "stepbase.buffers": _LOOK,
        "stepbase.not_started": _LOOK,
        "stepbase.not_started_events": _LOOK,
        "stepbase.pauses": _LOOK,
        "stepbase.queue": _LOOK,
        "stepbase.recorded_waits": _LOOK,
        "stepbase.relay_idle_until": {"USAGE", "UPDATE"},
        "stepbase.relay_pg_net": _LOOK,
        "stepbase.relay_state": {"SELECT", "UPDATE"},
        "stepbase.row_triggers": _LOOK,
        "stepbase.run_overview": _LOOK,
        "stepbase.run_timeline": _LOOK,
        "stepbase.runs": _LOOK,
        "stepbase.sender_rates": {"SELECT", "INSERT", "UPDATE", "DELETE"},
        "stepbase.slow_steps": _LOOK,
        "stepbase.steps": _LOOK,
        "stepbase.table_sizes": _LOOK,
        "stepbase.throughput_by_minute": _LOOK,
        "stepbase.waiting_runs": _LOOK,
    },
}

_SCHEMAS = {"service_role": {"rewards", "stepbase"}}

_OURS = "('stepbase', 'public', 'rewards')"


@pytest.mark.parametrize("role", _API_ROLES)
async def test_functions_are_executable_by_whom_the_list_says(
    db: asyncpg.Connection, role: str
) -> None:
    rows = await db.fetch(
        f"""
        select p.oid::regprocedure::text as name
        from pg_proc as p
        join pg_namespace as n on n.oid = p.pronamespace
        where n.nspname in {_OURS} and has_function_privilege($1, p.oid, 'execute')
        """,
        role,
    )

    found = {name if "." in name.partition("(")[0] else f"public.{name}" for [name] in rows}
    assert found == _EXECUTE.get(role, set())


@pytest.mark.parametrize("role", _API_ROLES)
async def test_tables_and_views_are_open_to_whom_the_list_says(
    db: asyncpg.Connection, role: str
) -> None:
    rows = await db.fetch(
        f"""
        select n.nspname || '.' || c.relname as name, array_agg(a.privilege_type) as privileges
        from pg_class as c
        join pg_namespace as n on n.oid = c.relnamespace
        cross join aclexplode(c.relacl) as a
        where n.nspname in {_OURS} and c.relkind in ('r', 'p', 'v', 'm', 'f', 'S')
          and a.grantee = (case when $1 = 'public' then 0 else $1::regrole::oid end)
        group by 1
        """,
        role,
    )

    assert {row["name"]: set(row["privileges"]) for row in rows} == _TABLES.get(role, {})


@pytest.mark.parametrize("role", _API_ROLES)
async def test_schemas_are_open_to_whom_the_list_says(db: asyncpg.Connection, role: str) -> None:
    rows = await db.fetch(
        """
        select nspname, has_schema_privilege($1, oid, 'create') as may_create
        from pg_namespace
        where nspname in ('stepbase', 'rewards') and has_schema_privilege($1, oid, 'usage')
        """,
        role,
    )

    assert {row["nspname"] for row in rows} == _SCHEMAS.get(role, set())
    assert not any(row["may_create"] for row in rows)


async def test_no_column_is_granted_apart(db: asyncpg.Connection) -> None:
    columns = await db.fetch(
        f"""
        select a.attrelid::regclass, a.attname
        from pg_attribute as a
        join pg_class as c on c.oid = a.attrelid
        join pg_namespace as n on n.oid = c.relnamespace
        where n.nspname in {_OURS} and a.attacl is not null
        """
    )

    assert columns == []


async def test_row_level_security_is_on_for_every_table(db: asyncpg.Connection) -> None:
    without = await db.fetchval(
        f"""
        select array_agg(c.oid::regclass::text)
        from pg_class as c
        join pg_namespace as n on n.oid = c.relnamespace
        where n.nspname in {_OURS} and c.relkind in ('r', 'p') and not c.relrowsecurity
        """
    )

    assert without is None


async def test_views_show_what_their_reader_may_read(db: asyncpg.Connection) -> None:
    others = await db.fetchval(
        f"""
        select array_agg(c.oid::regclass::text)
        from pg_class as c
        join pg_namespace as n on n.oid = c.relnamespace
        where n.nspname in {_OURS} and c.relkind = 'v'
          and not 'security_invoker=true' = any (coalesce(c.reloptions, '{{}}'))
        """
    )

    assert others is None


async def test_every_function_has_an_empty_search_path(db: asyncpg.Connection) -> None:
    others = await db.fetchval(
        f"""
        select array_agg(p.oid::regprocedure::text)
        from pg_proc as p
        join pg_namespace as n on n.oid = p.pronamespace
        where n.nspname in {_OURS}
          and not 'search_path=""' = any (coalesce(p.proconfig, '{{}}'))
        """
    )

    assert others is None


async def test_only_row_triggers_and_reports_run_with_their_owners_rights(
    db: asyncpg.Connection,
) -> None:
    definers = await db.fetch(
        f"""
        select p.proname, p.prorettype::regtype::text as returns
        from pg_proc as p
        join pg_namespace as n on n.oid = p.pronamespace
        where n.nspname in {_OURS} and p.prosecdef
          -- Who may report calls need not be able to write runs.
          and p.oid <> 'public.stepbase_record'::regproc
        """
    )

    assert {row["returns"] for row in definers} == {"trigger"}
    assert all(row["proname"].startswith("emit_") for row in definers)


async def test_everything_survives_a_crash_but_rates_and_what_tells_of_it(
    db: asyncpg.Connection,
) -> None:
    unlogged = await db.fetchval(
        "select array_agg(relname::text order by relname) from pg_class"
        " where relnamespace = 'stepbase'::regnamespace and relpersistence <> 'p' and relkind = 'r'"
    )

    assert unlogged == ["relay_life", "sender_rates"]
