"""Where function folders run: Supabase Compute, Cloud Run, or containers on a host of one's own.

Each target knows the URLs of its folders before anything is deployed, because they are written into the
images: behind Supabase an app cannot see its own URL (`docs/deploy.md`).
"""

import json
import re
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from stepbase.deploy.plan import Action, Command, Files, Unless
from stepbase.deploy.settings import FROM_THE_PLATFORM, Settings
from stepbase.deploy.staging import BUILD, ENGINE, PORT, Staged

SERVE_PATH = "/api/inngest"
FIRST_PORT = 8300
PORTS = 700
_KEYS = ("INNGEST_EVENT_KEY", "INNGEST_SIGNING_KEY")
_AWAY_FROM_SUPABASE = (*_KEYS, "SUPABASE_SECRET_KEY", "SUPABASE_URL")
ENGINE_GETS = ("DATABASE_URL", "INNGEST_EVENT_KEY", "INNGEST_SIGNING_KEY")
_OURS_ALONE = {"COMPOSE_DISABLE_ENV_FILE": "1"}  # Compose would read another environment's .env
EXPERIMENTAL = {"SUPABASE_EXPERIMENTAL_COMPUTE": "1"}
"""What the Supabase CLI must be told before it knows its commands for Compute."""
_UP = "replaces the container if anything of it has changed, and waits until it is healthy"
_NOT_DNS = re.compile(r"[^a-z0-9-]")


def label(folder: str) -> str:
    """Return a folder's name as DNS takes it."""
    return _NOT_DNS.sub("-", folder.lower())


def service(folder: str, env: str = "") -> str:
    """Return what a folder is called where several environments may be: with the environment after its name.

    The default environment has no name there. The folder comes first, because Cloud Run wants a letter there.
    """
    return "-".join(filter(None, (label(folder), env)))


def compose_folder(env: str = "") -> str:
    """Return where an environment's Compose files are; no folder of functions has a dot in its name."""
    return f"{BUILD}/compose.{env}" if env else f"{BUILD}/compose"


@dataclass(frozen=True, slots=True)
class Place:
    """Where a folder is served.

    Attributes:
        origin: Scheme, host and port.
        prefix: The path of the folder's own `/`, without a slash at the end.
        serve_path: The path at which its app is registered.
    """

    origin: str
    prefix: str
    serve_path: str

    @property
    def base(self) -> str:
        """The URL of the folder's own `/`, without a slash at the end."""
        return f"{self.origin}{self.prefix}"

    @property
    def url(self) -> str:
        """The serve URL."""
        return f"{self.origin}{self.serve_path}"


class Target(Protocol):
    """What planning needs to know of a target."""

    @property
    def name(self) -> str:
        """What `--target` calls it."""

    @property
    def needed(self) -> Sequence[str]:
        """The variables that functions cannot do without here."""

    def place(self, folder: str) -> Place:
        """Return where a folder will be."""

    def secrets(self, settings: Settings) -> dict[str, str]:
        """Return the variables that functions must be given here."""

    def set_secrets(self, names: Sequence[str]) -> list[Action]:
        """Return what stores these variables for functions, or nothing where they go with the deploy."""

    def where(self, folders: Sequence[str]) -> str:
        """Return what there is to know of where these folders will run, in words."""

    def deploy(self, staged: Mapping[str, Staged], names: Sequence[str]) -> list[Action]:
        """Return what brings the staged folders, by name, to where they run, with these variables."""


@dataclass(frozen=True, slots=True)
class Supabase:
    """The Supabase CLI, for one project; its access token goes through the environment."""

    ref: str
    has_token: bool

    def command(
        self,
        *words: str,
        why: str,
        stdin: str | None = None,
        holds: Sequence[str] = (),
        **settings: str,
    ) -> Command:
        """Return a command on the project; `--yes`, because nobody can be asked."""
        return Command(
            ("supabase", *words, f"--remote={self.ref}", "--yes"),
            settings=settings,
            secrets=("SUPABASE_ACCESS_TOKEN",) if self.has_token else (),
            stdin=stdin,
            holds=tuple(holds),
            why=why,
        )


