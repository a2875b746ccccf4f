"""What is worked out without a browser or a database: words, charts, the drawing of a run."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepbase.console import chart, timeline, words

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
        "at TZ=Asia/Bangkok 0 9 * * *",
    ]
    assert words.options_in_words(config) == [
        "at most 5 steps at a time for each event.data.shop",
        "starts when no event has come for 5s or after 1m",
        "is cancelled by a/c if event.data.id == async.data.id within 1h",
        "starts once a day for each event.data.id",
    ]


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
    assert drawn.columns[1].bad == 9 and drawn.most == 10
    assert [y for _, y, _ in curve.dots] == [0, 45]
