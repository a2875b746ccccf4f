"""A plan: stages, each a list of actions, printed and carried out from the same values.

What a dry run prints is what `runner` does, because both read these objects and nothing else. Secrets are in
them by name only; the runner looks the values up.
"""

import hashlib
import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field

from stepbase.deploy.staging import Staged


@dataclass(frozen=True, slots=True)
class Files:
    """Write files under the project's root; a staged folder is replaced as a whole."""

    staged: Staged

    def lines(self) -> list[str]:
        """Return how it is printed: what is listed by itself, and packages by their number of files."""
        packages: dict[str, int] = {}
        own = []
        for name in self.staged.files:
            package, _, rest = name.partition("/")
            if rest:
                packages[package] = packages.get(package, 0) + 1
            else:
                own.append(name)
        listed = [*own, *(f"{name}/ ({count} files)" for name, count in packages.items())]
        size = f"{self.staged.size / 1024:.0f} KiB"
        number = f"{len(self.staged.files)} file" + ("s" if len(self.staged.files) != 1 else "")
        printed = [
            f"write {self.staged.folder}: {number}, {size}, digest {self.staged.digest}",
            f"  {', '.join(listed)}",
        ]
        if self.staged.left_out:
            printed.append(
                f"  left out, for no image may have them: {', '.join(self.staged.left_out)}"
            )
        return printed


@dataclass(frozen=True, slots=True)
class Unless:
    """A question asked before a command: it is not needed if this one succeeds.

    Attributes:
        prints: The document that its output must equal, too; None if success is enough.
    """

    argv: tuple[str, ...]
    prints: str | None = None


@dataclass(frozen=True, slots=True)
class Command:
    """Run a program in the project's root.

    Attributes:
        settings: Variables it gets that are no secrets.
        secrets: Names of variables it gets that are.
        stdin: Name of the document it reads, or None.
        holds: Names of the secrets in that document.
        unless: What may make it unnecessary.
        why: What it does, for those who do not know the program.
    """

    argv: tuple[str, ...]
    settings: Mapping[str, str] = field(default_factory=dict)
    secrets: tuple[str, ...] = ()
    stdin: str | None = None
    holds: tuple[str, ...] = ()
    unless: Unless | None = None
    why: str = ""

    @property
    def line(self) -> str:
        """The command as a shell would take it, but for its secrets."""
        before = [f"{name}={shlex.quote(value)}" for name, value in self.settings.items()]
        return " ".join([*before, shlex.join(self.argv)])

    def lines(self) -> list[str]:
        """Return how it is printed."""
        printed = [f"$ {self.line}"]
        if self.why:
            printed.append(f"  {self.why}")
        if self.unless is not None:
            why = "prints the same value" if self.unless.prints else "succeeds"
            printed.insert(
                0, f"? {shlex.join(self.unless.argv)}  (if it {why}, the next command is left out)"
            )
        if self.secrets:
            printed.append(f"  secrets in its environment: {', '.join(self.secrets)}")
        if self.stdin is not None:
            printed.append(f"  reads from us: {', '.join(self.holds)} (values not shown)")
        return printed


@dataclass(frozen=True, slots=True)
class Served:
    """A folder as it is served after the deploy.

    Attributes:
        name: The folder.
        app_id: Its app's id, or None for a folder without one.
        function_count: How many functions the app has.
        url: The serve URL, which the server of runs registers and calls; the folder's own `/` without one.
        health: Where its health is asked.
        deployment: The staged folder's digest.
    """

    name: str
    app_id: str | None
    function_count: int
    url: str
    health: str
    deployment: str

    @property
    def counted(self) -> str:
        """The number of functions, in words."""
        return f"{self.function_count} function" + ("" if self.function_count == 1 else "s")


@dataclass(frozen=True, slots=True)
class Await:
    """Wait until a folder answers as the deployment that was just made."""

    served: Served
    seconds: float

    def lines(self) -> list[str]:
        """Return how it is printed."""
        served = self.served
        until = f"until it is deployment {served.deployment} (at most {self.seconds:.0f} s)"
        printed = [f"> GET {served.health}  {until}"]
        if served.app_id is not None:
            printed.append(f"> GET {served.url}  must say: mode cloud, {served.counted}")
        return printed


@dataclass(frozen=True, slots=True)
class Sync:
    """Have an app registered: by asking the app (PUT), or Inngest (its v2 API)."""

    served: Served
    api: str | None

    @property
    def request(self) -> tuple[str, str, bytes]:
        """Method, URL and body of the request."""
        if self.api is None:
            return "PUT", self.served.url, b""
        body = json.dumps({"url": self.served.url}).encode()
        return "POST", f"{self.api}/v2/apps/{self.served.app_id}/syncs", body

    def lines(self) -> list[str]:
        """Return how it is printed."""
        method, url, body = self.request
        secret = "INNGEST_API_KEY" if self.api else "INNGEST_SIGNING_KEY"
        said = f" {body.decode()}" if body else ""
        printed = [f"> {method} {url}{said}", f"  authorised by {secret}"]
        if self.api is not None:
            put = f"if Inngest knows no such app yet: PUT {self.served.url}, by INNGEST_SIGNING_KEY"
            printed.append(f"  {put}")
        return printed


@dataclass(frozen=True, slots=True)
class Verify:
    """Ask an app, signed, what it is, and the server of runs what it has registered; compare both.

    Attributes:
        api: The server's API.
    """

    served: Served
    api: str

    @property
    def registered(self) -> str:
        """Where the server says what it has registered."""
        return f"{self.api}/v1/apps/{self.served.app_id}/functions"

    def lines(self) -> list[str]:
        """Return how it is printed."""
        served = self.served
        return [
            f"> GET {served.url} (signed)  must say: app {served.app_id}, "
            f"{served.counted}, mode cloud, served at {served.url}",
            f"> GET {self.registered}  must have this URL for each function, where it answers",
            "  authorised by INNGEST_SIGNING_KEY",
        ]


Action = Files | Command | Await | Sync | Verify


@dataclass(frozen=True, slots=True)
class Stage:
    """Actions that belong together.

    Attributes:
        name: What `--only` calls it.
        why: What it is for, in one line.
        is_repeated: Whether a resumed deploy does it again though it was done.
    """

    name: str
    why: str
    actions: tuple[Action, ...]
    is_repeated: bool = False


@dataclass(frozen=True, slots=True)
class Plan:
    """The stages of a deploy, in order, and where everything will be served."""

    target: str
    env: str
    stages: tuple[Stage, ...]
    served: tuple[Served, ...]

    @property
    def digest(self) -> str:
        """A name for exactly this plan: staged contents and commands."""
        return hashlib.sha256(self.text().encode()).hexdigest()[:16]

    def text(self) -> str:
        """Return the plan as it is printed."""
        printed = []
        for number, stage in enumerate(self.stages, 1):
            printed.append(heading(number, len(self.stages), stage))
            printed += [f"  {line}" for action in stage.actions for line in action.lines()]
        return "\n".join(printed) + "\n"


def heading(number: int, count: int, stage: Stage) -> str:
    """Return the line that a stage begins with."""
    return f"{number}/{count} {stage.name}: {stage.why}"
