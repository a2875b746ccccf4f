"""The demo's input: real purchases, read from lines and spread over the file."""

from collections.abc import Collection
from pathlib import Path

import pytest

from stepbase.demo.purchase import DataError, Purchase, read, sample_file, spread


def purchases(count: int, free: Collection[int] = ()) -> list[Purchase]:
    return [Purchase(i, f"{i:05}", 0 if i in free else 100) for i in range(1, count + 1)]


def test_the_file_that_is_shipped_has_6919_purchases_of_2357_customers() -> None:
    found = read(sample_file())

    assert len(found) == 6919
    assert len({purchase.customer for purchase in found}) == 2357
    assert sum(purchase.cents == 0 for purchase in found) == 8
    assert found[0] == Purchase(1, "00004", 2933)


def test_lines_that_are_alike_are_different_purchases_of_one_customer(tmp_path: Path) -> None:
    file = tmp_path / "data.txt"
    file.write_text(" 00017 0001 19970101 1 9.99\r\n\r\n 00017 0001 19970101 1 9.99\r\n")

    first, second = read(file)

    assert (first.line, second.line) == (1, 3)
    assert first.purchase_id != second.purchase_id
    assert first.user_id == second.user_id
    assert (first.merchant_id, first.cents) == ("7", 999)


def test_the_same_line_of_another_lap_is_another_purchase() -> None:
    assert Purchase(1, "00004", 5).purchase_id != Purchase(1, "00004", 5, lap=1).purchase_id


@pytest.mark.parametrize(
    "text",
    [
        "00004 0001 19970101 29.33",
        "00004 0001 19970101 2 29.3",
        "00004 0001 19970101 2 -29.33",
        "master sample date cds dollars",
    ],
)
def test_a_line_that_is_no_purchase_is_named(tmp_path: Path, text: str) -> None:
    file = tmp_path / "data.txt"
    file.write_text(f"00004 0001 19970101 2 29.33\n{text}\n")

    with pytest.raises(DataError, match=r"data\.txt:2: expected customer"):
        read(file)


def test_a_file_without_purchases_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "empty.txt"
    file.write_text("\n")

    with pytest.raises(DataError, match="holds no purchases"):
        read(file)


def test_spread_takes_evenly_and_in_order() -> None:
    assert [purchase.line for purchase in spread(purchases(100), 4)] == [1, 26, 51, 76]


def test_spread_takes_everything_if_asked_for_more() -> None:
    assert spread(purchases(3), 5) == purchases(3)


@pytest.mark.parametrize(("count", "wanted"), [(10, 1), (100, 2)])
def test_spread_takes_some_free_purchases_in_place_of_their_neighbours(
    count: int, wanted: int
) -> None:
    found = spread(purchases(1000, free={44, 555, 999}), count)

    assert len(found) == count
    assert sum(purchase.cents == 0 for purchase in found) == wanted
    assert found == sorted(found, key=lambda purchase: purchase.line)


def test_spread_copes_with_a_file_of_free_purchases() -> None:
    assert len(spread(purchases(10, free=set(range(1, 11))), 3)) == 3
