"""What is worked out without a browser or a database: words, charts, the drawing of a run."""

import html
import json
import re
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepbase.console import chart, cronwords, timeline, words
from stepbase.console.remedy import remedy
from stepbase.console.render import coloured

NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("ms", "said"),
    [(0, "0 ms"), (840.4, "840 ms"), (1_200, "1.2 s"), (61_000, "1 min 1 s"), (60_000, "1 min"),
     (7 * 86_400_000, "7 d"), (3 * 86_400_000 + 4 * 3_600_000, "3 d 4 h"), (-5, "0 ms"),
     (None, "")],
)  # fmt: skip
def test_durations(ms: float | None, said: str) -> None:
    assert words.duration(ms) == said


@given(st.floats(0, 1e12))
def test_no_duration_is_longer_than_two_units(ms: float) -> None:
    assert 0 < len(words.duration(ms).split()) <= 4


def test_options_are_sentences() -> None:
    config = {
        "triggers": [
            {"event": "a/b", "expression": "event.data.x > 1"},
            {"cron": "TZ=Asia/Bangkok 0 9 * * *"},
        ],
        "concurrency": [{"limit": 5, "key": "event.data.shop"}],
        "cancel": [{"event": "a/c", "if": "event.data.id == async.data.id", "timeout": "1h"}],
        "debounce": {"period": "5s", "timeout": "1m"},
        "idempotency": "event.data.id",
    }

    assert words.triggers_in_words(config) == [
        "event a/b if event.data.x > 1",
        "every day at 09:00 in Asia/Bangkok (0 9 * * *)",
    ]
    assert words.options_in_words(config) == [
        "at most 5 steps at a time for each event.data.shop",
        "starts when no event has come for 5s or after 1m",
        "is cancelled by a/c if event.data.id == async.data.id within 1h",
        "starts once in 24 hours for each event.data.id",
    ]


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"concurrency": 3}, "at most 3 steps at a time"),
        ({"concurrency": {"fn": [{"limit": 2, "key": "event.data.x"}], "step": [{"limit": 5}]}},
         "at most 2 runs at a time for each event.data.x; at most 5 steps at a time"),
        ({"concurrency": [{"limit": 0}]}, "no limit of steps"),
        ({"steps": {"step": {"retries": {"attempts": 3}}}},
         "tries each step up to 4 times, with growing pauses"),
        ({"steps": {"step": {"retries": {"attempts": 0}}}}, "tries each step once"),
        ({"steps": {"step": {}}}, "tries each step up to 5 times, with growing pauses"),
        ({"stepbase": {"retryDelay": "5s", "lookBack": "1m"}},
         "tries again after 5s, then twice as long each time and waits see events of the last 1m"),
        ({"timeouts": {"start": "1h", "finish": "2h"}},
         "is cancelled unless it starts within 1h and unless it ends within 2h"),
        ({"batchEvents": {"maxSize": 5, "timeout": "10s"}},
         "gathers up to 5 events, for 10s at most, into one run"),
        ({"singleton": {"mode": "skip"}}, "runs alone: a second run is skipped"),
        ({"throttle": {"limit": 1, "period": "1m", "burst": 2, "key": "event.data.x"}},
         "starts at most 1 runs in 1m, later ones wait after a burst of 2 for each event.data.x"),
        ({"concurrency": "odd", "throttle": 7, "cancel": [None]}, ""),
    ],
)  # fmt: skip
def test_every_form_of_an_option_is_said(config: dict[str, Any], said: str) -> None:
    assert "; ".join(words.options_in_words(config)) == said


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("0 3 * * *", "every day at 03:00 UTC (0 3 * * *)"),
        ("TZ=Europe/Berlin 30 9 * * 1-5", "Monday to Friday at 09:30 in Europe/Berlin (30 9 * * 1-5)"),
        ("0 9 * * MON,4", "every Monday and Thursday at 09:00 UTC (0 9 * * MON,4)"),
        ("0 0 1 * *", "on day 1 of each month at 00:00 UTC (0 0 1 * *)"),
        ("*/5 * * * *", "every 5 minutes (*/5 * * * *)"), ("* * * * *", "every minute (* * * * *)"),
        ("15 * * * *", "every hour at 15 past (15 * * * *)"),
        ("0 9-17 * * 1", "on the schedule 0 9-17 * * 1 UTC"), ("0 9 1 1 *", "on the schedule 0 9 1 1 * UTC"),
        ("0 9 * * FRI#2", "on the schedule 0 9 * * FRI#2 UTC"),
    ],
)  # fmt: skip
def test_schedules_are_said_as_people_say_them(spec: str, said: str) -> None:
    assert cronwords.cron_in_words(spec) == said


