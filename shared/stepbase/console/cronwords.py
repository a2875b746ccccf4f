"""A cron schedule as people say it, where that is short; else the schedule itself. Pure."""

import re

_DAYS = ("Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
_SHORT = {"SUN": 0, "MON": 1, "TUE": 2, "WED": 3, "THU": 4, "FRI": 5, "SAT": 6}


def cron_in_words(spec: str) -> str:
    """Say when a schedule fires: ``"every day at 09:00 in Asia/Bangkok (0 9 * * *)"``."""
    zone, _, rest = spec.partition(" ") if spec.startswith(("TZ=", "CRON_TZ=")) else ("", "", spec)
    where = f" in {zone.partition('=')[2]}" if zone else " UTC"
    said = _said(rest.split())
    if said is None:
        return f"on the schedule {rest}{where}"
    is_of_day = ":" in said and "past" not in said
    return f"{said}{where if is_of_day or zone else ''} ({rest})"


def _said(fields: list[str]) -> str | None:
    if len(fields) != 5 or fields[3] != "*":
        return None
    minute, hour, day, _, weekday = fields
    if hour == day == weekday == "*":
        return _within_hours(minute)
    if not (minute.isdigit() and hour.isdigit()):
        return None
    days = _days(day, weekday)
    return None if days is None else f"{days} at {int(hour):02}:{int(minute):02}"


def _within_hours(minute: str) -> str | None:
    if minute == "*":
        return "every minute"
    if every := re.fullmatch(r"(?:\*|0)/(\d+)", minute):
        return _every(int(every[1]))
    return f"every hour at {int(minute)} past" if minute.isdigit() else None


def _every(minutes: int) -> str | None:
    """Say so only where the hour is divided evenly: `*/45` fires at 0 and 45, 45 and 15 minutes apart."""
    if minutes == 1:
        return "every minute"
    return f"every {minutes} minutes" if minutes and 60 % minutes == 0 else None


def _days(day: str, weekday: str) -> str | None:
    if weekday == "*":
        if day == "*":
            return "every day"
        return f"on day {day} of each month" if day.isdigit() else None
    if day != "*":
        return None
    if span := re.fullmatch(r"(\w+)-(\w+)", weekday):
        first, last = _day(span[1]), _day(span[2])
        return f"{first} to {last}" if first and last else None
    named = [_day(each) for each in weekday.split(",")]
    return "every " + " and ".join(str(each) for each in named) if all(named) else None


def _day(text: str) -> str | None:
    number = int(text) if text.isdigit() else _SHORT.get(text.upper(), 99)
    return _DAYS[number] if number < len(_DAYS) else None
