"""When schedules fire: time zones that change their clocks, jitter, what was missed, and the event."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepbase.engine import schedule
from stepbase.engine.schedule import Due, addressed, delay, move, next_instant
from stepbase.protocol.event import decode_event

FUNCTION = UUID(int=7)
NEW_YORK = "TZ=America/New_York "
BERLIN = "TZ=Europe/Berlin "
LORD_HOWE = "TZ=Australia/Lord_Howe "


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def instants(spec: str, after: str, count: int) -> list[str]:
    """Return a schedule's next instants, as UTC."""
    found, last = [], at(after)
    for _ in range(count):
        following = next_instant(spec, last)
        assert following is not None
        last = following
        found.append(f"{last:%m-%d %H:%M}")
    return found


@pytest.mark.parametrize(
    ("spec", "after", "expected"),
    [
        ("*/15 * * * *", "2026-11-24T23:40", ["11-24 23:45", "11-25 00:00"]),
        ("0 12 * * *", "2026-11-24T12:00", ["11-25 12:00"]),
        ("TZ=UTC 0 0 29 2 *", "2026-11-24", ["02-29 00:00"]),
        # Bangkok has no summer time.
        ("TZ=Asia/Bangkok 0 9 * * 1-5", "2026-03-27T03:00", ["03-30 02:00", "03-31 02:00"]),
        ("CRON_TZ=Asia/Bangkok 0 9 * * *", "2026-10-24T03:00", ["10-25 02:00", "10-26 02:00"]),
        # New York skips 02:00 to 03:00 on 8 March: 02:30 fires at 03:00.
        (NEW_YORK + "30 2 * * *", "2026-03-07", ["03-07 07:30", "03-08 07:00", "03-09 06:30"]),
        (NEW_YORK + "*/30 * * * *", "2026-03-08T06:20", ["03-08 06:30", "03-08 07:00"]),
        # It has 01:00 to 02:00 twice on 1 November: 01:30 fires the first time only.
        (NEW_YORK + "30 1 * * *", "2026-10-31", ["10-31 05:30", "11-01 05:30", "11-02 06:30"]),
        (NEW_YORK + "30 1 * * *", "2026-11-01T05:31", ["11-02 06:30"]),
        (
            NEW_YORK + "*/30 * * * *",
            "2026-11-01T05:20",
            ["11-01 05:30", "11-01 06:00", "11-01 06:30"],
        ),
        # Nine stays nine: 14:00 UTC in winter, 13:00 in summer.
        (NEW_YORK + "0 9 * * *", "2026-03-07T12:00", ["03-07 14:00", "03-08 13:00", "03-09 13:00"]),
        (NEW_YORK + "0 9 * * *", "2026-10-31T12:00", ["10-31 13:00", "11-01 14:00", "11-02 14:00"]),
        # 02:00 fires at 03:00, together with that of 03:00.
        (
            NEW_YORK + "0 2,3 * * *",
            "2026-03-08T04:30",
            ["03-08 07:00", "03-09 06:00", "03-09 07:00"],
        ),
        # Berlin changes at 01:00 UTC, on 29 March and 25 October.
        (BERLIN + "30 2 * * *", "2026-03-28", ["03-28 01:30", "03-29 01:00", "03-30 00:30"]),
        (BERLIN + "30 2 * * *", "2026-10-24", ["10-24 00:30", "10-25 00:30", "10-26 01:30"]),
        # Lord Howe changes by half an hour, forward in October (02:00 to 02:30) and back in April.
        (
            LORD_HOWE + "15 2 * * *",
            "2026-10-02T12:00",
            ["10-02 15:45", "10-03 15:30", "10-04 15:15"],
        ),
        (
            LORD_HOWE + "45 1 * * *",
            "2026-04-03T12:00",
            ["04-03 14:45", "04-04 14:45", "04-05 15:15"],
        ),
        (NEW_YORK + "0 * * * *", "2026-11-01T04:30", ["11-01 05:00", "11-01 06:00", "11-01 07:00"]),
    ],
)
def test_a_schedule_follows_the_clocks_of_its_zone(
    spec: str, after: str, expected: list[str]
) -> None:
    assert instants(spec, after, len(expected)) == expected


@given(st.integers(1_767_225_600, 1_830_297_600), st.integers(1, 300))
def test_jitter_stays_in_its_span_and_is_the_same_everywhere(when: int, span: int) -> None:
    instant = datetime.fromtimestamp(when, UTC)
    late = delay(FUNCTION, "* * * * *", f"{span}s", instant)

    assert timedelta(seconds=1) <= late <= timedelta(seconds=span)
    assert late == delay(FUNCTION, "* * * * *", f"{span}s", instant)
    assert delay(FUNCTION, "* * * * *", None, instant) == timedelta(0)


def test_jitter_spreads_functions_and_instants() -> None:
    noon = at("2026-11-24T12:00")
    functions = {delay(UUID(int=n), "0 12 * * *", "5m", noon) for n in range(50)}
    days = {delay(FUNCTION, "0 12 * * *", "5m", noon + timedelta(days=n)) for n in range(50)}

    assert len(functions) == len(days) == 50


DUE = Due(
    function_id=FUNCTION,
    n=1,
    spec="*/10 * * * *",
    jitter=None,
    slug="app-f",
    is_paused=False,
    scheduled_at=at("2026-11-24T12:00"),
    fire_at=at("2026-11-24T12:00"),
    looked_at=at("2026-11-24T12:00:01"),
)


def test_an_instant_becomes_the_recorded_event() -> None:
    moved = move(replace(DUE, jitter="30s", fire_at=at("2026-11-24T12:00:07.250")), "id")
    assert moved.payload is not None
    event = decode_event(json.loads(moved.payload), is_internal=True)

    assert addressed(event) == (
        "app-f",
        replace(
            event,
            data={
                "cron": "*/10 * * * *",
                "fireAt": "2026-11-24T12:00:07.250Z",
                "scheduledAt": "2026-11-24T12:00:00Z",
            },
        ),
    )
    assert event.id == "2026-11-24T12:00:00Z"
    assert event.ts == 1795521607250
    assert moved.scheduled_at == at("2026-11-24T12:10")


def test_what_was_missed_is_not_made_up_for() -> None:
    moved = move(replace(DUE, looked_at=at("2026-11-25T07:31")), "id")

    assert moved.event_id == "id" and "2026-11-24T12:00:00Z" in str(moved.payload)
    assert moved.scheduled_at == at("2026-11-25T07:40")


def test_a_new_schedule_and_a_paused_function_send_nothing() -> None:
    new = move(replace(DUE, scheduled_at=None, fire_at=None), "id")
    paused = move(replace(DUE, is_paused=True), "id")

    for moved in (new, paused):
        assert (moved.event_id, moved.payload) == (None, None)
        assert moved.scheduled_at == moved.fire_at == at("2026-11-24T12:10")


def test_a_schedule_whose_zone_is_gone_ends() -> None:
    moved = move(replace(DUE, spec="TZ=Mars/Base * * * * *"), "id")

    assert (moved.scheduled_at, moved.fire_at) == (None, None)


@pytest.mark.parametrize("jitter", ["0s", "500ms", "6m", "soon"])
def test_a_jitter_that_cannot_be_kept_is_refused(jitter: str) -> None:
    with pytest.raises(ValueError, match=r"jitter of a cron must lie between|not a duration"):
        schedule.check("* * * * *", jitter)
