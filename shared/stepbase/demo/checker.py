"""Checks the demo's books: recomputes what must be true, and says what is not.

    python checker.py DATABASE_URL DATA_FILE [--json]

It stands alone: the standard library and asyncpg, nothing of stepbase or of the loyalty domain, so a
mistake there cannot hide itself here. From the data file come who bought what and for how much; from
the database what was planned (demo.plan), the merchants' rates, and what became of it. The rules:

  * The award for a purchase is its cents times its merchant's rate, divided by 10,000, rounded down.
  * A purchase that was paid has exactly one award run. Kept, or refunded late, it is completed;
    refunded in between, it is completed or cancelled.
  * A kept purchase has one transaction of exactly its award; none if the award is zero.
  * A refunded purchase has one completed reversal run, and its transactions add up to nothing: none
    at all, or the award once and its reversal once. Refunded late, it has both.
  * A wallet holds the awards of its owner's kept purchases, which is the sum of its transactions.
  * Nothing is left: no run that has not ended, no event in the outbox, nothing in the queue.

Exit code 0 and OK, or 1 and what differs: `lost` (missing), `doubled` (there twice), `stuck` (not
ended), `wrong` (anything else).
"""

import argparse
import asyncio
import json
import sys
import uuid
from collections import Counter, defaultdict
from dataclasses import asdict, dataclass, field
from typing import Any

import asyncpg

NAMESPACE = uuid.UUID("6f9c2a54-0d0f-5b7e-9b55-1c0a3b9c2d11")
AWARD, REVERSAL = "currency-award", "currency-reverse"
KINDS = ("lost", "doubled", "stuck", "wrong")
SHOWN = 40

BOOKS = {
    "plan": "select lap, line, fate from demo.plan order by lap, line",
    "merchants": "select id, rate_bp from public.merchants",
    "purchases": "select id, user_id::text as user, merchant_id as merchant, amount_cents as cents, status"
    "  from public.purchases",
    "transactions": "select kind, source_id as source, user_id::text as user, amount"
    "  from public.wallet_transactions order by id",
    "wallets": "select user_id::text as user, balance from public.wallets",
    "runs": "select r.run_id, f.slug, e.payload #>> '{data,source_id}' as source, r.status,"
    "       coalesce(r.output, r.error)::text as result"
    "  from stepbase.runs r"
    "  left join stepbase.functions f on f.function_id = r.function_id"
    "  left join stepbase.events e on e.id = r.event_id"
    "  order by r.run_id",
    "outbox": "select id, name, coalesce(dead_at::text, '') as dead, coalesce(error, '') as error"
    "  from stepbase.outbox",
    "queue": "select run_id, kind from stepbase.queue",
}
Books = dict[str, list[Any]]


@dataclass(frozen=True)
class Problem:
    """One thing that is not as it must be: its kind, what it is about, and what is the matter.

    `purchase` is the id of the purchase it is about, if it is about one.
    """

    kind: str
    subject: str
    text: str
    purchase: str = ""


@dataclass(frozen=True)
class Expected:
    """A planned purchase, worked out from the file."""

    id: str
    name: str
    user: str
    merchant: str
    cents: int
    fate: str
    award: int

    @property
    def is_kept(self) -> bool:
        """It is paid and never refunded."""
        return self.fate == "kept"


