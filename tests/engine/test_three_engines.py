"""Three engine processes on one database, one of them killed: limits hold, and each start has its instant."""

import sys

import pytest
from bench.limits import (
    EVERY_MS,
    LEASE_SECONDS,
    OVERALL,
    PER_TENANT,
    RUNS,
    STARTS,
    Options,
    measure,
)


@pytest.mark.timeout(180)
async def test_no_limit_is_exceeded_at_any_instant_though_an_engine_dies(
    database: str, capsys: pytest.CaptureFixture[str]
) -> None:
    # Smaller than the benchmark, which looks at 10,000 instants.
    result = await measure(database, Options(instants=1500))

    with capsys.disabled():
        sys.stdout.write(f"\n  {result}\n")
    assert (result["exceeded"], result["failed"], result["left"]) == (0, 0, 0)
    assert (result["engines"], result["killed"]) == (3, 1)
    # Limits that nobody reaches prove nothing.
    assert result["most"] == {"runs": RUNS, "tenant": PER_TENANT, "overall": OVERALL}
    paces = result["throttle"]
    assert isinstance(paces, dict)
    assert paces["starts"] == STARTS
    # A start cannot come before its instant; when the host sees it depends on how busy the machine is.
    assert paces["early_ms"] <= 5
    assert paces["late_ms"] < 10 * EVERY_MS
    assert paces["late_most_ms"] < (LEASE_SECONDS + 10) * 1000
