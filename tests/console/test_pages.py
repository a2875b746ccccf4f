"""Every page over real HTTP, with scripts off: what it shows, as a page and as JSON."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import asyncpg
import pytest
from tests.console.conftest import Shown

from stepbase.console.site import PAGES

MakeRun = Callable[..., Awaitable[dict[str, Any]]]
_ERROR = {
    "name": "ValueError",
    "message": "amount is negative: -12",
    "stack": "Traceback: line 7",
    "cause": {"name": "KeyError", "message": "no such merchant"},
}


async def test_every_page_is_shown_on_an_empty_database(shown: Shown) -> None:
    for path in PAGES:
        if "{" not in path:
            assert "<h1>" in await shown.page(path), path
            assert isinstance(await shown.data(path), dict), path


async def test_a_run_is_found_and_shown(shown: Shown, make_run: MakeRun) -> None:
    run = await make_run()

    page = await shown.text(f"/runs/{run['run_id']}")
    data = await shown.data(f"/runs/{run['run_id']}")
    step = await shown.page(f"/runs/{run['run_id']}/part?step={data['steps'][0]['hash']}")

    assert run["run_id"] in await shown.page("/runs")
    assert "Completed" in page and "app-f" in page and '"id": 7' in page
    assert data["run"]["status"] == "Completed"
    assert "&#34;one&#34;" in step


async def test_a_failure_is_told_with_its_cause(shown: Shown, make_run: MakeRun) -> None:
    run = await make_run(error=_ERROR)

    page, home = await shown.page(f"/runs/{run['run_id']}"), await shown.page("/")
    function = await shown.page("/functions/app-f")

    for text in (page, function):
        assert "amount is negative: -12" in text and "no such merchant" in text
    assert "Traceback: line 7" in page
    assert "1 of 1 runs failed" in home and run["run_id"] in home


@pytest.mark.parametrize(
    ("query", "is_found"),
    [
        ("status=Completed", True),
        ("status=Failed", False),
        ("status=live", False),
        ("function=app-f", True),
        ("event=app/f", True),
        ("event=app/g", False),
        ("since=1h", True),
        ("text=needle", True),
        ("text=n%25dle", False),
        ("text=hay", False),
        ("status=Completed&function=app-f&event=app/f&since=10m&text=needle", True),
    ],
)
async def test_runs_are_searched(
    shown: Shown, make_run: MakeRun, query: str, is_found: bool
) -> None:
    run = await make_run(event={"what": "a needle"})

    found = await shown.data(f"/runs?{query}")

    assert [each["run_id"] for each in found["runs"]] == ([run["run_id"]] if is_found else [])


async def test_a_run_is_found_by_its_id(shown: Shown, make_run: MakeRun) -> None:
    run = await make_run()
    await make_run()

    found = await shown.data(f"/runs?text={run['run_id'].lower()}")

    assert [each["run_id"] for each in found["runs"]] == [run["run_id"]]


async def test_runs_are_paged_by_key(shown: Shown, database: str, make_run: MakeRun) -> None:
    await make_run()
    connection = await asyncpg.connect(database)
    await connection.execute(
        "insert into stepbase.runs (run_id, function_id, fn_version, event_id, status, created_at,"
        " ended_at) select '00AAAAAAAAAAAAAAAAAAAA' || lpad(n::text, 4, '0'), r.function_id, 1,"
        " r.event_id, case when n = 1 then 'Skipped' else 'Completed' end, now(), now()"
        " from stepbase.runs r, generate_series(1, 120) n"
    )
    await connection.close()

    seen, before = [], ""
    while before is not None:
        page = await shown.data(f"/runs?before={before}")
        seen += [each["run_id"] for each in page["runs"]]
        before = page["before"]
    skipped = await shown.data("/runs?status=Skipped")

    assert len(seen) == len(set(seen)) == 121
    assert seen == sorted(seen, reverse=True)
    assert [each["run_id"] for each in skipped["runs"]] == ["00AAAAAAAAAAAAAAAAAAAA0001"]


async def test_an_event_says_what_it_started_and_what_not(shown: Shown, make_run: MakeRun) -> None:
    await make_run()
    picky = shown.host.function("app-picky", triggers=[
        {"event": "app/f", "expression": "event.data.id > 100"}
    ])  # fmt: skip
    await shown.api.register(shown.host.registration(shown.host.function("app-f"), picky))
    [event_id] = await shown.api.send({"name": "app/f", "data": {"id": 7}})
    await shown.api.result(event_id)

    data = await shown.data(f"/events/{event_id}")

    assert [each["function"] for each in data["runs"]] == ["app-f"]
    assert data["no_run"] == [
        {
            "slug": "app-picky",
            "why": "Its condition was not met: event.data.id > 100 (event.data.id is 7)",
        }
    ]
    assert "app-picky" in await shown.page(f"/events/{event_id}")
    names = (await shown.data("/event-types"))["event_types"]
    assert [each["functions"] for each in names if each["name"] == "app/f"] == [
        ["app-f", "app-picky"]
    ]


async def test_a_page_that_changes_is_sent_again(shown: Shown, make_run: MakeRun) -> None:
    async with shown.web.stream("GET", "/runs?live=1") as stream:
        assert stream.headers["content-type"].startswith("text/event-stream")
        lines = stream.aiter_lines()
        await anext(lines)
        run = await make_run()
        async with asyncio.timeout(10):
            async for line in lines:
                if run["run_id"] in line:
                    break
            else:
                raise AssertionError("the stream ended")


@pytest.mark.parametrize(
    "path", ["/runs/01M873WD2R8P4KVQ0E2B8YNGJ3", "/events/nothing", "/functions/none"]
)
async def test_what_is_not_there_is_said(shown: Shown, path: str) -> None:
    answer = await shown.web.get(path)

    assert answer.status_code == 404 and "There is no" in answer.text


async def test_a_large_payload_is_cut_and_fetched_when_asked_for(
    shown: Shown, make_run: MakeRun
) -> None:
    run = await make_run(event={"long": "x" * 300_000})

    page = await shown.page(f"/runs/{run['run_id']}")
    whole = await shown.page(f"/runs/{run['run_id']}/part?of=payload")

    assert len(page) < 30_000 < 300_000 < len(whole)


async def test_home_says_that_nobody_takes_events_out(shown: Shown, database: str) -> None:
    assert "Nothing needs attention" in await shown.page("/")
    connection = await asyncpg.connect(database)
    # Of both engine and relay: what is overdue stays so.
    await connection.execute("alter function stepbase.outbox_take rename to outbox_not_taken")
    await connection.execute("select stepbase.emit('app/f', '{}', id => 'late')")
    fresh = await shown.text("/")
    await connection.execute("update stepbase.outbox set due_at = now() - interval '5 minutes'")
    await connection.close()

    home, outbox = await shown.text("/"), await shown.text("/outbox")

    assert "Nothing needs attention" in fresh
    assert "Events in the outbox are overdue, the oldest by 5 min" in home
    assert "Nothing needs attention" not in home and "nobody takes events out" in outbox


async def test_a_function_says_among_how_many_runs_it_counts(
    shown: Shown, database: str, make_run: MakeRun
) -> None:
    await make_run()
    few = await shown.text("/functions/app-f")
    connection = await asyncpg.connect(database)
    await connection.execute(
        "insert into stepbase.runs (run_id, function_id, fn_version, event_id, status, created_at,"
        " ended_at) select '00AAAAAAAAAAAAAAAAAAAA' || lpad(n::text, 4, '0'), r.function_id, 1,"
        " r.event_id, 'Completed', now(), now() from stepbase.runs r, generate_series(1, 1999) n"
    )
    await connection.close()

    assert "its last 2,000 runs" not in few
    assert "live runs are those of its last 2,000 runs" in await shown.text("/functions/app-f")


@pytest.mark.parametrize("attempt", ["\u00b2", "9" * 30, "-1"])
async def test_no_attempt_is_found_by_what_is_no_number(shown: Shown, attempt: str) -> None:
    answer = await shown.web.get(f"/runs/{'0' * 26}/part?attempt={attempt}")

    assert answer.status_code == 404
