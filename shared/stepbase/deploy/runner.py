"""Carries a plan out: the same objects that a dry run prints, in order, each noted when it is done."""

import os
import subprocess
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from stepbase import clock, config
from stepbase.deploy import staging, verify
from stepbase.deploy.errors import DeployError
from stepbase.deploy.journal import Journal
from stepbase.deploy.plan import Action, Await, Command, Files, Plan, Sync, Verify, heading
from stepbase.deploy.settings import NO_SECRETS
from stepbase.protocol import names, signing
from stepbase.sdk import http
from stepbase.sdk.http import Answer, Exchange

_LAST_LINES = 3
_LEAST_REDACTED = 6
_POLL_SECONDS = 1.0
_TRIES = 5

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Vault:
    """Values that actions name: variables for commands, and documents that commands read."""

    variables: Mapping[str, str] = field(repr=False)
    documents: Mapping[str, str] = field(repr=False)
    hidden_from_commands: frozenset[str] = frozenset()

    def redacted(self, text: str) -> str:
        """Return text without any secret, should a program print one."""
        for name, value in self.variables.items():
            if name not in NO_SECRETS and len(value) >= _LEAST_REDACTED:
                text = text.replace(value, "•••")
        return text


@dataclass(slots=True)
class Runner:
    """Runs a plan under `root`; `say` gets each line for the terminal."""

    root: Path
    plan: Plan
    vault: Vault
    journal: Journal
    say: Say

    def run(self) -> None:
        """Do what is not done yet.

        Raises:
            DeployError: If an action fails; the journal says which were done before.
        """
        for number, stage in enumerate(self.plan.stages, 1):
            self.say(heading(number, len(self.plan.stages), stage))
            for index, action in enumerate(stage.actions):
                key = f"{stage.name}/{index}"
                if key in self.journal.done and not stage.is_repeated:
                    self.say(f"  done before: {action.lines()[0]}")
                    continue
                for line in action.lines():
                    self.say(f"  {line}")
                try:
                    self._do(action)
                except DeployError as error:
                    raise DeployError(f"stage {stage.name} failed: {error}") from error
                self.journal.note(key)
        self.journal.close()

    def _do(self, action: Action) -> None:
        match action:
            case Files(staged):
                staging.write(self.root, staged)
            case Command():
                self._command(action)
            case Await():
                self._await(action)
            case Sync():
                self._sync(action)
            case Verify():
                self._verify(action)

    @property
    def _signing_key(self) -> str:
        return self.vault.variables.get("INNGEST_SIGNING_KEY", "")

    def _command(self, command: Command) -> None:
        if command.unless is not None and self._is_done(command):
            self.say("    not needed")
            return
        given = None if command.stdin is None else self.vault.documents[command.stdin]
        process = subprocess.Popen(
            command.argv,
            cwd=self.root,
            env=self._environment(command),
            stdin=subprocess.DEVNULL if given is None else subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            errors="replace",
        )
        try:
            last = self._follow(process, given)
        except BaseException:
            process.terminate()
            process.wait()
            raise
        if process.returncode != 0:
            what = f"{command.line} ended with exit code {process.returncode}"
            raise DeployError("\n    ".join([what, *last]))

    def _follow(self, process: "subprocess.Popen[str]", given: str | None) -> list[str]:
        """Feed a program and show what it prints, until it ends; return its last lines."""
        assert process.stdout is not None
        if given is not None:
            assert process.stdin is not None
            try:
                process.stdin.write(given)
                process.stdin.close()
            except BrokenPipeError:
                pass  # it has ended, and its exit code says why
        last: deque[str] = deque(maxlen=_LAST_LINES)
        for line in process.stdout:
            shown = self.vault.redacted(line.rstrip())
            if shown:
                self.say(f"    {shown}")
                last.append(shown)
        process.wait()
        return list(last)

    def _is_done(self, command: Command) -> bool:
        assert command.unless is not None
        asked = subprocess.run(
            command.unless.argv,
            cwd=self.root,
            env=self._environment(command),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
        )
        wanted = command.unless.prints
        is_same = wanted is None or asked.stdout == self.vault.documents[wanted]
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
        method, url, body = action.request
        for attempt in range(1, _TRIES + 1):
            if action.api is None:
                answer = self._signed(method, url, body)
            else:
                key = self.vault.variables["INNGEST_API_KEY"]
                answer = self._ask(
                    method,
                    url,
                    body,
                    authorization=f"Bearer {key}",
                    **{"content-type": "application/json"},
                )
            problem = verify.sync_problem(action.served, answer)
            is_final = answer.status != 0 and answer.status < 500 and answer.status != 429
            if problem is None:
                self.say(f"    {verify.said(answer) or 'registered'}")
                return
            if is_final or attempt == _TRIES:
                raise DeployError(self.vault.redacted(problem))
            time.sleep(_POLL_SECONDS)

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