@given(
    st.lists(
        st.tuples(st.integers(-5, 4000), st.integers(0, 4000), st.booleans()),
        min_size=1,
        max_size=8,
    ),
    st.integers(0, 3000),
)
def test_nothing_is_drawn_outside_the_scale(
    spans: list[tuple[int, int, bool]], length: int
) -> None:
    steps: list[dict[str, Any]] = [
        {
            "hash": str(i), "name": f"s{i}", "op": "StepRun", "status": "done", "due_at": None,
            "is_leased": False, "event_name": None,
            "started_at": NOON + timedelta(milliseconds=begin),
            "ended_at": NOON + timedelta(milliseconds=begin + took) if is_over else None,
        }
        for i, (begin, took, is_over) in enumerate(spans)
    ]  # fmt: skip
    run = {
        "created_at": NOON,
        "started_at": NOON,
        "ended_at": NOON + timedelta(milliseconds=length),
        "status": "Completed",
    }

    drawn = timeline.draw(run, steps, [], NOON + timedelta(seconds=9))

    assert len(drawn.bars) == len(spans) + 1
    for bar in drawn.bars:
        assert 0 <= bar.x and 0 < bar.width and bar.x + bar.width <= 1000.1


def test_a_chart_is_as_high_as_its_highest_column() -> None:
    slots = [NOON + timedelta(minutes=i) for i in range(3)]

    drawn = chart.columns(slots, [0, 5, 10], [0, 1, 0])
    curve = chart.line(slots, [0, 100, 50])

    assert [column.height for column in drawn.columns] == [0, 45, 90]
    assert drawn.columns[1].bad == 9 and drawn.axes.levels == ("10", "5", "0")
    assert [y for _, y, _ in curve.dots] == [0, 45]
    assert curve.axes.levels == ("100 ms", "50 ms", "0")


def test_a_chart_can_be_read_as_a_table() -> None:
    slots = [NOON + timedelta(minutes=i) for i in range(60)]

    drawn = chart.columns(slots, [0, 1_234, *[0] * 58], [0, 2, *[0] * 58])
    curve = chart.line(slots, [0, 61_000, 0, *[5.0] * 57])

    assert drawn.axes.rows == [("12:01", "1,234", "2")]
    assert drawn.axes.times == ["12:00", "12:15", "12:30", "12:44", "12:59"]
    assert drawn.axes.levels == ("2,000", "1,000", "0")
    assert curve.axes.rows[-1] == ("12:01", "1 min 1 s") and len(curve.axes.rows) == 58
    assert len(curve.lines) == 1, "a line goes over no gap, and through no single dot"


@given(st.lists(st.floats(0, 1e7), min_size=1, max_size=70))
def test_no_value_is_above_its_chart(values: list[float]) -> None:
    slots = [NOON + timedelta(minutes=i) for i in range(len(values))]

    for axes, heights in (
        ((drawn := chart.columns(slots, values, values)).axes, [c.height for c in drawn.columns]),
        ((curve := chart.line(slots, values)).axes, [chart.HEIGHT - y for _, y, _ in curve.dots]),
    ):
        assert axes.most >= max(values) and len(axes.levels) == 3
        assert all(0 <= height <= chart.HEIGHT for height in heights)


@given(st.floats(0.01, 4e10))
def test_a_scale_has_few_places_and_they_are_on_it(ms: float) -> None:
    run = {"created_at": NOON, "started_at": None, "ended_at": NOON + timedelta(milliseconds=ms)}

    ticks = timeline.draw(run, [], [], NOON).ticks

    assert 1 <= len(ticks) <= 6 and ticks[0][0] == 0
    assert all(0 <= x <= 1000 for x, _ in ticks)


