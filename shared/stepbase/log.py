"""Logging for stepbase's own processes; a library never configures handlers.

Messages are fixed phrases; data rides in `extra` fields. Keys, tokens and payloads are never logged.
"""

import json
import logging
import sys

_STANDARD = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName"}


def _fields(record: logging.LogRecord) -> dict[str, object]:
    return {k: v for k, v in record.__dict__.items() if k not in _STANDARD}


class TextFormatter(logging.Formatter):
    """`time level logger: message key=value …`, one line a record."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)-7s %(name)s: %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:  # logging's name
        """Append the record's extra fields to the standard line; a traceback comes after it."""
        line = super().formatMessage(record)
        # The database's messages bring lines of detail.
        fields = " ".join(
            f"{key}={' '.join(str(value).split())}" for key, value in _fields(record).items()
        )
        return f"{line} {fields}" if fields else line


class JsonFormatter(logging.Formatter):
    """One JSON object a line, for log collectors."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as one line of JSON."""
        entry: dict[str, object] = {
            "time": self.formatTime(record),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            **_fields(record),
        }
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        return json.dumps(entry, default=str)


class _WithoutTraceback(logging.Filter):
    """Turns the exception of a record into its field `reason`."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Pass every record."""
        if record.exc_info and (error := record.exc_info[1]) is not None:
            record.reason = f"{type(error).__name__}: {error}"
            record.exc_info = record.exc_text = None
        return True


def setup(level: str = "INFO", *, as_json: bool = False) -> None:
    """Send `stepbase.*` records to stderr; call it once at the start of a process of ours.

    The database driver's too: it tells of a server that is away by a traceback, which here is a line.
    """
    for name in ("stepbase", "asyncpg"):
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(JsonFormatter() if as_json else TextFormatter())
        if name != "stepbase":
            handler.addFilter(_WithoutTraceback())
        logger = logging.getLogger(name)
        logger.handlers[:] = [handler]
        logger.setLevel(level.upper() if name == "stepbase" else logging.WARNING)
        logger.propagate = False
