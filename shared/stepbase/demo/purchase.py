"""The demo's input: one purchase per line of a file, and who it belongs to. Pure but for `read`.

The rules that follow from a line (ids, merchant) are written down again in `checker.py`, which must
not trust this module.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID, uuid5

from stepbase.errors import StepbaseError

_NAMESPACE = UUID("6f9c2a54-0d0f-5b7e-9b55-1c0a3b9c2d11")
_DOLLARS = re.compile(r"(\d+)\.(\d\d)")
_FREE_SHARE = 50


class DataError(StepbaseError):
    """The data file cannot be read as purchases; the message names the line."""


@dataclass(frozen=True, slots=True)
class Purchase:
    """One line of the file.

    Attributes:
        line: Its number, from 1; lines repeat, so this is what tells purchases apart.
        customer: The customer's master id.
        cents: What was paid.
        lap: How often the file was begun before; makes another purchase of the same line.
    """

    line: int
    customer: str
    cents: int
    lap: int = 0

    @property
    def purchase_id(self) -> str:
        """The purchase's id, the same in every run of the demo."""
        return str(uuid5(_NAMESPACE, f"purchase/{self.lap}/{self.line}"))

    @property
    def user_id(self) -> UUID:
        """The customer's user id."""
        return uuid5(_NAMESPACE, f"customer/{self.customer}")

    @property
    def merchant_id(self) -> str:
        """The last digit of the customer's number: there are ten merchants."""
        return self.customer[-1]


def sample_file() -> Path:
    """Return the purchases that come with the package."""
    return Path(__file__).parent / "data" / "cdnow_sample.txt"


def read(path: Path) -> list[Purchase]:
    """Read a file of purchases.

    Raises:
        DataError: If a line has not the five columns, or there is none.
        OSError: If the file cannot be read.
    """
    lines = path.read_text("utf-8", errors="replace").splitlines()
    purchases = [_parse(path, i, text) for i, text in enumerate(lines, 1) if text.strip()]
    if not purchases:
        raise DataError(f"{path} holds no purchases")
    return purchases


def _parse(path: Path, line: int, text: str) -> Purchase:
    columns = text.split()
    dollars = _DOLLARS.fullmatch(columns[-1])
    if len(columns) != 5 or dollars is None or not columns[0].isdecimal():
        raise DataError(
            f"{path}:{line}: expected customer, sample id, date, number of CDs and dollars, as in "
            f"'00004 0001 19970101 2 29.33', got {text.strip()[:80]!r}"
        )
    return Purchase(line, columns[0], int(dollars[1]) * 100 + int(dollars[2]))


def spread(purchases: Sequence[Purchase], count: int) -> list[Purchase]:
    """Choose `count` purchases spread evenly over the file, some free ones among them.

    Purchases of 0.00 are rare and earn nothing, which must work too: up to one in fifty (at least
    one) takes the place of its nearest neighbour, as far as the file has them.
    """
    total = len(purchases)
    if count >= total:
        return list(purchases)
    chosen = {i * total // count for i in range(count)}
    paying = {i for i in chosen if purchases[i].cents}
    free = [i for i, purchase in enumerate(purchases) if not purchase.cents]
    for i in free[: max(1, count // _FREE_SHARE)]:
        if i not in chosen and paying:
            nearest = min(paying, key=lambda other: abs(other - i))
            paying.remove(nearest)
            chosen.symmetric_difference_update({nearest, i})
    return [purchases[i] for i in sorted(chosen)]
