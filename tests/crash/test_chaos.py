"""A short storm of the chaos benchmark: every failpoint is hit, and each run ends as its shape says."""

import sys

import pytest
from bench.chaos import Bench
from bench.support.chaos_storm import CHANCES, Options

from stepbase import failpoint

OPTIONS = Options(runs=300, seconds=20, longest=150, hits=1, strikes=8, seed=3)


@pytest.mark.timeout(360)
async def test_every_run_ends_as_its_shape_says_whatever_is_killed(
    capsys: pytest.CaptureFixture[str],
) -> None:
    bench = Bench(OPTIONS)

    result = await bench.run()

    with capsys.disabled():
        sys.stdout.write(
            f"\n  {result['runs']} runs, {result['kills']} kills, failpoint hits:"
            f" {result['failpoints']}, killed: {result['killed']},"
            f" taken over after {result['takeover_max_s']} s\n"
        )
    assert bench.found == [], capsys.readouterr().err
    assert result["runs"] >= OPTIONS.runs
    # A storm that kills nothing proves nothing.
    assert set(CHANCES) == failpoint.NAMES
    assert all(result["failpoints"].values())
    assert sum(result["killed"].values()) == OPTIONS.strikes
    assert result["takeover_max_s"] <= OPTIONS.lease + 1
