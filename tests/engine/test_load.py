"""A burst of events against real processes, with the functions there and with them away."""

import pytest
from bench import load

EVENTS = 5_000


@pytest.mark.timeout(300)
def test_a_burst_loses_nothing_and_the_engines_memory_stays_bounded() -> None:
    found = load.run(EVENTS, durable=False)

    for phase in found.values():
        assert (phase["events"], phase["lost"], phase["doubled"]) == (EVENTS, 0, 0)
        # Were the backlog kept in memory, it would be tens of megabytes more.
        assert phase["rss_most_mb"] < phase["rss_before_mb"] + 16
    assert found["down"]["waiting"] == EVENTS