def supabase_cli(settings: Settings) -> Supabase:
    """Return the Supabase CLI for the settings' project."""
    ref = settings.project_ref or "<SUPABASE_PROJECT_REF>"
    return Supabase(ref, settings.get("SUPABASE_ACCESS_TOKEN") is not None)


@dataclass(frozen=True, slots=True)
class Compute:
    """Supabase Compute, inside the project.

    Attributes:
        origin: The project's, or a domain of its own.
        names: Each folder's name there, from config.toml.
    """

    cli: Supabase
    origin: str
    names: Mapping[str, str]
    name: str = "compute"
    needed: Sequence[str] = _KEYS

    def place(self, folder: str) -> Place:
        """Return `…/compute/v1/<name>`, a prefix that the platform removes."""
        path = f"/compute/v1/{self.names.get(folder, label(folder))}"
        return Place(self.origin, path, path)

    def secrets(self, settings: Settings) -> dict[str, str]:
        """Return all but what the platform sets itself."""
        found = settings.functions_get
        return {name: value for name, value in found.items() if name not in FROM_THE_PLATFORM}

    def set_secrets(self, names: Sequence[str]) -> list[Action]:
        """Return nothing: they are the project's secrets, which are set for every target."""
        return []

    def where(self, folders: Sequence[str]) -> str:
        """Return the target's name."""
        return "Supabase Compute"

    def deploy(self, staged: Mapping[str, Staged], names: Sequence[str]) -> list[Action]:
        """Push one after another; the CLI waits for each build."""
        return [
            self.cli.command(
                "compute",
                "push",
                self.names.get(name, label(name)),
                why=f"uploads {each.folder}, builds its image there, and waits for it",
                **EXPERIMENTAL,
            )
            for name, each in staged.items()
        ]


@dataclass(frozen=True, slots=True)
class CloudRun:
    """Google Cloud Run; secrets are in its Secret Manager."""

    project: str
    number: str
    region: str
    env: str
    origin: str | None
    name: str = "cloudrun"
    needed: Sequence[str] = _AWAY_FROM_SUPABASE

    def place(self, folder: str) -> Place:
        """Return the URL that Cloud Run makes of name, number and region, or the domain of one's own."""
        host = f"https://{service(folder, self.env)}-{self.number}.{self.region}.run.app"
        prefix = "" if self.origin is None else f"/{folder}"
        return Place(self.origin or host, prefix, prefix + SERVE_PATH)

    def secrets(self, settings: Settings) -> dict[str, str]:
        """Return all of them."""
        return settings.functions_get

    def set_secrets(self, names: Sequence[str]) -> list[Action]:
        """Return what makes each secret, and gives it a version when its value is another one."""
        actions: list[Action] = []
        for name in names:
            secret, project = self._id(name), f"--project={self.project}"
            create = ("create", secret, project, "--replication-policy=automatic", "--quiet")
            latest = ("access", "latest", f"--secret={secret}", project)
            actions += [
                Command(
                    ("gcloud", "secrets", *create),
                    unless=Unless(("gcloud", "secrets", "describe", secret, project)),
                    why=f"makes a secret for {name}, still without a value",
                ),
                Command(
                    ("gcloud", "secrets", "versions", "add", secret, project, "--data-file=-"),
                    stdin=name,
                    holds=(name,),
                    unless=Unless(("gcloud", "secrets", "versions", *latest), prints=name),
                    why="gives it its value",
                ),
            ]
        return actions

    def where(self, folders: Sequence[str]) -> str:
        """Return the target's name."""
        return "Cloud Run"

    def deploy(self, staged: Mapping[str, Staged], names: Sequence[str]) -> list[Action]:
        """Build in the cloud and start a new revision; the old one serves until the new one is ready."""
        secrets = ",".join(f"{name}={self._id(name)}:latest" for name in names)
        return [
            Command(
                (
                    "gcloud", "run", "deploy", service(name, self.env),
                    f"--source={each.folder}",
                    f"--project={self.project}", f"--region={self.region}",
                    f"--port={PORT}", "--cpu=1", "--memory=512Mi", "--cpu-boost",
                    "--concurrency=40", "--timeout=3600", "--min-instances=0", "--max-instances=20",
                    "--allow-unauthenticated",
                    f"--update-labels=stepbase-deployment={each.digest}",
                    *([f"--set-secrets={secrets}"] if secrets else []),
                    "--quiet",
                ),
                why="builds the image in the cloud, and serves it once it is ready",
            )
            for name, each in staged.items()
        ]  # fmt: skip

    def _id(self, name: str) -> str:
        return "-".join(filter(None, ("stepbase", self.env, name)))


