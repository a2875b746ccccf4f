"""What a deploy is told: a project, keys and places, from one `.env` file and the environment.

Each environment has a file of its own (`.env`, `.env.staging`, …) and takes nothing from another's: a key of
production that staging forgot to name must be missing, not used. Variables of the shell go first, for CI.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit, urlunsplit

from stepbase import config
from stepbase.deploy import dotenv
from stepbase.deploy.errors import DeployError

REF = re.compile(r"[a-z]{20}")
_NAME = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,29}[a-z0-9])?")

FOR_DEPLOY = frozenset(
    {
        "SUPABASE_ACCESS_TOKEN",
        "SUPABASE_DB_PASSWORD",
        "SUPABASE_PROJECT_REF",
        "DATABASE_URL",
        "INNGEST_API_KEY",
        "GOOGLE_CLOUD_PROJECT",
        "GOOGLE_CLOUD_PROJECT_NUMBER",
        "GOOGLE_CLOUD_REGION",
        "STEPBASE_BASE_IMAGE",
        "STEPBASE_PUBLIC_ORIGIN",
        "STEPBASE_REGISTRY",
    }
)
"""Variables that a deploy uses itself and no function gets."""

NO_SECRETS = frozenset(
    {
        "GOOGLE_CLOUD_PROJECT",
        "GOOGLE_CLOUD_PROJECT_NUMBER",
        "GOOGLE_CLOUD_REGION",
        "INNGEST_BASE_URL",
        "INNGEST_ENV",
        "STEPBASE_BASE_IMAGE",
        "STEPBASE_PUBLIC_ORIGIN",
        "STEPBASE_REGISTRY",
        "SUPABASE_PROJECT_REF",
        "SUPABASE_URL",
    }
)
"""Variables that may be seen in what programs print; every other one is taken for a secret."""

FROM_THE_PLATFORM = frozenset(
    {
        "SUPABASE_URL",
        "SUPABASE_ANON_KEY",
        "SUPABASE_DB_URL",
        "SUPABASE_JWKS",
        "SUPABASE_PUBLISHABLE_KEY",
        "SUPABASE_PUBLISHABLE_KEYS",
        "SUPABASE_SECRET_KEY",
        "SUPABASE_SECRET_KEYS",
        "SUPABASE_SERVICE_ROLE_KEY",
    }
)
"""Variables that Supabase sets itself where it runs functions, and that cannot be set there."""

FOR_FUNCTIONS = (
    "INNGEST_BASE_URL",
    "INNGEST_ENV",
    "INNGEST_EVENT_KEY",
    "INNGEST_SIGNING_KEY",
    "INNGEST_SIGNING_KEY_FALLBACK",
    "SUPABASE_SECRET_KEY",
    "SUPABASE_URL",
)
"""Variables that functions get from the shell too; others must be named in the file."""


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything a deploy is told; values of variables stay out of `repr`.

    Attributes:
        env: The environment's name, or an empty string for the default one.
        file: The file's name, for messages.
        variables: All of them by name.
        in_file: Those that the file names.
        overridden: Those that the shell has another value for, which is taken.
        project_ref: The Supabase project, or None.
    """

    env: str
    file: str
    variables: Mapping[str, str] = field(repr=False)
    in_file: frozenset[str]
    project_ref: str | None
    overridden: frozenset[str] = frozenset()

    def get(self, name: str) -> str | None:
        """Return a variable, or None if it is not set or empty."""
        return self.variables.get(name) or None

    @property
    def functions_get(self) -> dict[str, str]:
        """The variables for functions."""
        return {
            name: value
            for name, value in self.variables.items()
            if value and name not in FOR_DEPLOY and (name in self.in_file or name in FOR_FUNCTIONS)
        }

    @property
    def own(self) -> dict[str, str]:
        """The project's own variables for functions: neither keys of ours nor of the platform."""
        ours = {*FOR_FUNCTIONS, *FROM_THE_PLATFORM}
        return {name: value for name, value in self.functions_get.items() if name not in ours}

    @property
    def public_origin(self) -> str | None:
        """`STEPBASE_PUBLIC_ORIGIN` without a trailing slash, or None."""
        origin = self.get("STEPBASE_PUBLIC_ORIGIN")
        return origin.rstrip("/") if origin else None

    @property
    def database(self) -> tuple[str, str | None] | None:
        """The database's URL without its password, and the password; None if there is no such URL.

        What cannot be read as a URL is not given back: where its password is, nobody knows.
        """
        url = self.get("DATABASE_URL")
        return None if url is None else _without_password(url, self.get("SUPABASE_DB_PASSWORD"))


