"""`stepbase dev`: the stack on a terminal, until Ctrl-C."""

import asyncio
import contextlib
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console
from rich.text import Text

from stepbase import config
from stepbase.config import SupabaseConfig
from stepbase.errors import DefinitionError
from stepbase.hosts import front_door
from stepbase.local import elsewhere
from stepbase.local.errors import LocalError
from stepbase.local.postgres import is_in_use
from stepbase.local.stack import Plan, Stack

_COLOURS = {
    "postgres": "blue",
    "migrations": "blue",
    "seed": "blue",
    "gateway": "green",
    "engine": "magenta",
    "host": "cyan",
    "sync": "yellow",
}
_ENVIRONMENT_FILE = "env"
_OWN = "# made by stepbase dev: "
_MODE = 0o600


class Terminal:
    """Prints a line of a piece with its name before it."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def __call__(self, name: str, line: str) -> None:
        """Print `line`, as it is: what a process prints is no markup."""
        text = Text(f"{name:>10} ", style=_COLOURS.get(name, "white"))
        self._console.print(text, Text("│ ", style="dim"), Text(line), sep="", soft_wrap=True)


def run(plan: Plan, console: Console) -> None:
    """Run the stack until SIGINT, SIGTERM or SIGHUP.

    Raises:
        LocalError: it could not be started; nothing is left running.
    """
    asyncio.run(_run(plan, console))


def is_own(data: Path, name: str, value: str) -> bool:
    """Say whether a variable's value is of a database or gateway that `stepbase dev` had made itself.

    A shell that sourced its file still has it when the stack is started again.
    """
    try:
        lines = (data / _ENVIRONMENT_FILE).read_text("utf-8").splitlines()
    except OSError:
        return False
    return f"{name}={value}" in lines and f"{_OWN}{name}" in lines


def api(data: Path) -> SupabaseConfig | None:
    """Return the Supabase API that the environment names, or None if that is none or our own gateway.

    Raises:
        LookupError: `SUPABASE_URL` is set and no key is.
    """
    known = elsewhere.variables()
    url = known.get("SUPABASE_URL")
    if url is None or is_own(data, "SUPABASE_URL", url):
        return None
    return config.supabase()


def forget(data: Path) -> None:
    """Remove the cluster under `data`, wherever its folder's link leads; the keys stay.

    Raises:
        LocalError: it is running.
    """
    folder = data / "postgres"
    if is_in_use(folder):
        raise LocalError(f"{folder} is in use by another `stepbase dev`: stop that first")
    shutil.rmtree(folder.resolve(), ignore_errors=True)
    if folder.is_symlink():
        folder.unlink()


async def _run(plan: Plan, console: Console) -> None:
    stack = Stack(plan, Terminal(console))
    with _signals() as (asked, insisted):
        starting = asyncio.create_task(stack.start())
        wanted = asyncio.create_task(asked.wait())
        try:
            await asyncio.wait({starting, wanted}, return_when=asyncio.FIRST_COMPLETED)
            if starting.done():
                starting.result()
                _greet(stack, console)
                await wanted
        finally:
            wanted.cancel()
            starting.cancel()
            await asyncio.wait({starting})
            if asked.is_set():
                console.print("stopping (Ctrl-C again: at once)", style="dim")
            await _stop(stack, insisted)


async def _stop(stack: Stack, insisted: asyncio.Event) -> None:
    stopping = asyncio.create_task(stack.stop())
    impatient = asyncio.create_task(insisted.wait())
    await asyncio.wait({stopping, impatient}, return_when=asyncio.FIRST_COMPLETED)
    impatient.cancel()
    if not stopping.done():
        stopping.cancel()
        await asyncio.wait({stopping})
        await stack.abandon()


@contextlib.contextmanager
def _signals() -> Iterator[tuple[asyncio.Event, asyncio.Event]]:
    """Yield two events: the first signal sets the first, the next one the second."""
    asked, insisted = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()

    def on_signal() -> None:
        (insisted if asked.is_set() else asked).set()

    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    for number in numbers:
        loop.add_signal_handler(number, on_signal)
    try:
        yield asked, insisted
    finally:
        for number in numbers:
            loop.remove_signal_handler(number)


def _greet(stack: Stack, console: Console) -> None:
    data = stack.plan.data
    variables = {**stack.client_environment(), **_origins(stack)}
    own = [
        *([] if stack.plan.database_url else ["DATABASE_URL"]),
        *([] if stack.plan.api else ["SUPABASE_URL"]),
    ]
    environment = "".join(f"{_OWN}{name}\n" for name in own)
    environment += "".join(f"{k}={v}\n" for k, v in variables.items())
    for name in stack.others:
        console.print(f"{name} is at {stack.folder_url(name)}", style="dim")
    console.print(f"console: {variables['INNGEST_BASE_URL']}/", soft_wrap=True)
    if data is not None:
        file = data / _ENVIRONMENT_FILE
        file.touch(mode=_MODE)
        file.write_text(environment, "utf-8")
        console.print(
            f"ready; `set -a; . {file}; set +a` points a shell at it, Ctrl-C stops it",
            soft_wrap=True,
        )
    else:
        console.print("ready; Ctrl-C stops it and forgets everything")


def _origins(stack: Stack) -> dict[str, str]:
    """Return where each function folder is, under the name that a front door looks for."""
    found: dict[str, str] = {}
    for name in [*stack.apps, *stack.others]:
        with contextlib.suppress(DefinitionError):  # no front door can have that name
            found[front_door.variable(name)] = stack.folder_url(name)
    return found
