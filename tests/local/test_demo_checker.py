"""The checker finds what is wrong in the books: a planted error of every kind, and none where there is none.

The books hold seven purchases, one of each fate, and all that must follow from them.
"""

import json
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import asyncpg
import pytest
from tests.conftest import Connect

import stepbase.demo
from stepbase.demo.fate import merchants
from stepbase.demo.purchase import Purchase, read

CHECKER = Path(stepbase.demo.__file__).with_name("checker.py")

# (line of the file, fate, award, status of the award's run, what it returned)
GIVEN = '{"success":true,"amount":%d}'
NOTHING = '{"success":false,"amount":0}'
STORY = [
    ("00011 0001 19970101 1 10.00", "kept", 15, "Completed", GIVEN % 15),
    ("00011 0001 19970102 1 20.00", "kept", 30, "Completed", GIVEN % 30),
    ("00019 0002 19970101 1 5.00", "kept", 0, "Completed", GIVEN % 0),
    ("00012 0003 19970101 1 10.00", "late", 20, "Completed", GIVEN % 20),
    ("00017 0004 19970101 1 10.00", "waiting", 0, "Cancelled", '{"name":"Cancelled"}'),
    ("00015 0005 19970101 1 10.00", "unpaid", 0, None, None),
    ("00016 0006 19970101 1 10.00", "overtaken", 0, "Completed", NOTHING),
]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """The file of purchases."""
    file = tmp_path / "purchases.txt"
    file.write_text("".join(f"{line[0]}\n" for line in STORY))
    return file


@pytest.fixture
async def books(connect: Connect, data: Path) -> AsyncIterator[asyncpg.Connection]:
    """A connection to a database whose books are right."""
    connection = await connect()
    await connection.execute(
        "create schema demo; create table demo.plan (lap int, line int, fate text)"
    )
    for merchant in merchants(0):
        await connection.execute(
            "insert into public.merchants (id, name, rate_bp) values ($1, $1, $2)",
            merchant.merchant_id,
            merchant.rate_bp,
        )
    for slug in ("currency-award", "currency-reverse"):
        await connection.execute(
            "insert into stepbase.functions (function_id, app_id, slug, name, config)"
            " values (gen_random_uuid(), gen_random_uuid(), $1, $1, '{}')",
            slug,
        )
    for purchase, (_, fate, award, status, result) in zip(read(data), STORY, strict=True):
        await add(connection, purchase, fate, award, status, result)
    # What the row triggers wrote has become the runs above.
    await connection.execute("delete from stepbase.outbox")
    yield connection


async def add(
    db: asyncpg.Connection,
    purchase: Purchase,
    fate: str,
    award: int,
    status: str | None,
    result: str | None,
) -> None:
    """Enter one purchase and everything that follows from it."""
    source = purchase.purchase_id
    await db.execute("insert into demo.plan values (0, $1, $2)", purchase.line, fate)
    await db.execute(
        "insert into public.purchases (id, merchant_id, user_id, amount_cents, status)"
        " values ($1, $2, $3, $4, 'paid')",
        source, purchase.merchant_id, purchase.user_id, purchase.cents,
    )  # fmt: skip
    if status is not None:
        await add_run(db, "currency-award", source, status, result)
    if award:
        await db.execute(
            "select public.post_wallet_transaction($1, $2, $3)", purchase.user_id, source, award
        )
    if fate != "kept":
        await db.execute("update public.purchases set status = 'refunded' where id = $1", source)
        await db.execute("select public.reverse_wallet_transaction($1)", source)
        await add_run(db, "currency-reverse", source, "Completed", '{"outcome":"skipped"}')


async def add_run(
    db: asyncpg.Connection, slug: str, source: str, status: str, result: str | None
) -> None:
    """Enter an ended run and its event."""
    event, column = uuid4().hex, "output" if status == "Completed" else "error"
    await db.execute(
        "insert into stepbase.events (id, name, payload, ts, received_at)"
        " values ($1, 'e', $2, now(), now())",
        event, json.dumps({"data": {"source_id": source}}),
    )  # fmt: skip
    await db.execute(
        f"insert into stepbase.runs (run_id, function_id, fn_version, event_id, status, {column},"
        "  created_at, ended_at)"
        " select $1, function_id, 1, $2, $3, $4, now(), now()"
        "   from stepbase.functions where slug = $5",
        uuid4().hex, event, status, result, slug,
    )  # fmt: skip


