"""Functions on a filled database: success, durations, schedules, failures, pause, by the numbers."""

import html
from datetime import UTC, datetime, timedelta

import asyncpg
import pytest
from tests.console.conftest import Shown

from stepbase.console import words


async def _fill(database: str) -> None:
    """Give app-f a hundred runs: 90 completed (1 to 90 s), 8 failed, 1 cancelled, 1 live."""
    connection = await asyncpg.connect(database)
    await connection.execute(
        "insert into stepbase.events (id, name, payload, ts, received_at)"
        " values ('01E', 'app/f', '{}', now(), now())"
    )
    await connection.execute(
        "insert into stepbase.runs (run_id, function_id, fn_version, event_id, status, created_at, ended_at,"
        " error) select '01R' || lpad(n::text, 23, '0'), f.function_id, 1, '01E',"
        " case when n <= 90 then 'Completed' when n <= 98 then 'Failed' when n = 99 then 'Cancelled'"
        " else 'Running' end, now() - interval '1 hour',"
        " case when n < 100 then now() - interval '1 hour' + n * interval '1 second' end,"
        " case when n between 91 and 98 then json_build_object('name', 'Error', 'message', 'broke ' || n) end"
        " from stepbase.functions f, generate_series(1, 100) n where f.slug = 'app-f'"
    )
    await connection.close()


async def test_success_and_durations_are_those_of_the_runs(shown: Shown, database: str) -> None:
    await shown.api.register(shown.host.registration(shown.host.function("app-f")))
    await _fill(database)

    [row] = (await shown.data("/functions"))["functions"]
    one = await shown.data("/functions/app-f")
    page = html.unescape(await shown.page("/functions/app-f"))

    assert row["success"] == "91.8 %" and (row["completed"], row["failed"], row["live"]) == (
        90,
        8,
        1,
    )
    assert (row["p50_ms"], row["p95_ms"]) == (45_000, 86_000)
    assert one["function"]["p95_ms"] == 86_000
    assert [each["run_id"][-3:] for each in one["failed"]] == ["098", "097", "096", "095", "094"]
    assert "91.8 %" in page and "90 of 98" in page and "45.0 s" in page and "1 min 26 s" in page
    assert "broke 98" in page and "broke 93" not in page


async def test_schedules_say_when_they_fire_next(shown: Shown) -> None:
    nightly = shown.host.function(
        "app-f", triggers=[{"cron": "TZ=Asia/Bangkok 30 3 * * *"}, {"event": "app/now"}]
    )
    await shown.api.register(shown.host.registration(nightly))
    while not (await shown.data("/functions/app-f"))["crons"][0]["next_at"]:
        pass

    [cron] = (await shown.data("/functions/app-f"))["crons"]
    times = [datetime.fromisoformat(each) for each in (cron["next_at"], *cron["then"])]
    page = await shown.page("/functions/app-f")

    assert len(times) == 5 and times[0] > datetime.now(UTC)
    assert {each.strftime("%H:%M") for each in times} == {"20:30"}  # Bangkok has no summer time
    assert {b - a for a, b in zip(times, times[1:], strict=False)} == {timedelta(days=1)}
    assert "every day at 03:30 in Asia/Bangkok (30 3 * * *)" in page
    assert '<a href="/send?name=app/now">' in page
    assert (await shown.data("/functions"))["functions"][0]["next_at"] == cron["next_at"]

    await shown.act("/functions/app-f/pause")
    assert "these pass without a run" in await shown.page("/functions/app-f")


async def test_every_option_is_said(shown: Shown) -> None:
    busy = shown.host.function(
        "app-f", retries=3, concurrency={"fn": [{"limit": 2}], "step": [{"limit": 5, "key": "event.data.k"}]},
        throttle={"limit": 1, "period": "1m"}, priority={"run": "event.data.p"},
        timeouts={"start": "1h"}, cancel=[{"event": "app/stop"}], stepbase={"lookBack": "1m"},
    )  # fmt: skip
    handler = shown.host.function("app-f-failure", triggers=[
        {"event": "inngest/function.failed", "expression": "event.data.function_id == 'app-f'"}
    ])  # fmt: skip
    await shown.api.register(shown.host.registration(busy, handler))

    data = await shown.data("/functions/app-f")
    page = html.unescape(await shown.page("/functions/app-f"))

    assert data["options"] == [
        "tries each step up to 4 times, with growing pauses",
        "at most 2 runs at a time",
        "at most 5 steps at a time for each event.data.k",
        "starts at most 1 runs in 1m, later ones wait",
        "goes ahead of others by event.data.p seconds",
        "is cancelled by app/stop",
        "is cancelled unless it starts within 1h",
        "waits see events of the last 1m",
    ]
    assert all(each in page for each in data["options"])
    assert "when app-f has failed for good" in await shown.page("/functions/app-f-failure")


@pytest.mark.parametrize(
    ("completed", "failed", "said"),
    [(0, 0, ""), (5, 0, "100.0 %"), (0, 3, "0 %"), (99_999, 1, "99.9 %"), (1, 1, "50.0 %")],
)
def test_a_rate_is_never_rounded_to_perfection(completed: int, failed: int, said: str) -> None:
    assert words.success_rate(completed, failed) == said
