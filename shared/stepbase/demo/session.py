"""`stepbase demo` from beginning to end: play, verdict, exit code; a signal ends it cleanly."""

import asyncio
import json
import signal
from typing import Any

import click
from rich.console import Console

from stepbase.demo.play import Options, Play
from stepbase.demo.terminal import Terminal
from stepbase.local.stack import Stack

_INTERRUPTED = 130


def run(options: Options, console: Console, *, keep: bool, as_json: bool) -> int:
    """Play and return the exit code: 0 if the books are right, 1 if not, 130 if interrupted.

    Raises:
        DataError: The data file cannot be read.
        LocalError: The stack could not be started.
    """
    terminal = Terminal(console)
    play = Play(options, terminal)
    try:
        return asyncio.run(_run(play, terminal, keep=keep, as_json=as_json))
    except asyncio.CancelledError:
        terminal.say("interrupted; everything is stopped and removed")
        return _INTERRUPTED
    finally:
        terminal.finish()


async def _run(play: Play, terminal: Terminal, *, keep: bool, as_json: bool) -> int:
    task = asyncio.current_task()
    assert task is not None
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    terminal.title(
        "stepbase demo: real purchases become awards, each exactly once, though processes are killed"
    )
    async with play.stage() as stack:
        report = await play.run(stack)
        _judge(report, play, terminal, as_json=as_json)
        if keep:
            await _keep(stack, terminal)
    return 0 if report["ok"] else 1


def _judge(report: dict[str, Any], play: Play, terminal: Terminal, *, as_json: bool) -> None:
    terminal.verdict(report)
    if not report["ok"]:
        terminal.say("the last lines of the processes:")
        for line in play.last_words:
            terminal.say(line)
    if as_json:
        click.echo(json.dumps(report))


async def _keep(stack: Stack, terminal: Terminal) -> None:
    """Say where everything is, and wait for a signal."""
    terminal.say("still running, until Ctrl-C:")
    for name, value in stack.client_environment().items():
        terminal.say(f"  {name}={value}")
    terminal.say(f"the console: {stack.engine_url}")
    try:
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        terminal.say("stopping")