def host_of(url: str) -> str:
    """Return the host of a URL, or an empty string if it has none or is none."""
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""


def _without_password(url: str, apart: str | None) -> tuple[str, str | None] | None:
    try:
        parts = urlsplit(url)
        is_url = parts.scheme in ("postgres", "postgresql") and bool(parts.hostname)
        is_url = is_url and (parts.port or 1) > 0 and not parts.fragment
    except ValueError:
        return None
    # A password that is not percent-encoded ends the host early: the rest of it would be in the path.
    if not is_url or "@" in parts.path + parts.query:
        return None
    account, _, place = parts.netloc.rpartition("@")
    user, _, password = account.partition(":")
    options = parse_qsl(parts.query, keep_blank_values=True)
    named = [value for name, value in options if name == "password"]
    kept = urlencode(
        [each for each in options if each[0] != "password"], quote_via=quote, safe="/:,"
    )
    netloc = f"{user}@{place}" if user else place
    query = kept if named else parts.query
    bare = urlunsplit(parts._replace(netloc=netloc, query=query))
    return bare, unquote(password) or (named[-1] if named else None) or apart


def read(root: Path, env: str, shell: Mapping[str, str] | None = None) -> Settings:
    """Read the environment's file under `root`, which need not be there, and the shell's variables.

    Raises:
        DeployError: If the name is none, or the file cannot be read.
    """
    if env and _NAME.fullmatch(env) is None:
        raise DeployError(
            f"--env {env!r}: expected lower-case letters, digits and - between them, e.g. staging"
        )
    file = f".env.{env}" if env else ".env"
    in_file = _in_file(root, file, is_shared=not env)
    shell = config.environment() if shell is None else shell
    known = {*FOR_DEPLOY, *FOR_FUNCTIONS, *in_file}
    taken = {name: shell[name] for name in known if shell.get(name)}
    variables = {**in_file, **taken}
    overridden = {
        name for name, value in taken.items() if in_file.get(name) not in (None, "", value)
    }
    return Settings(
        env,
        file,
        variables,
        frozenset(in_file),
        _project_ref(root, env, variables),
        frozenset(overridden),
    )


def problem_of_default_file(root: Path) -> str | None:
    """Say why the Supabase CLI might end at `.env`, which it reads whatever the environment is, or None."""
    try:
        _in_file(root, ".env", is_shared=True)
    except DeployError as error:
        return str(error)
    return None


def _in_file(root: Path, file: str, *, is_shared: bool) -> dict[str, str]:
    try:
        # Editors of Windows put a mark at the beginning, which is no part of the first name.
        return dotenv.parse((root / file).read_text("utf-8-sig"), file, is_shared=is_shared)
    except FileNotFoundError:
        return {}
    except UnicodeDecodeError as error:
        raise DeployError(f"{file} is no UTF-8 text: save it as UTF-8") from error
    except OSError as error:
        raise DeployError(f"{file} cannot be read: {error.strerror}") from error


def _project_ref(root: Path, env: str, variables: Mapping[str, str]) -> str | None:
    """Return the project: named, else the one of SUPABASE_URL, else the one `supabase link` left.

    The link is the default environment's alone: another one that names no project must not get this one.
    """
    named = variables.get("SUPABASE_PROJECT_REF")
    if named:
        return named
    ref, _, domain = host_of(variables.get("SUPABASE_URL", "")).partition(".")
    if domain == "supabase.co" and REF.fullmatch(ref):
        return ref
    if env:
        return None
    try:
        return (root / "supabase" / ".temp" / "project-ref").read_text("utf-8").strip() or None
    except OSError:
        return None
