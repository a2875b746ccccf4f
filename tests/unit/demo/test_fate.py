"""What will happen to each purchase is decided beforehand, and in the same way every time."""

from collections import Counter

import pytest

from stepbase.demo.fate import DELAYED_MERCHANT, Entry, Fate, decide_fates, merchants
from stepbase.demo.purchase import Purchase, read, sample_file, spread


@pytest.fixture(scope="module")
def entries() -> list[Entry]:
    return decide_fates(spread(read(sample_file()), 500), seed=1)


def test_every_fate_occurs_and_most_purchases_are_kept(entries: list[Entry]) -> None:
    counts = Counter(entry.fate for entry in entries)

    assert set(counts) == set(Fate)
    assert counts[Fate.KEPT] > len(entries) * 0.7


def test_purchases_keep_their_order(entries: list[Entry]) -> None:
    lines = [entry.purchase.line for entry in entries]

    assert lines == sorted(lines)


def test_only_purchases_of_the_merchant_that_delays_are_refunded_while_they_wait(
    entries: list[Entry],
) -> None:
    waiting = {e.purchase.merchant_id for e in entries if e.fate is Fate.WAITING}

    assert waiting == {DELAYED_MERCHANT}
    assert [m.merchant_id for m in merchants(3) if m.delay_seconds] == [DELAYED_MERCHANT]


def test_there_is_something_to_take_back_from_what_is_refunded_late(entries: list[Entry]) -> None:
    rates = {merchant.merchant_id: merchant.rate_bp for merchant in merchants(0)}

    assert all(
        e.purchase.cents * rates[e.purchase.merchant_id] >= 10_000
        for e in entries
        if e.fate is Fate.LATE
    )


def test_what_is_never_paid_starts_pending_and_some_others_do(entries: list[Entry]) -> None:
    assert all(e.starts_pending for e in entries if e.fate is Fate.UNPAID)
    assert not any(e.starts_pending for e in entries if e.fate is Fate.OVERTAKEN)
    assert {e.starts_pending for e in entries if e.fate is Fate.KEPT} == {True, False}


def test_the_same_seed_gives_the_same_fates_and_another_one_does_not(entries: list[Entry]) -> None:
    purchases = [entry.purchase for entry in entries]

    assert decide_fates(purchases, seed=1) == entries
    assert decide_fates(purchases, seed=2) != entries


def test_a_single_purchase_has_a_fate_too() -> None:
    assert len(decide_fates([Purchase(1, "00017", 100)], seed=1)) == 1


def test_the_ten_merchants_have_different_rates() -> None:
    assert len({merchant.rate_bp for merchant in merchants(0)}) == 10
