"""Runs a module and says where its CPU time goes: a sample every millisecond of it, by what the code is for.

Usage: sampled.py REPORT MODULE [ARGUMENT…]. SIGUSR1 begins to count; SIGUSR2 ends it and writes a JSON
object to REPORT: what for → samples. A sample belongs to the innermost frame of a known package, and one
inside the event loop (sockets) to what the loop calls next; "loop" is what has no such frame.
"""

import json
import runpy
import signal
import sys
from collections import Counter
from pathlib import Path
from types import FrameType

EVERY_SECONDS = 0.001

PARTS = {
    "stepbase/engine/http1.py": "http",
    "stepbase/engine/caller.py": "http",
    "stepbase/engine/api/": "http",
    "stepbase/hosts/": "http",
    "/uvicorn/": "http",
    "/starlette/": "http",
    "/fastapi/": "http",
    "/asyncpg/": "driver",
    "stepbase/engine/store.py": "driver",
    "stepbase/engine/": "engine",
    "stepbase/sdk/": "sdk",
    "/inngest/": "sdk",
    "/pydantic": "sdk",
    "stepbase/protocol/": "protocol",
}
"""Part of a file's path, in order of precedence: what its code is for."""


def part_of(frame: FrameType | None) -> str:
    """Return what the code of a frame, or of the nearest caller that is known, is for."""
    while frame is not None:
        path = frame.f_code.co_filename
        for piece, part in PARTS.items():
            if piece in path:
                return part
        frame = frame.f_back
    return "loop"


def main(report: str, module: str, arguments: list[str]) -> None:
    """Run the module under the sampler."""
    counts: Counter[str] = Counter()

    def sample(_number: int, frame: FrameType | None) -> None:
        counts[part_of(frame)] += 1

    def begin(_number: int, _frame: FrameType | None) -> None:
        counts.clear()
        signal.setitimer(signal.ITIMER_PROF, EVERY_SECONDS, EVERY_SECONDS)

    def end(_number: int, _frame: FrameType | None) -> None:
        signal.setitimer(signal.ITIMER_PROF, 0)
        Path(f"{report}.part").write_text(json.dumps(counts))
        Path(f"{report}.part").rename(report)

    signal.signal(signal.SIGPROF, sample)
    signal.signal(signal.SIGUSR1, begin)
    signal.signal(signal.SIGUSR2, end)
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3:])
