"""The shapes of runs in the chaos benchmark: what is sent for each, and how it must end.

A case is one or a few events of one shape with a number of their own. What became of it is compared with
what its shape says: the runs of each function with their statuses and results, and how often each effect
happened. A shape whose outcome depends on who came first allows each outcome that is right.
"""

import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from bench.support.chaos_functions import HUGE_CHARS, LARGE_CHARS

APPS = ("chaos", "saved")
DELAY_MS = 3000


@dataclass(frozen=True, slots=True)
class Sent:
    """An event to send; `delay_ms` puts it into the future."""

    name: str
    id: str
    data: Mapping[str, object]
    delay_ms: int = 0


@dataclass(frozen=True, slots=True)
class Ran:
    """A run as it ended."""

    run_id: str
    function: str
    status: str
    output: object
    part: int | None
    is_early: bool


@dataclass(frozen=True, slots=True)
class Case:
    """One case of a shape: its number, its app, and its events."""

    number: int
    app: str
    shape: "Shape"
    events: tuple[Sent, ...]


Check = Callable[[Sequence[Ran], Counter[str]], list[str]]


@dataclass(frozen=True, slots=True)
class Shape:
    """How a case ends when nothing is lost and nothing happens twice.

    Attributes:
        function: Which function it is about; its event's name too, without the app.
        weight: How often it comes.
        status: How the function's run ends.
        outputs: The results it may have; empty for any.
        effects: How often each effect happens: exactly so often, or within bounds.
        more: Runs of other functions, by name: their status and number.
        parts: How many events a case has; each starts a run of its own unless `check` is given.
        check: What else must hold of its runs and effects; it then replaces the rules on the runs.
        is_open: Which effects it has is for `check` to say.
    """

    function: str
    weight: int = 10
    status: str = "Completed"
    outputs: tuple[object, ...] = ()
    effects: Mapping[str, int | tuple[int, int]] = field(default_factory=dict)
    more: Mapping[str, tuple[str, int]] = field(default_factory=dict)
    parts: int = 1
    check: Check | None = None
    delay_ms: int = 0
    is_open: bool = False

    @property
    def runs(self) -> int:
        """How many runs a case has, about."""
        own = 1 if self.function == "batch" else self.parts
        return own + sum(count for _, count in self.more.values())


def make(number: int, chance: random.Random, url: str) -> Case:
    """Return a case of some shape; `url` is what `fetch` asks."""
    [shape] = chance.choices(SHAPES, weights=[shape.weight for shape in SHAPES])
    app = chance.choice(APPS)
    data = {
        "case": number,
        "nap": chance.choice(["100ms", "1s", "2s"]),
        "key": chance.randrange(4),
        "url": url,
    }
    events = tuple(
        Sent(f"{app}/{shape.function}", f"{number}-{part}", {**data, "part": part}, shape.delay_ms)
        for part in range(shape.parts)
    )
    return Case(number, app, shape, events)


def problems(case: Case, runs: Sequence[Ran], effects: Counter[str]) -> list[tuple[str, str]]:
    """Compare a case with its shape; return what is not right, as (kind, text)."""
    found: list[tuple[str, str]] = []
    shape = case.shape
    for run in runs:
        if run.status in ("Scheduled", "Running"):
            found.append(("stuck", f"run {run.run_id} of {run.function} is {run.status}"))
        if run.is_early:
            found.append(("wrong", f"run {run.run_id} started before its event's time"))
    for name in () if shape.is_open else effects.keys() | shape.effects.keys():
        given = shape.effects.get(name, 0)
        least, most = given if isinstance(given, tuple) else (given, given)
        if effects[name] > most:
            found.append(("doubled", f"effect {name!r} happened {effects[name]} times, not {most}"))
        elif effects[name] < least:
            found.append(("lost", f"effect {name!r} happened {effects[name]} times, not {least}"))
    if shape.check is not None:
        found += [("wrong", text) for text in shape.check(runs, effects)]
    else:
        found += _of_runs(case, runs)
    return found