@dataclass
class Audit:
    """The comparison: what was found wrong, and sums for a table."""

    expected: list[Expected]
    books: Books
    problems: list[Problem] = field(default_factory=list)
    totals: Counter[str] = field(default_factory=Counter)
    merchants: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))

    def __post_init__(self) -> None:
        """Compare everything."""
        self._runs = _grouped(self.books["runs"], "slug")
        self._transactions = _grouped(self.books["transactions"], "kind")
        self._rows = {row["id"]: row for row in self.books["purchases"]}
        for each in self.expected:
            self._check_purchase(each)
            if each.is_kept:
                self._check_kept(each)
            else:
                self._check_refunded(each)
            self._check_run(each, AWARD, each.fate != "unpaid", may_be_cancelled=not each.is_kept)
            self._check_run(each, REVERSAL, not each.is_kept)
            self._count(each)
        self._check_wallets()
        self._check_strangers()
        self._check_left()

    def report(self) -> dict[str, Any]:
        """Return everything as plain JSON."""
        kinds = Counter(problem.kind for problem in self.problems)
        return {
            "ok": not self.problems,
            **{kind: kinds[kind] for kind in KINDS},
            "totals": self.totals,
            "merchants": self.merchants,
            "problems": [asdict(problem) for problem in self.problems],
        }

    def text(self) -> str:
        """Return it for reading: the sums, then OK or what differs."""
        lines = [f"{number:>12} {name}" for name, number in self.totals.items()]
        lines += [f"{p.kind}: {p.subject}: {p.text}" for p in self.problems[:SHOWN]]
        if len(self.problems) > SHOWN:
            lines.append(f"… and {len(self.problems) - SHOWN} more")
        lines.append("OK" if not self.problems else f"{len(self.problems)} problems")
        return "\n".join(lines)

    def _say(self, kind: str, about: "Expected | str", text: str) -> None:
        if isinstance(about, Expected):
            self.problems.append(Problem(kind, about.name, text, about.id))
        else:
            self.problems.append(Problem(kind, about, text))

    def _check_purchase(self, each: Expected) -> None:
        row = self._rows.get(each.id)
        if row is None:
            self._say("lost", each, "the purchase is not in the database")
            return
        status = "paid" if each.is_kept else "refunded"
        found = (row["user"], row["merchant"], row["cents"], row["status"])
        wanted = (each.user, each.merchant, each.cents, status)
        if found != wanted:
            self._say("wrong", each, f"the purchase is {found}, not {wanted}")

    def _check_run(
        self, each: Expected, slug: str, wanted: bool, *, may_be_cancelled: bool = False
    ) -> None:
        runs = self._runs[slug, each.id]
        if len(runs) < wanted:
            self._say("lost", each, f"no run of {slug}")
        elif len(runs) > wanted:
            ids = ", ".join(run["run_id"] for run in runs)
            self._say("doubled", each, f"{len(runs)} runs of {slug}, not {int(wanted)}: {ids}")
        for run in runs:
            status, text = run["status"], f"run {run['run_id']} of {slug} is {run['status']}"
            if status in ("Scheduled", "Running"):
                self._say("stuck", each, text)
            elif status != "Completed" and not (status == "Cancelled" and may_be_cancelled):
                self._say("lost", each, f"{text}: {run['result']}")
            elif slug == AWARD:
                self._check_result(each, run)

    def _check_result(self, each: Expected, run: Any) -> None:
        """Compare what an ended award run says with what is in the books."""
        result = json.loads(run["result"] or "null")
        posted = bool(self._transactions["award", each.id])
        text = f"run {run['run_id']} is {run['status']} with {run['result']}"
        if run["status"] == "Cancelled":
            if each.fate == "late":
                self._say("wrong", each, f"{text}, but the refund came after it had ended")
        elif result == {"success": True, "amount": each.award}:
            if each.award and not posted:
                self._say("lost", each, f"{text}, but there is no transaction")
        elif result != {"success": False, "amount": 0} or each.fate in ("kept", "late") or posted:
            self._say("wrong", each, f"{text}, but its award is {each.award}")

    def _check_kept(self, each: Expected) -> None:
        self._check_transactions(each, "award", bool(each.award), each.award)
        self._check_transactions(each, "reversal", False, 0)

    def _check_refunded(self, each: Expected) -> None:
        posted = bool(self._transactions["award", each.id]) and each.award > 0
        posted = posted or (each.fate == "late" and each.award > 0)
        self._check_transactions(each, "award", posted, each.award)
        self._check_transactions(each, "reversal", posted, -each.award)

    def _check_transactions(self, each: Expected, kind: str, wanted: bool, amount: int) -> None:
        found = self._transactions[kind, each.id]
        if len(found) < wanted:
            self._say("lost", each, f"no {kind} of {amount}")
        elif len(found) > wanted:
            amounts = ", ".join(str(row["amount"]) for row in found)
            kind_of = "doubled" if wanted else "wrong"
            self._say(kind_of, each, f"{len(found)} × {kind} ({amounts}), not {int(wanted)}")
        for row in found[:wanted]:
            if (row["amount"], row["user"]) != (amount, each.user):
                text = f"{kind} of {row['amount']} for user {row['user']}"
                self._say("wrong", each, f"{text}, not {amount} for {each.user}")

    def _check_wallets(self) -> None:
        balances = {row["user"]: row["balance"] for row in self.books["wallets"]}
        wanted: Counter[str] = Counter()
        for each in self.expected:
            wanted[each.user] += each.award if each.is_kept else 0
        sums: Counter[str] = Counter()
        for row in self.books["transactions"]:
            sums[row["user"]] += row["amount"]
        users = sorted({*balances, *wanted, *sums})
        for user in users:
            balance = balances.get(user, 0)
            if balance != wanted[user]:
                self._say("wrong", f"wallet {user}", f"holds {balance}, not {wanted[user]}")
            elif balance != sums[user]:
                text = f"holds {balance}, but its transactions add up to {sums[user]}"
                self._say("wrong", f"wallet {user}", text)
        self.totals["customers"] = len(users)

    def _check_strangers(self) -> None:
        """Nothing may be there for a purchase that was never planned."""
        known = {each.id for each in self.expected}
        for book, name in (("purchases", "id"), ("transactions", "source"), ("runs", "source")):
            for row in self.books[book]:
                if row[name] not in known:
                    self._say(
                        "wrong", str(row[name]), f"in {book}, but never planned: {tuple(row)}"
                    )

    def _check_left(self) -> None:
        for row in self.books["outbox"]:
            kind, text = ("lost", "is dead") if row["dead"] else ("stuck", "is in the outbox")
            self._say(kind, f"event {row['id']}", f"{row['name']} {text} {row['error']}".strip())
        for row in self.books["queue"]:
            self._say(
                "stuck", f"run {row['run_id']}", f"has an item of kind {row['kind']} in the queue"
            )

    def _count(self, each: Expected) -> None:
        """Add to the sums; what is found, not what should be."""
        runs = self._runs[AWARD, each.id][:1]
        completed = [json.loads(run["result"]) for run in runs if run["status"] == "Completed"]
        awards, reversals = (self._transactions[kind, each.id] for kind in ("award", "reversal"))
        skipped = completed == [{"success": False, "amount": 0}]
        here = dict(
            purchases=1,
            awarded=each.is_kept and bool(awards),
            too_small=each.is_kept and not awards,
            refunded_in_time=not each.is_kept and not awards,
            taken_back=not each.is_kept and bool(awards),
            runs_completed=len(completed),
            runs_skipped=skipped,
            runs_cancelled=any(run["status"] == "Cancelled" for run in runs),
            reversals=len(reversals),
            due=each.award if each.is_kept else 0,
            booked=sum(row["amount"] for row in (*awards, *reversals)),
        )
        for sums in (self.merchants[each.merchant], self.totals):
            sums.update({name: int(number) for name, number in here.items()})


