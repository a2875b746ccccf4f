"""Purchases in one statement, while everything between them and their awards is killed at random."""

import sys

import pytest
from bench.support import relay_storm

# A part of the file that takes some seconds; `scripts/bench relay --full` takes all of it.
PURCHASES = 300


@pytest.mark.timeout(240)
async def test_every_purchase_is_awarded_once_though_everything_is_restarted(
    capsys: pytest.CaptureFixture[str],
) -> None:
    result = await relay_storm.run(relay_storm.part(PURCHASES), every=0.4)

    with capsys.disabled():
        sys.stdout.write(f"\n  {relay_storm.summary(result)}\n")
    assert result.problems == []
    assert result.purchases == PURCHASES
    # A storm that kills nothing proves nothing.
    assert set(result.killed) == {"engine", "host", "relay"}