def _of_runs(case: Case, runs: Sequence[Ran]) -> list[tuple[str, str]]:
    found = []
    expected = {case.shape.function: (case.shape.status, case.shape.parts), **case.shape.more}
    for function, (status, count) in expected.items():
        mine = [run for run in runs if run.function.partition("-")[2] == function]
        if len(mine) != count:
            kind = "lost" if len(mine) < count else "doubled"
            found.append((kind, f"{len(mine)} runs of {function}, not {count}"))
        for run in mine:
            if run.status not in (status, "Scheduled", "Running"):
                found.append(
                    ("wrong", f"run {run.run_id} of {function} is {run.status}: {run.output}")
                )
            elif (
                function == case.shape.function
                and run.status == "Completed"
                and case.shape.outputs
                and run.output not in _told(case, case.shape.outputs)
            ):
                text = f"run {run.run_id} of {function} has the result {run.output!r}"
                found.append(("wrong", text))
    extra = {run.function.partition("-")[2] for run in runs} - expected.keys()
    return found + [("doubled", f"runs of {name}, which nobody started") for name in sorted(extra)]


def _told(case: Case, outputs: Sequence[object]) -> list[object]:
    """Replace `TWICE` by twice the case's number."""

    def one(value: object) -> object:
        if isinstance(value, list):
            return [one(each) for each in value]
        return 2 * case.number if value == TWICE else value

    return [one(value) for value in outputs]


def _batched(runs: Sequence[Ran], _: Counter[str]) -> list[str]:
    """A batch's events may be spread over several runs, which have events of other cases too."""
    return [f"run {run.run_id} is {run.status}" for run in runs if run.status == "Failed"]


def _debounced(runs: Sequence[Ran], effects: Counter[str]) -> list[str]:
    """Whatever came between, the last event has its run."""
    found = [f"run {run.run_id} is {run.status}" for run in runs if run.status != "Completed"]
    if len(runs) != effects.total():
        found.append(f"{len(runs)} runs and {effects.total()} effects")
    return found


def _single(runs: Sequence[Ran], effects: Counter[str]) -> list[str]:
    """Each event's run was made, or skipped because another one was going on."""
    found = []
    if len(runs) != 3:
        found.append(f"{len(runs)} runs, not 3")
    for run in runs:
        if run.status not in ("Completed", "Skipped"):
            found.append(f"run {run.run_id} is {run.status}")
        if effects[f"part {run.part}"] != (run.status == "Completed"):
            found.append(f"part {run.part} is {run.status}, with {effects} effects")
    if not effects:
        found.append("all were skipped")
    return found


def _newest(runs: Sequence[Ran], effects: Counter[str]) -> list[str]:
    """Each event's run was made, or cancelled by a newer one."""
    found = []
    if len(runs) != 3:
        found.append(f"{len(runs)} runs, not 3")
    for run in runs:
        if run.status not in ("Completed", "Cancelled", "Skipped"):
            found.append(f"run {run.run_id} is {run.status}")
        if run.status == "Completed" and not effects[f"part {run.part}"]:
            found.append(f"part {run.part} is Completed without its effect")
    if not any(run.status == "Completed" for run in runs):
        found.append("none was completed")
    return found


def _close_race(runs: Sequence[Ran], effects: Counter[str]) -> list[str]:
    """One of both won, and what won has happened."""
    [run] = runs if len(runs) == 1 else [None]
    if run is None:
        return [f"{len(runs)} runs, not 1"]
    if run.status != "Completed" or run.output not in ("a", "b"):
        return [f"run {run.run_id} is {run.status}: {run.output!r}"]
    return [] if effects[str(run.output)] == 1 else [f"{run.output} won, with {effects}"]


def _token(runs: Sequence[Ran], effects: Counter[str]) -> list[str]:
    """The token that was drawn first is the only one."""
    [run] = runs if len(runs) == 1 else [None]
    if run is None or run.status != "Completed":
        return [f"{len(runs)} runs, not 1: {runs}"]
    [drawn] = effects if len(effects) == 1 else [None]
    return [] if run.output == [drawn, drawn] else [f"result {run.output}, with {effects}"]


def _once(runs: Sequence[Ran], _: Counter[str]) -> list[str]:
    found = [f"run {run.run_id} is {run.status}" for run in runs if run.status != "Completed"]
    return found + ([] if len(runs) == 1 else [f"{len(runs)} runs, not 1"])