def _grouped(rows: list[Any], name: str) -> dict[tuple[str, str], list[Any]]:
    groups: dict[tuple[str, str], list[Any]] = defaultdict(list)
    for row in rows:
        groups[row[name], row["source"]].append(row)
    return groups


def read_file(path: str) -> dict[int, tuple[str, int]]:
    """Read customer and cents by line number."""
    lines = {}
    with open(path, encoding="utf-8") as file:
        for number, text in enumerate(file, 1):
            if text.strip():
                customer, *_, dollars = text.split()
                lines[number] = customer, int(dollars.replace(".", ""))
    return lines


async def read_database(dsn: str) -> Books:
    """Read all books in one snapshot."""
    connection = await asyncpg.connect(dsn)
    try:
        async with connection.transaction(isolation="repeatable_read", readonly=True):
            return {name: await connection.fetch(sql) for name, sql in BOOKS.items()}
    finally:
        await connection.close()


def expect(lines: dict[int, tuple[str, int]], books: Books) -> list[Expected]:
    """Work out every planned purchase from its line."""
    rates = {row["id"]: row["rate_bp"] for row in books["merchants"]}
    expected = []
    for lap, line, fate in books["plan"]:
        customer, cents = lines[line]
        merchant = customer[-1]
        expected.append(
            Expected(
                id=str(uuid.uuid5(NAMESPACE, f"purchase/{lap}/{line}")),
                name=f"line {line}" + (f" (lap {lap})" if lap else ""),
                user=str(uuid.uuid5(NAMESPACE, f"customer/{customer}")),
                merchant=merchant,
                cents=cents,
                fate=fate,
                award=cents * rates[merchant] // 10_000,
            )
        )
    return expected


def check(dsn: str, path: str) -> Audit:
    """Check the database at `dsn` against the data file at `path`."""
    books = asyncio.run(read_database(dsn))
    return Audit(expect(read_file(path), books), books)


def main() -> int:
    """Check, print, and return the exit code."""
    parser = argparse.ArgumentParser(description="Check the demo's books.")
    parser.add_argument("database_url")
    parser.add_argument("data_file")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    audit = check(options.database_url, options.data_file)
    text = json.dumps(audit.report()) if options.json else audit.text()
    sys.stdout.write(text + "\n")
    return 1 if audit.problems else 0


if __name__ == "__main__":
    sys.exit(main())
