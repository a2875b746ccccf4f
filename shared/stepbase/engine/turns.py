"""What an engine remembers of the lanes between two leases: whose turn it is, and when to look again."""

import asyncpg

_NEXT_LANES = 0.1  # seconds until lanes that a lease did not get to are looked at


class Turns:
    """An engine's way through the lanes.

    Attributes:
        last: The lane that the next lease goes on after.
        has_lanes: Items waited in lanes at the last lease; some may do so still.
        again: In how many seconds another lease is worth it although nothing happens, or None.
    """

    def __init__(self) -> None:
        self.last = ""
        self.has_lanes = False
        self.again: float | None = None
        self._idle_rounds = 0

    def take(self, rows: "list[asyncpg.Record]") -> "list[asyncpg.Record]":
        """Read the row about lanes, if there is one, off what `lease` returned; return the items."""
        self.has_lanes, self.again = False, None
        if not rows or rows[0]["run_id"] is not None:
            return rows
        about, *items = rows
        self.has_lanes, self.again = True, about["again_seconds"]
        if items:
            self._idle_rounds = 0
        elif about["lane"] <= self.last:
            self._idle_rounds += 1
        self.last = about["lane"]
        # Lanes may be full for long: once all were looked at for nothing, only news is worth a look.
        if about["has_more"] and self._idle_rounds < 2:
            self.again = min(self.again or _NEXT_LANES, _NEXT_LANES)
        return items

    def restart(self) -> None:
        """Something may have changed in any lane."""
        self._idle_rounds = 0
