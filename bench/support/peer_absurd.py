"""Absurd with the same work: a queue, tasks of three steps, four worker processes. Prints {"seconds"}.

Four workers that claim ten tasks and do one after another were its best setting on two cores: workers
with threads share one connection. Its schema comes with the `absurdctl` package.

Usage: peer_absurd.py DSN RUNS
"""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import psycopg
from absurd_sdk import Absurd, JsonValue, TaskContext
from absurdctl import BUNDLED_SCHEMA_SQL

QUEUE = "bench"
WORKERS = 4
CLAIM = 10


def client(dsn: str) -> Absurd:
    """Return a client that knows the task."""
    app = Absurd(dsn, queue_name=QUEUE)

    @app.register_task(name="three")
    def three(params: JsonValue, ctx: TaskContext) -> JsonValue:
        one = ctx.step("one", lambda: 1)
        two = ctx.step("two", lambda: 2)
        more = ctx.step("three", lambda: 3)
        return {"sum": one + two + more}

    return app


@contextmanager
def worker(dsn: str) -> Iterator[None]:
    """Run a worker process for the length of the block."""
    process = subprocess.Popen([sys.executable, __file__, "worker", dsn])
    try:
        yield
    finally:
        process.terminate()
        process.wait()


def run(app: Absurd, connection: "psycopg.Connection", count: int) -> float:
    """Spawn so many tasks and wait until all have completed; return the seconds that took."""
    done = f"select count(*) from absurd.t_{QUEUE} where state = 'completed'"
    row = connection.execute(done).fetchone()
    assert row is not None
    wanted = row[0] + count
    began = time.perf_counter()
    for _ in range(count):
        app.spawn("three", {})
    while (row := connection.execute(done).fetchone()) is not None and row[0] < wanted:
        time.sleep(0.01)
    return time.perf_counter() - began


def main(dsn: str, runs: int) -> None:
    """Set up, warm up, measure and print."""
    with psycopg.connect(dsn, autocommit=True) as connection, ExitStack() as workers:
        row = connection.execute("select to_regnamespace('absurd') is null").fetchone()
        if row is not None and row[0]:
            connection.execute(BUNDLED_SCHEMA_SQL.encode())
        app = client(dsn)
        app.create_queue(QUEUE)
        for _ in range(WORKERS):
            workers.enter_context(worker(dsn))
        run(app, connection, 40)
        seconds = run(app, connection, runs)
        app.close()
    print(json.dumps({"seconds": seconds}))


if __name__ == "__main__":
    if sys.argv[1] == "worker":
        client(sys.argv[2]).start_worker(batch_size=CLAIM)
    else:
        main(sys.argv[1], int(sys.argv[2]))