TWICE = "twice its number"
_BRANCHES = {f"branch {i}": 1 for i in range(4)}
_ANY = (0, 1)
SHAPES: tuple[Shape, ...] = (
    Shape("sequence", 30, outputs=(6,), effects={"end": 1}),
    Shape("sequence-sync", outputs=(3,), effects={"end": 1}),
    Shape("sleepy", 20, outputs=("awake",), effects={"before": 1, "after": 1}),
    Shape("large", outputs=(3 * LARGE_CHARS,), effects={"end": 1}),
    Shape("huge", 1, outputs=(2 * HUGE_CHARS,), effects={"end": 1}),
    Shape("delayed", outputs=("came",), effects={"end": 1}, delay_ms=DELAY_MS),
    Shape("paid", parts=2, outputs=(1,), effects={"paid": 1}),
    Shape("token", 30, check=_token, is_open=True),
    Shape("row", outputs=(1,), effects={"row": 1}),
    Shape("flaky", outputs=("at last",), effects={"end": 1}),
    Shape("caught", outputs=("refused",), effects={"undone": 1}),
    Shape(
        "doomed",
        status="Failed",
        effects={"before": 1, "handled": 1},
        more={"doomed-failure": ("Completed", 1)},
    ),
    Shape("parallel", 15, outputs=([0, 1, 2, 3],), effects=_BRANCHES),
    Shape("parallel-sync", outputs=([0, 1, 2],), effects={f"branch {i}": 1 for i in range(3)}),
    Shape("race", outputs=("quick",), effects={"after": 1}),
    Shape("close-race", effects={"a": _ANY, "b": _ANY, "after": 1}, check=_close_race),
    Shape("fetch", outputs=([200, "beside"],), effects={"end": 1}),
    Shape("wait", 15, outputs=("got it",), effects={"before": 1, "after": 1}),
    Shape("wait-if", outputs=(20,), effects={"after": 1}),
    Shape("wait-timeout", outputs=("time is up",), effects={"after": 1}),
    Shape("wait-either", outputs=("got it", "time is up"), effects={"after": 1}),
    Shape("waits-beside", outputs=(["got it", "time is up"],), effects={"after": 1}),
    Shape("signal", outputs=("here it is",), effects={"after": 1}),
    Shape(
        "invoke",
        outputs=(TWICE,),
        effects={"child": 1, "after": 1},
        more={"child": ("Completed", 1)},
    ),
    Shape(
        "invoke-two",
        outputs=([TWICE, "caught"],),
        effects={"child": 1, "after": 1},
        more={"child": ("Completed", 1), "failing-child": ("Failed", 1)},
    ),
    Shape(
        "invoke-failing",
        outputs=("caught",),
        effects={"caught": 1},
        more={"failing-child": ("Failed", 1)},
    ),
    Shape(
        "invoke-timeout",
        outputs=("too late", "in time"),
        effects={"child": 1, "after": 1},
        more={"slow-child": ("Completed", 1)},
    ),
    Shape(
        "fan-out",
        outputs=(4,),
        effects={f"leaf {i}": 1 for i in range(4)},
        more={"leaf": ("Completed", 4)},
    ),
    Shape("stopped", status="Cancelled", effects={"before": 1}),
    Shape("stopped-if", status="Cancelled", effects={"before": 1}),
    Shape("batch", parts=4, effects={f"part {i}": 1 for i in range(4)}, check=_batched),
    Shape(
        "debounce",
        parts=3,
        effects={"part 0": _ANY, "part 1": _ANY, "part 2": 1},
        check=_debounced,
    ),
    Shape("throttle", effects={"end": 1}),
    Shape("keyed", 15, outputs=(1,), effects={"end": 1}),
    Shape("single", parts=3, effects={f"part {i}": _ANY for i in range(3)}, check=_single),
    Shape(
        "newest",
        parts=3,
        effects={"part 0": _ANY, "part 1": _ANY, "part 2": _ANY},
        check=_newest,
    ),
    Shape("once", parts=2, effects={"end": 1}, check=_once),
)