@dataclass(frozen=True, slots=True)
class Docker:
    """Containers of one host, behind a proxy that ends TLS; images go through a registry if one is named."""

    origin: str
    registry: str | None
    env: str = ""
    name: str = "docker"
    needed: Sequence[str] = _AWAY_FROM_SUPABASE

    def place(self, folder: str) -> Place:
        """Return `<origin>/<folder>/api/inngest`; the proxy may keep the prefix or remove it."""
        return Place(self.origin, f"/{folder}", f"/{folder}{SERVE_PATH}")

    def secrets(self, settings: Settings) -> dict[str, str]:
        """Return all of them."""
        return settings.functions_get

    def set_secrets(self, names: Sequence[str]) -> list[Action]:
        """Return nothing: Compose passes them on from its environment."""
        return []

    def where(self, folders: Sequence[str]) -> str:
        """Return the ports that a proxy passes requests to."""
        ports = ", ".join(f"{name} on 127.0.0.1:{port_of(name, self.env)}" for name in folders)
        return f"Docker ({ports})"

    def deploy(self, staged: Mapping[str, Staged], names: Sequence[str]) -> list[Action]:
        """Build (and push) each image, then let Compose replace its container if it has changed.

        Each folder is a Compose project of its own, so that one can be deployed without the others.
        """
        actions: list[Action] = []
        for name, each in staged.items():
            image = self._image(name, each)
            build = ("docker", "build", "--pull", "--tag", image, each.folder)
            actions.append(Command(build, why="builds the image; its tag is the digest"))
            if self.registry is not None:
                actions.append(Command(("docker", "push", image), why="brings it to the registry"))
            given = ENGINE_GETS if name == ENGINE else tuple(names)
            text = compose(name, image, given, self.env)
            file = Staged.of(f"{compose_folder(self.env)}/{name}", {"compose.yaml": text.encode()})
            up = ("up", "--detach", "--wait", "--no-build")
            line = ("docker", "compose", "--file", f"{file.folder}/compose.yaml", *up)
            actions += [Files(file), Command(line, _OURS_ALONE, secrets=given, why=_UP)]
        return actions

    def _image(self, name: str, staged: Staged) -> str:
        registry = f"{self.registry.rstrip('/')}/" if self.registry else ""
        return f"{registry}{label(name)}:{staged.digest}"


def port_of(folder: str, env: str = "") -> int:
    """Return the loopback port of a folder's container: of these names alone, so that it never moves."""
    return FIRST_PORT + zlib.crc32(service(folder, env).encode()) % PORTS


def compose(folder: str, image: str, names: Sequence[str], env: str = "") -> str:
    """Return a Compose file: one container on a loopback port, read-only, without capabilities."""
    lines = [
        "# Made by `stepbase deploy`; the variables come from the environment of `docker compose`.\n",
        f"name: stepbase-{service(folder, env)}\n",
        "services:\n",
        f"  {json.dumps(label(folder))}:\n",  # which would be no text if it were null, say
        f"    image: {json.dumps(image)}\n",
        "    restart: unless-stopped\n",
        "    init: true\n",
        "    read_only: true\n",
        "    tmpfs: [/tmp]\n",
        "    cap_drop: [ALL]\n",
        "    security_opt: [no-new-privileges:true]\n",
        "    stop_grace_period: 35s\n",
        f'    ports: ["127.0.0.1:{port_of(folder, env)}:{PORT}"]\n',
    ]
    if names:
        lines.append("    environment:\n")
        lines += [
            f"      {json.dumps(each)}: ${{{each}?set it, or run stepbase deploy}}\n"
            for each in names
        ]
    return "".join(lines)
