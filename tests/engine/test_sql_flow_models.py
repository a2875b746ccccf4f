"""Flow control against models of a few lines: slots, turns, priorities and idempotency in any order."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from math import ceil

import asyncpg
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support import engine_sql as sql
from tests.support.engine_lanes import begin, ids, keep, lane
from tests.support.engine_sql import Hands, completed, once, settling, step, went_on

from stepbase.engine.effects import NewItem, Settlement, StepRow, Verdict

DAY = 86_400


def played(dsn: str, play: Callable[[Hands], Awaitable[None]]) -> None:
    """Play a game in a transaction of its own, at noon."""

    async def run() -> None:
        connection = await asyncpg.connect(dsn)
        try:
            async with asyncio.timeout(30):
                transaction = connection.transaction()
                await transaction.start()
                hands = Hands(connection)
                await hands.at(0)
                await play(hands)
                await transaction.rollback()
        finally:
            await connection.close()

    asyncio.run(run())


# --- slots: a key is counted by the calls that are leased, and by nothing else ---------------------

# Three kinds of runs; the second key of the first two is shared with another function.
KINDS = {"f": (1, ("own", "shared")), "g": (2, ("shared",)), "h": (1, ("other", "shared"))}
LIMITS = {1: [2, 3], 2: [3]}
MOST = {"own": 2, "other": 2, "shared": 3}
OPENING = Settlement(
    Verdict.PARK,
    planning=1,
    steps=tuple(StepRow(h, h, "StepPlanned", "planned", "null") for h in "xy"),
    items=tuple(NewItem(h, "step") for h in "xy"),
)
EFFECTS = {
    "end": completed(),
    "retry": Settlement(Verdict.TIMER, delay=5.0, attempt=1),
    "back": Settlement(Verdict.READY),
    "go on": went_on(step("s")),
    "open": OPENING,
}


class Engines:
    """Two engines that lease and settle; what they hold, and the keys of every run."""

    def __init__(self, hands: Hands) -> None:
        self.hands = hands
        self.held: dict[tuple[str, str], int] = {}
        self.keys: dict[str, tuple[str, ...]] = {}
        self.now = 0

    async def move(self, name: str, n: int) -> None:
        """Do one thing, whatever it is possible to do."""
        if name in KINDS:
            await self.start(name, n)
        elif name == "lease":
            rows = await self.hands.of("AB"[n % 2]).lease(n + 1)
            self.held |= {(row["run_id"], row["job"]): row["gen"] for row in rows}
        elif name == "pass":
            self.now += 20  # two of them end every lease
            await self.hands.at(self.now)
        elif self.held:
            run_id, job = sorted(self.held)[n % len(self.held)]
            await (self.cancel(run_id) if name == "cancel" else self.settle(run_id, job, name))

    async def start(self, kind: str, count: int) -> None:
        number, keys = KINDS[kind]
        where = lane(*keys, function=number)
        for run in await begin(self.hands, count, where, function=sql.function(number)):
            self.keys[run.run_id] = keys

    async def cancel(self, run_id: str) -> None:
        await self.hands.cancel([run_id], "{}")
        self.held = {held: gen for held, gen in self.held.items() if held[0] != run_id}

    async def settle(self, run_id: str, job: str, name: str) -> None:
        effects = EFFECTS[name]
        if job != "main":
            effects = Settlement(Verdict.DONE, steps=(step(job),))
        item = await self.hands.item(run_id, job)
        gen = self.held.pop((run_id, job))
        if item is None or item["owner"] is None:
            return  # its lease has ended
        settled = await self.hands.of(item["owner"]).settle_one(run_id, gen, effects, job=job)
        if settled.outcome != "lost" and effects.verdict is Verdict.CONTINUE:
            self.held[run_id, job] = settled.gen

    async def check(self) -> None:
        """Every leased call counts for its keys and no other, and no key has more than its limit."""
        counts: Counter[str] = Counter()
        for row in await self.hands.connection.fetch(
            "select run_id, key_1, key_2 from stepbase.queue where owner is not null"
        ):
            assert tuple(k for k in (row["key_1"], row["key_2"]) if k) == self.keys[row["run_id"]]
            counts.update(self.keys[row["run_id"]])
        assert all(count <= MOST[key] for key, count in counts.items())


@settings(max_examples=40, deadline=None)
@given(
    moves=st.lists(
        st.tuples(
            st.sampled_from([*KINDS, "lease", "lease", *EFFECTS, "cancel", "pass"]),
            st.integers(0, 5),
        ),
        max_size=40,
    )
)
def test_slots_are_the_leased_calls_of_a_key_and_never_more_than_its_limit(
    shared_database: str, moves: Sequence[tuple[str, int]]
) -> None:
    async def play(hands: Hands) -> None:
        for number, limits in LIMITS.items():
            await keep(hands, number, limits=limits)
        engines = Engines(hands)
        for name, n in moves:
            await engines.move(name, n)
            await engines.check()

    played(shared_database, play)


# --- turns ---------------------------------------------------------------------------------------


@settings(max_examples=15, deadline=None)
@given(sizes=st.lists(st.sampled_from([1, 1, 1, 2, 5, 40]), min_size=1, max_size=150))
def test_a_lane_that_has_a_place_waits_for_no_more_than_one_round_of_the_others(
    shared_database: str, sizes: Sequence[int]
) -> None:
    async def play(hands: Hands) -> None:
        await keep(hands, limits=[1])
        lanes = {f"k{place:03}": size for place, size in enumerate(sizes)}
        for name, size in lanes.items():
            await begin(hands, size, lane(name))
        unserved = set(lanes)
        # A lease looks at 64 lanes, of which each has a place: all of its calls end before the next.
        for _ in range(ceil(len(lanes) / 64)):
            rows = await hands.lease(64)
            unserved -= {row["lane"].removeprefix("1 ") for row in rows}
            ended = [settling(row["run_id"], row["gen"], completed()) for row in rows]
            if ended:
                await hands.settle(ended)
        assert unserved == set()

    played(shared_database, play)


@settings(max_examples=30, deadline=None)
@given(
    runs=st.lists(
        st.tuples(st.integers(0, 100), st.integers(-50, 50)), min_size=1, max_size=12, unique=True
    ),
    is_limited=st.booleans(),
)
def test_runs_take_their_turns_by_arrival_less_priority(
    shared_database: str, runs: list[tuple[int, int]], is_limited: bool
) -> None:
    """The model: sorted by second of arrival − priority; of two that are equal, the one that came first."""

    async def play(hands: Hands) -> None:
        await keep(hands, limits=[1])
        expected: list[tuple[int, int, str]] = []
        for second, priority in sorted(runs):
            # A thousandth of a second between those of one second, so that one of them came first.
            await hands.at(second + len(expected) / 1000)
            options = {"lane": lane("k")} if is_limited else {}
            run = await hands.begin(priority=float(priority), **options)
            expected.append((second - priority, len(expected), run.run_id))
        order = []
        for _ in runs:
            [row] = await hands.lease(1)
            order.append(row["run_id"])
            await hands.settle_one(row["run_id"], row["gen"], completed())
        assert order == [run_id for _, _, run_id in sorted(expected)]

    played(shared_database, play)


# --- idempotency ---------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(
    arrivals=st.lists(
        st.tuples(
            st.integers(0, 3 * DAY), st.lists(st.sampled_from("abc"), min_size=1, max_size=4)
        ),
        max_size=12,
    )
)
def test_a_key_starts_one_run_in_each_day_from_its_last_start(
    shared_database: str, arrivals: list[tuple[int, list[str]]]
) -> None:
    async def play(hands: Hands) -> None:
        until: dict[str, int] = {}
        for now, keys in sorted(arrivals):
            await hands.at(now)
            starts = [sql.start(i, rules=(once(key),)) for i, key in enumerate(keys, 1)]
            rows = await hands.take_in([sql.event() for _ in starts], starts)
            expected = []
            for start, key in zip(starts, keys, strict=True):
                if until.get(key, 0) <= now:
                    until[key] = now + DAY
                    expected.append(start.run_id)
            assert ids(rows) == expected
            # A sweep at any time forgets nothing that still holds.
            await hands.sweep(timedelta(days=9), timedelta(days=9), timedelta(days=9), 100)

    played(shared_database, play)
