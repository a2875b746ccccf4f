"""DBOS with the same work: a queue, workflows of three steps. Prints {"seconds", "idle_p50_ms"}.

Usage: peer_dbos.py DSN RUNS IDLE_RUNS POLLING_SECONDS
"""

import json
import statistics
import sys
import time

from dbos import DBOS, DBOSConfig

dsn, runs, idle_runs, polling = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])
config: DBOSConfig = {"name": "bench", "system_database_url": dsn, "log_level": "ERROR"}
DBOS(config=config)


@DBOS.step()
def one() -> int:
    """Do nothing."""
    return 1


@DBOS.step()
def two() -> int:
    """Do nothing."""
    return 2


@DBOS.step()
def more() -> int:
    """Do nothing."""
    return 3


@DBOS.workflow()
def three() -> dict[str, int]:
    """Run three steps, one after another."""
    return {"sum": one() + two() + more()}


DBOS.launch()
DBOS.register_queue("bench", polling_interval_sec=polling, on_conflict="always_update")
for _ in range(5):
    DBOS.enqueue_workflow("bench", three).get_result()
idle = []
for _ in range(idle_runs):
    began = time.perf_counter()
    DBOS.enqueue_workflow("bench", three).get_result()
    idle.append((time.perf_counter() - began) * 1000)
began = time.perf_counter()
handles = [DBOS.enqueue_workflow("bench", three) for _ in range(runs)]
for handle in handles:
    handle.get_result()
seconds = time.perf_counter() - began
print(json.dumps({"seconds": seconds, "idle_p50_ms": statistics.median(idle) if idle else None}))
DBOS.destroy()
