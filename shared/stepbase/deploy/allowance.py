"""What a plan of Inngest Cloud allows, against what the apps ask for, and what a run counts as.

An execution is one run or one step, so a run of four steps is five. The figures are those of
inngest.com/docs/durable-execution/limits in November 2026; our own engine has no plans.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from stepbase.deploy.look import Folder, FunctionSeen
from stepbase.deploy.problem import Problem
from stepbase.protocol.duration import to_timedelta


@dataclass(frozen=True, slots=True)
class Allowance:
    """A plan's limits: counts, seconds and bytes, as named."""

    executions: int
    concurrency: int
    event_bytes: int
    batch_size: int
    batch_seconds: int
    apps: int
    functions: int
    sleep_days: int


PLANS: Mapping[str, Allowance] = {
    "free": Allowance(50_000, 5, 256 * 1024, 5, 30, 5, 100, 7),
    "pro": Allowance(1_000_000, 100, 3 * 1024 * 1024, 100, 300, 10, 500, 366),
}


def misfits(plan: str, folders: Sequence[Folder]) -> list[Problem]:
    """Return what the plan does not allow: each would be refused, or quietly capped, after the deploy."""
    allowed = PLANS[plan]
    apps = [folder for folder in folders if folder.app_id is not None]
    found = []
    if len(apps) > allowed.apps:
        found.append(
            Problem(
                "apps",
                f"{len(apps)} apps; plan {plan} has {allowed.apps}",
                "deploy fewer by naming them, serve several functions from one app, or take a larger plan",
            )
        )
    for folder in apps:
        if len(folder.functions) > allowed.functions:
            found.append(
                Problem(
                    f"functions/{folder.name}",
                    f"{len(folder.functions)} functions; plan {plan} has {allowed.functions} an app",
                    "divide the app",
                )
            )
        for function in folder.functions:
            where = f"functions/{folder.name}, {function.slug}"
            found += [Problem(where, *each) for each in _misfits_of(function, plan, allowed)]
    return found


def _misfits_of(function: FunctionSeen, plan: str, allowed: Allowance) -> Iterable[tuple[str, str]]:
    for limit in _limits(function.wire.get("concurrency")):
        if limit > allowed.concurrency:
            yield (
                f"concurrency {limit}; plan {plan} runs {allowed.concurrency} steps at once",
                f"Concurrency({allowed.concurrency}, …) or a larger plan: more would only wait",
            )
    batch = function.wire.get("batchEvents")
    if not batch:
        return
    if batch["maxSize"] > allowed.batch_size:
        yield (
            f"batches of {batch['maxSize']}; plan {plan} has {allowed.batch_size} events a batch",
            f"Batch({allowed.batch_size}, …) or a larger plan",
        )
    if to_timedelta(batch["timeout"]).total_seconds() > allowed.batch_seconds:
        yield (
            f"batches wait {batch['timeout']}; plan {plan} has {allowed.batch_seconds} s",
            f'timeout="{allowed.batch_seconds}s" or a larger plan',
        )


def _limits(concurrency: Any) -> list[int]:
    """Return the limits on steps of the wire's field, which may be a list or a table of lists."""
    steps = concurrency.get("step", []) if isinstance(concurrency, dict) else concurrency or []
    return [limit["limit"] for limit in steps]


def count(function: FunctionSeen) -> str:
    """Return what a run of a function counts as, in words."""
    executions = function.steps + 1
    steps = "1 step" if function.steps == 1 else f"{function.steps} steps"
    if function.is_least:
        return f"{executions} executions or more a run (1 run, {steps} and loops)"
    return f"at most {executions} executions a run (1 run, {steps})"


def counts(plan: str | None, folders: Sequence[Folder]) -> list[str]:
    """Return a line for each function: executions a run, and how many runs of it a month's allowance is."""
    lines = []
    for folder in folders:
        for function in folder.functions:
            line = f"{function.slug}: {count(function)}"
            if plan is not None:
                runs = PLANS[plan].executions // (function.steps + 1)
                most = "at most " if function.is_least else ""
                line += (
                    f"; a month of plan {plan} has {PLANS[plan].executions:,}: {most}{runs:,} runs"
                )
            lines.append(line)
    return lines
