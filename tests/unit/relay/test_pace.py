"""How a relay slows down and speeds up."""

from stepbase.relay.pace import LONGEST_PAUSE, Pace


def test_full_batches_while_all_goes_well() -> None:
    pace = Pace(500, 1_000_000)

    pace.succeeded()

    assert (pace.size, pace.pause(0.0), pace.is_troubled) == (500, 0.0, False)


def test_one_event_at_a_time_after_growing_pauses() -> None:
    pace = Pace(500, 1_000_000)
    pauses = []
    for i in range(10):
        pace.failed(i, now=100.0, chance=1.0)
        pauses.append(pace.pause(100.0))

    assert pace.size == 1
    assert pauses[:6] == [1.0, 2.0, 4.0, 8.0, 16.0, LONGEST_PAUSE]
    assert pauses[-1] == LONGEST_PAUSE
    assert pace.pause(100.0 + LONGEST_PAUSE) == 0.0


def test_chance_takes_up_to_half_of_a_pause() -> None:
    pace = Pace(500, 1_000_000)

    pace.failed(0, now=0.0, chance=0.0)

    assert pace.pause(0.0) == 0.5


def test_requests_that_were_under_way_together_fail_once() -> None:
    pace = Pace(500, 1_000_000)
    for _ in range(4):
        pace.failed(0, now=0.0, chance=1.0)

    assert pace.failures == 1


def test_the_receivers_wish_is_kept() -> None:
    pace = Pace(500, 1_000_000)

    pace.failed(0, now=10.0, chance=1.0, retry_after=120.0)

    assert pace.pause(10.0) == 120.0


def test_one_success_ends_the_trouble() -> None:
    pace = Pace(500, 1_000_000)
    pace.failed(0, now=0.0, chance=1.0, retry_after=300.0)

    pace.succeeded()

    assert (pace.size, pace.pause(0.0)) == (500, 0.0)


def test_what_is_too_large_is_halved_down_to_a_floor() -> None:
    pace = Pace(500, 1_000_000)
    sizes = []
    for size in (900_000, 500_000, 1_000, 1_000):
        pace.too_large(size)
        sizes.append(pace.most_bytes)

    assert sizes == [450_000, 250_000, 16_384, 16_384]
