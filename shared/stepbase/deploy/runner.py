"""Carries a plan out: the same objects that a dry run prints, in order, each noted when it is done."""

import os
import shlex
import subprocess
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

from stepbase import clock, config
from stepbase.deploy import staging, verify
from stepbase.deploy.errors import DeployError
from stepbase.deploy.journal import Journal
from stepbase.deploy.plan import (
    Action,
    Await,
    Command,
    Files,
    Plan,
    Stage,
    Sync,
    Verify,
    heading,
)
from stepbase.deploy.program import run_program
from stepbase.deploy.redact import Redactor
from stepbase.deploy.settings import NO_SECRETS
from stepbase.protocol import names, signing
from stepbase.sdk import http
from stepbase.sdk.http import Answer, Exchange

_LAST_LINES = 3
_POLL_SECONDS = 1.0
_TRIES = 5
_SECONDS_TO_ANSWER = 60
_CHECKED = frozenset({"functions", "front-doors", "answer", "sync", "verify"})
"""What is done anew after a check has failed."""

Say = Callable[[str], None]


@dataclass(frozen=True)
class Vault:
    """Values that actions name: variables for commands, and documents that commands read."""

    variables: Mapping[str, str] = field(repr=False)
    documents: Mapping[str, str] = field(repr=False)
    hidden_from_commands: frozenset[str] = frozenset()

    @cached_property
    def redacted(self) -> Redactor:
        """What takes every secret out of a text, should a program print one."""
        return Redactor(v for name, v in self.variables.items() if name not in NO_SECRETS)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a stage's actions: how many were done, how many were not needed or done before."""

    stage: str
    done: int
    left: int
    seconds: float