def run_checker(database: str, data: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Run the checker as the script that it is."""
    return subprocess.run(
        [sys.executable, "-I", str(CHECKER), database, str(data), *options],
        capture_output=True,
        text=True,
        timeout=30,
    )


def check(database: str, data: Path) -> dict[str, Any]:
    """Return the checker's report."""
    answer = run_checker(database, data, "--json")
    report: dict[str, Any] = json.loads(answer.stdout)
    assert answer.returncode == (0 if report["ok"] else 1), answer.stderr
    return report


def test_right_books_are_ok(books: asyncpg.Connection, database: str, data: Path) -> None:
    report = check(database, data)

    assert report["problems"] == []
    assert report["ok"] is True
    assert report["totals"] == {
        "purchases": 7,
        "awarded": 2,
        "too_small": 1,
        "refunded_in_time": 3,
        "taken_back": 1,
        "runs_completed": 5,
        "runs_skipped": 1,
        "runs_cancelled": 1,
        "reversals": 1,
        "due": 45,
        "booked": 45,
        "customers": 6,
    }


async def test_without_json_it_ends_in_ok_or_what_differs(
    books: asyncpg.Connection, database: str, data: Path
) -> None:
    right = run_checker(database, data)
    await books.execute("update public.wallets set balance = balance + 1")
    wrong = run_checker(database, data)

    assert right.stdout.splitlines()[-1] == "OK"
    assert wrong.stdout.splitlines()[-1] == "2 problems"
    assert "holds 46, not 45" in wrong.stdout


# What is planted (with the purchase of line n as {n}), and what the checker must say of it.
AWARD_RUN = (
    "(select r.run_id from stepbase.runs r join stepbase.events e on e.id = r.event_id"
    " join stepbase.functions f on f.function_id = r.function_id"
    " where f.slug = 'currency-award' and e.payload #>> '{{data,source_id}}' = '{%d}')"
)
DOUBLE = (
    "alter table public.wallet_transactions drop constraint a_source_has_one_transaction_of_a_kind;"
    "insert into public.wallet_transactions (user_id, kind, source_id, amount)"
    "  select user_id, kind, source_id, amount from public.wallet_transactions"
    "   where source_id = '{%d}' and kind = '%s'"
)
PLANTED = {
    "a transaction is removed": (
        "delete from public.wallet_transactions where source_id = '{1}'",
        [("lost", "line 1", "no award of 15"), ("lost", "line 1", "there is no transaction")],
    ),
    "a transaction is doubled": (
        DOUBLE % (1, "award"),
        [("doubled", "line 1", "2 × award (15, 15), not 1")],
    ),
    "a reversal is doubled": (
        DOUBLE % (4, "reversal"),
        [("doubled", "line 4", "2 × reversal (-20, -20), not 1")],
    ),
    "a reversal is missing": (
        "delete from public.wallet_transactions where source_id = '{4}' and kind = 'reversal'",
        [("lost", "line 4", "no reversal of -20")],
    ),
    "a kept purchase was reversed": (
        "insert into public.wallet_transactions (user_id, kind, source_id, amount)"
        " select user_id, 'reversal', id, -15 from public.purchases where id = '{1}'",
        [("wrong", "line 1", "1 × reversal (-15), not 0")],
    ),
    "a transaction is of another amount": (
        "update public.wallet_transactions set amount = 16 where source_id = '{1}'",
        [("wrong", "line 1", "award of 16")],
    ),
    "a zero award has a transaction": (
        "insert into public.wallets (user_id) select user_id from public.purchases where id = '{3}';"
        "insert into public.wallet_transactions (user_id, kind, source_id, amount)"
        " select user_id, 'award', id, 1 from public.purchases where id = '{3}'",
        [("wrong", "line 3", "1 × award (1), not 0")],
    ),
    "a transaction is for no purchase": (
        "insert into public.wallet_transactions (user_id, kind, source_id, amount)"
        " select user_id, 'award', 'nowhere', 1 from public.purchases where id = '{1}'",
        [("wrong", "nowhere", "never planned")],
    ),
    "a wallet is changed": (
        "update public.wallets set balance = balance - 1 where balance > 0",
        [("wrong", "wallet ", "holds 44, not 45")],
    ),
    "a wallet is missing": (
        "set session_replication_role = replica; delete from public.wallets where balance > 0",
        [("wrong", "wallet ", "holds 0, not 45")],
    ),
    "a run is left running": (
        f"update stepbase.runs set status = 'Running', ended_at = null where run_id = {AWARD_RUN % 1}",
        [("stuck", "line 1", "currency-award is Running")],
    ),
    "a run is missing": (
        f"delete from stepbase.runs where run_id = {AWARD_RUN % 1}",
        [("lost", "line 1", "no run of currency-award")],
    ),
    "a run has failed": (
        f"update stepbase.runs set status = 'Failed' where run_id = {AWARD_RUN % 1}",
        [("lost", "line 1", "currency-award is Failed")],
    ),
    "a kept purchase's run was cancelled": (
        f"update stepbase.runs set status = 'Cancelled' where run_id = {AWARD_RUN % 1}",
        [("lost", "line 1", "currency-award is Cancelled")],
    ),
    "a run was cancelled before its late refund": (
        f"update stepbase.runs set status = 'Cancelled' where run_id = {AWARD_RUN % 4}",
        [("wrong", "line 4", "the refund came after it had ended")],
    ),
    "an event has two runs": (
        "insert into stepbase.runs"
        " (run_id, function_id, fn_version, event_id, status, output, created_at, ended_at)"
        " select 'again', function_id, fn_version, event_id, status, output, created_at, ended_at"
        f" from stepbase.runs where run_id = {AWARD_RUN % 1}",
        [("doubled", "line 1", "2 runs of currency-award, not 1")],
    ),
    "a purchase that was never paid has an award run": (
        "update demo.plan set fate = 'unpaid' where line = 7",
        [("doubled", "line 7", "1 runs of currency-award, not 0")],
    ),
    "a run says another amount": (
        """update stepbase.runs set output = '{{"success":true,"amount":14}}'"""
        f" where run_id = {AWARD_RUN % 1}",
        [("wrong", "line 1", "but its award is 15")],
    ),
    "a run says that it gave nothing": (
        """update stepbase.runs set output = '{{"success":false,"amount":0}}'"""
        f" where run_id = {AWARD_RUN % 1}",
        [("wrong", "line 1", "but its award is 15")],
    ),
    "a purchase is missing": (
        "delete from public.purchases where id = '{2}'",
        [("lost", "line 2", "not in the database")],
    ),
    "a purchase is of another amount": (
        "update public.purchases set amount_cents = 1 where id = '{2}'",
        [("wrong", "line 2", "the purchase is")],
    ),
    "a refund did not happen": (
        "alter table public.purchases disable trigger user;"
        "update public.purchases set status = 'paid' where id = '{5}'",
        [("wrong", "line 5", "'paid'), not")],
    ),
    "an event is left in the outbox": (
        "select stepbase.emit('a/b', '{{}}', id => 'left')",
        [("stuck", "event left", "a/b is in the outbox")],
    ),
    "an event is dead": (
        "select stepbase.emit('a/b', '{{}}', id => 'left');"
        "update stepbase.outbox set dead_at = now(), error = 'no good'",
        [("lost", "event left", "a/b is dead no good")],
    ),
    "an item is left in the queue": (
        "insert into stepbase.queue (run_id, job, kind, ready, score)"
        " values ('r', 'main', 'edge', true, now())",
        [("stuck", "run r", "has an item of kind edge in the queue")],
    ),
}


@pytest.mark.parametrize("name", PLANTED)
async def test_a_planted_error_is_found(
    books: asyncpg.Connection, database: str, data: Path, name: str
) -> None:
    sql, expected = PLANTED[name]
    ids = [""] + [purchase.purchase_id for purchase in read(data)]
    await books.execute(sql.format(*ids))

    report = check(database, data)

    found = [(each["kind"], each["subject"], each["text"]) for each in report["problems"]]
    assert report["ok"] is False
    for kind, subject, text in expected:
        assert any(
            each[0] == kind and each[1].startswith(subject) and text in each[2] for each in found
        ), found
