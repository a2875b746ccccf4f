"""The journal of a deploy: which actions of which plan are done, so that an interrupted one goes on.

It holds no secret: whether they are still the same is told by a slow salted hash of all of them together.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import secrets
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stepbase import clock
from stepbase.deploy.errors import DeployError
from stepbase.deploy.plan import Plan

FOLDER = "build/.deploy"
MOST_AGE_S = 24 * 3600
"""Who comes back later finds a project that others may have changed: everything is done again."""


@dataclass(slots=True)
class Journal:
    """What is done of one plan.

    Attributes:
        path: The file, or None to keep nothing (part of a plan).
        done: Keys of actions that are done.
    """

    path: Path | None
    plan: str
    salt: str
    given: str
    started_s: int
    done: list[str] = field(default_factory=list)

    def note(self, key: str) -> None:
        """Note an action as done; on disk before this returns."""
        self.done.append(key)
        self._write()

    def _write(self) -> None:
        if self.path is None:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        fresh = self.path.with_suffix(".fresh")
        with open(fresh, "w", encoding="utf-8") as file:
            json.dump({name: getattr(self, name) for name in _FIELDS}, file, indent=1)
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(self.path)

    def forget(self, stages: Collection[str]) -> None:
        """Take actions of these stages for not done: something has shown that they had no lasting effect."""
        self.done = [key for key in self.done if key.partition("/")[0] not in stages]
        self._write()

    def close(self) -> None:
        """Forget it: everything is done."""
        if self.path is not None:
            self.path.unlink(missing_ok=True)


_FIELDS = ("plan", "salt", "given", "started_s", "done")


def open_for(root: Path, plan: Plan, values: Mapping[str, str], *, is_whole: bool) -> Journal:
    """Return the journal of an earlier try of exactly this plan, or a new one.

    Args:
        values: Secrets by name.
        is_whole: False for a part of a plan (`--only`), which is never resumed.
    """
    if not is_whole:
        return Journal(None, plan.digest, "", "", 0)
    name = "-".join(filter(None, (plan.target, plan.env)))
    path = root / FOLDER / f"{name}.json"
    now = clock.now_s()
    try:
        found: dict[str, Any] = json.loads(path.read_text("utf-8"))
        old = Journal(path, **{name: found[name] for name in _FIELDS})
        is_same = old.plan == plan.digest and 0 <= now - old.started_s < MOST_AGE_S
        if is_same and secrets.compare_digest(old.given, _fingerprint(values, old.salt)):
            return old
    except (OSError, ValueError, KeyError, TypeError):
        pass  # none, or one that was not written by this version: begin anew
    salt = secrets.token_hex(16)
    return Journal(path, plan.digest, salt, _fingerprint(values, salt), now)


def _fingerprint(values: Mapping[str, str], salt: str) -> str:
    text = json.dumps(sorted(values.items())).encode()
    return hashlib.scrypt(text, salt=bytes.fromhex(salt), n=2**14, r=8, p=1, dklen=16).hex()


@contextlib.contextmanager
def alone(root: Path) -> Iterator[None]:
    """Let one deploy at a time work in this project's build folder.

    Raises:
        DeployError: If another one is at it; its lock goes with its process, however that ends.
    """
    folder = root / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "lock", "w", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise DeployError("another deploy of this project is running; wait for it") from error
        yield