@dataclass(slots=True)
class Runner:
    """Runs a plan under `root`; `say` gets each line for the terminal."""

    root: Path
    plan: Plan
    vault: Vault
    journal: Journal
    say: Say
    outcomes: list[Outcome] = field(default_factory=list)

    def run(self) -> None:
        """Do what is not done yet.

        Raises:
            DeployError: If an action fails; the journal says which were done before.
        """
        for number, stage in enumerate(self.plan.stages, 1):
            self.say(heading(number, len(self.plan.stages), stage))
            began = clock.monotonic()
            done = [self._step(stage, index) for index in range(len(stage.actions))]
            left = len(done) - sum(done)
            self.outcomes.append(Outcome(stage.name, sum(done), left, clock.monotonic() - began))
        self.journal.close()

    def _step(self, stage: Stage, index: int) -> bool:
        """Do one action of a stage; returns whether there was something to do."""
        key, action = f"{stage.name}/{index}", stage.actions[index]
        if key in self.journal.done and not stage.is_repeated:
            self.say(f"  done before: {action.lines()[0]}")
            return False
        for line in action.lines():
            self.say(f"  {line}")
        try:
            is_done = self._do(action)
        except DeployError as error:
            if isinstance(action, Await | Verify):
                # Another deploy, or somebody, came between: what the journal holds does not hold any more.
                self.journal.forget(_CHECKED)
            raise DeployError(f"stage {stage.name} failed: {error}") from error
        self.journal.note(key)
        return is_done

    def _do(self, action: Action) -> bool:
        """Do an action; returns False if a command was not needed."""
        match action:
            case Files(staged):
                staging.write(self.root, staged)
            case Command():
                return self._command(action)
            case Await():
                self._await(action)
            case Sync():
                self._sync(action)
            case Verify():
                self._verify(action)
        return True

    @property
    def _signing_key(self) -> str:
        return self.vault.variables.get("INNGEST_SIGNING_KEY", "")

    def _command(self, command: Command) -> bool:
        if command.unless is not None and self._is_done(command):
            self.say("    not needed")
            return False
        given = None if command.stdin is None else self.vault.documents[command.stdin]
        last: deque[str] = deque(maxlen=_LAST_LINES)

        def show(line: str) -> None:
            shown = self.vault.redacted(line)
            self.say(f"    {shown}")
            last.append(shown)

        code = run_program(command.argv, self.root, self._environment(command), given, show)
        if code != 0:
            what = f"{command.line} ended with exit code {code}"
            raise DeployError("\n    ".join([what, *last]))
        return True

    def _is_done(self, command: Command) -> bool:
        assert command.unless is not None
        wanted = command.unless.prints
        try:
            asked = subprocess.run(
                command.unless.argv,
                cwd=self.root,
                env=self._environment(command),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=_SECONDS_TO_ANSWER,
            )
        except OSError as error:
            raise DeployError(
                f"{command.unless.argv[0]} cannot be run: {error.strerror}"
            ) from error
        except subprocess.TimeoutExpired as error:
            line = shlex.join(command.unless.argv)
            raise DeployError(f"{line} took more than {_SECONDS_TO_ANSWER} s") from error
        is_same = wanted is None or asked.stdout == self.vault.documents[wanted].encode()
        return asked.returncode == 0 and is_same

    def _environment(self, command: Command) -> dict[str, str]:
        """Return the shell's variables without our secrets, and with those the command is to have."""
        hidden = self.vault.hidden_from_commands
        base = {name: value for name, value in config.environment().items() if name not in hidden}
        secrets = {name: self.vault.variables[name] for name in command.secrets}
        return {**base, **command.settings, **secrets, "DO_NOT_TRACK": "1"}

    def _await(self, action: Await) -> None:
        served = action.served
        give_up = clock.monotonic() + action.seconds
        while True:
            problem = verify.health_problem(served, self._ask("GET", served.health))
            if problem is None and served.app_id is not None:
                problem = verify.open_problem(served, self._ask("GET", served.url))
            if problem is None:
                return
            if clock.monotonic() >= give_up:
                raise DeployError(f"after {action.seconds:.0f} s: {problem}")
            time.sleep(min(_POLL_SECONDS, action.seconds / 10))

    def _sync(self, action: Sync) -> None:
        answer = self._registered(action)
        if action.api is not None and answer.status == 404:
            self.say(f"    not known yet: PUT {action.served.url}")
            answer = self._registered(replace(action, api=None))
        problem = verify.sync_problem(action.served, answer)
        if problem is not None:
            raise DeployError(self.vault.redacted(problem))
        self.say(f"    {self.vault.redacted(verify.said(answer)) or 'registered'}")

    def _registered(self, action: Sync) -> Answer:
        """Have an app registered; what may pass by itself is asked again."""
        method, url, body = action.request
        for _ in range(_TRIES - 1):
            answer = self._ask_for_sync(action.api, method, url, body)
            if answer.status not in (0, 429) and answer.status < 500:
                return answer
            time.sleep(_POLL_SECONDS)
        return self._ask_for_sync(action.api, method, url, body)

    def _ask_for_sync(self, api: str | None, method: str, url: str, body: bytes) -> Answer:
        if api is None:
            return self._signed(method, url, body)
        headers = {
            "authorization": f"Bearer {self.vault.variables['INNGEST_API_KEY']}",
            "content-type": "application/json",
        }
        return self._ask(method, url, body, **headers)

    def _verify(self, action: Verify) -> None:
        served = action.served
        answer = self._signed("GET", served.url)
        problems = verify.signed_problems(served, answer, self._signing_key)
        key = signing.hash_key(self._signing_key)
        registered = self._ask("GET", action.registered, authorization=f"Bearer {key}")
        if verify.is_list(registered):
            problems += verify.registered_problems(served, registered)
        else:
            self.say(
                f"    the server does not tell what it has registered (HTTP {registered.status})"
            )
        if problems:
            raise DeployError("; ".join(problems))

    def _signed(self, method: str, url: str, body: bytes = b"") -> Answer:
        signature = signing.sign(body, self._signing_key, clock.now_s())
        return self._ask(method, url, body, **{names.SIGNATURE: signature})

    def _ask(self, method: str, url: str, body: bytes = b"", **headers: str) -> Answer:
        """Ask without following redirects: a signed request must not be carried elsewhere."""
        return http.send(Exchange(method, url, headers, body or None))


def tell_resume(error: str, journal: Journal, plan: Plan) -> str:
    """Return what a person is told when a deploy stops: what was done, and how to go on."""
    count = sum(len(stage.actions) for stage in plan.stages)
    done = list(dict.fromkeys(key.split("/")[0] for key in journal.done))
    whole = [
        stage.name
        for stage in plan.stages
        if stage.name in done
        and all(f"{stage.name}/{index}" in journal.done for index in range(len(stage.actions)))
    ]
    lines = [error, f"done: {len(set(journal.done))} of {count} actions"]
    if whole:
        lines[-1] += f"; whole stages: {', '.join(whole)}"
    again = "The same command goes on from here; with anything changed it begins anew."
    if journal.path is None:
        again = "The same command does these stages again."
    lines.append(f"nothing was undone. {again}")
    return os.linesep.join(lines)