@pytest.mark.parametrize(
    ("text", "said"),
    [("asleep until 2026-12-01 19:37:55 UTC", "asleep until 01 Dec 19:37:55"),
     ("being called, due at 2026-01-31 00:00:01 UTC", "being called, due at 31 Jan 00:00:01"),
     ("ready", "ready"), (None, "between two calls")],
)  # fmt: skip
def test_waits(text: str | None, said: str) -> None:
    # A date is not broken over two lines.
    assert words.waits(text).replace("\u00a0", " ") == said
    assert words.waits(text).count("\u00a0") == (2 if text and "UTC" in text else 0)


def test_a_step_has_waited_since_the_step_before_it() -> None:
    def step(name: str, began: int, took: int) -> dict[str, Any]:
        return {"hash": name, "name": name, "op": "StepRun", "status": "done", "due_at": None,
                "is_leased": False, "event_name": None,
                "started_at": NOON + timedelta(milliseconds=began),
                "ended_at": NOON + timedelta(milliseconds=began + took)}  # fmt: skip

    run = {"created_at": NOON, "started_at": NOON + timedelta(milliseconds=10),
           "ended_at": NOON + timedelta(milliseconds=200), "status": "Completed"}  # fmt: skip

    drawn = timeline.draw(run, [step("a", 20, 30), step("b", 60, 40), step("c", 70, 5)], [], NOON)

    waited = {bar.name: bar.waited for bar in drawn.bars}
    assert waited == {"in the queue": "", "a": "10 ms", "b": "10 ms", "c": "20 ms"}
    assert {bar.name: bar.lead for bar in drawn.bars}["c"] == (250.0, 100.0)


_SQL = {"name": "APIError", "message": "{'message': 'no', 'code': '%s', 'hint': None}"}


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        ({"name": "NoAnswer", "message": "x"}, None, "start the app"),
        ({"name": "NoAnswer", "message": "x"}, 401, "INNGEST_SIGNING_KEY"),
        ({"name": "NoAnswer", "message": "x"}, 404, "which URL is called"),
        ({"name": "N", "code": "event_invalid"}, 400, "mend what sends"),
        ({"name": "N", "cause": _SQL | {"message": _SQL["message"] % "P0001"}}, 206, "P0001"),
        ({"name": "N", "cause": _SQL | {"message": _SQL["message"] % "23505"}}, 206, "23505"),
        ({"name": "N", "cause": _SQL | {"message": _SQL["message"] % "42883"}}, 206, "migrations"),
        ({"name": "ValueError", "message": "'code': 7"}, 206, ""),
        ("text", None, ""),
    ],
)
def test_what_to_do_is_said_where_the_kind_of_error_says_it(
    error: object, status: int | None, said: str
) -> None:
    text = remedy(json.dumps(error), status, is_live=False)
    assert (said in text) if said else text == ""


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda of: st.lists(of) | st.dictionaries(st.text(), of),
    )
)
def test_coloured_json_is_the_same_text(value: object) -> None:
    text = json.dumps(value, indent=2, ensure_ascii=False)

    marked = str(coloured(text))

    assert html.unescape(re.sub(r"</?span[^>]*>", "", marked)) == text
    assert "<" not in re.sub(r'</?span( class="j-\w+")?>', "", marked)


@pytest.mark.parametrize(
    ("spec", "said"),
    [("*/15 * * * *", "every 15 minutes (*/15 * * * *)"), ("* * * * *", "every minute (* * * * *)"),
     ("*/1 * * * *", "every minute (*/1 * * * *)"), ("*/60 * * * *", "every 60 minutes (*/60 * * * *)"),
     ("*/45 * * * *", "on the schedule */45 * * * * UTC"), ("0/7 * * * *", "on the schedule 0/7 * * * * UTC"),
     ("*/0 * * * *", "on the schedule */0 * * * * UTC"), ("0 */5 * * *", "on the schedule 0 */5 * * * UTC")],
)  # fmt: skip
def test_a_schedule_is_called_even_only_if_it_is(spec: str, said: str) -> None:
    assert cronwords.cron_in_words(spec) == said
