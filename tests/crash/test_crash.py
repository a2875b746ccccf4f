"""Three rounds of the crash benchmark: real processes die, and every award is posted exactly once."""

import sys

import pytest
from bench.crash import CHANCES, Bench, Options

# Smaller than the benchmark's own rounds, so that three fit into a minute.
OPTIONS = Options(rounds=3, purchases=150, hits=0.8, strikes=("engine", "host", "postgres"))


@pytest.mark.timeout(240)
async def test_nothing_is_lost_or_doubled_in_three_rounds_of_crashes(
    capsys: pytest.CaptureFixture[str],
) -> None:
    result = await Bench(OPTIONS).run()

    with capsys.disabled():
        sys.stdout.write(
            f"\n  failpoint hits: {result['failpoints']}, killed: {result['killed']}\n"
        )
    found = {kind: result[kind] for kind in ("lost", "doubled", "stuck", "wrong")}
    assert found == {"lost": 0, "doubled": 0, "stuck": 0, "wrong": 0}, capsys.readouterr().err
    assert result["rounds"] == 3
    # A storm that kills nothing proves nothing.
    assert set(result["failpoints"]) == set(CHANCES)
    assert sum(result["failpoints"].values()) >= 5
    assert result["killed"] == {"engine": 3, "host": 3, "postgres": 3}
