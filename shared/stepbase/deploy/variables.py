"""What is wrong with the variables of a deploy: missing, of another form, or dangerous."""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from urllib.parse import urlsplit

from stepbase.deploy import dotenv
from stepbase.deploy.planning import Project, Wish
from stepbase.deploy.problem import Problem
from stepbase.deploy.settings import (
    FOR_DEPLOY,
    FOR_FUNCTIONS,
    FROM_THE_PLATFORM,
    REF,
    Settings,
    host_of,
    problem_of_default_file,
)
from stepbase.protocol.signing import key_text

MOST_SECRETS = 100
MOST_SECRET_BYTES = 48 * 1024
_TOKEN = re.compile(r"sbp_[0-9a-f]{40}|sbp_[A-Za-z0-9_]{20,}")
_NAMES_TOKEN = re.compile(r"^\s*(?:export\s+)?SUPABASE_ACCESS_TOKEN\s*=", re.MULTILINE)
_HEX = re.compile(r"(?:[0-9a-fA-F]{2})+")
_TRANSACTION_POOLER = 6543
_LOOPBACK = ("localhost", "127.0.0.1", "::1")
_WRITTEN_BY_US = ("INNGEST_SERVE_ORIGIN", "INNGEST_SERVE_PATH", "STEPBASE_DEPLOYMENT")
_OF_THE_HOST = re.compile(
    r"PORT|HOST|PATH|HOME|PYTHON(PATH|HOME)|LD_(PRELOAD|LIBRARY_PATH)|K_(SERVICE|REVISION|CONFIGURATION)"
    r"|GUNICORN_CMD_ARGS|FUNCTION_(TARGET|SOURCE|SIGNATURE_TYPE|USE_ASGI)"
)
_OF_A_PROJECT = re.compile(
    r"^[^ ]*\.(?P<user>[a-z]{20}) [^ ]*pooler\.supabase\.com$| db\.(?P<host>[a-z]{20})\.supabase\.co$"
)
_KNOWN = FOR_DEPLOY | FROM_THE_PLATFORM | set(FOR_FUNCTIONS)
_PLACEHOLDER = re.compile(r"<[^<>]*>")
_HOST = r"(?:[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?"
_WEB = re.compile(rf"https?://{_HOST}(?:/[^\s?#]*)?")
_ORIGIN = re.compile(rf"https?://{_HOST}")


def is_part(wish: Wish, *stages: str) -> bool:
    """Say whether any of these stages may be part of the deploy."""
    return not wish.only or bool(set(stages) & set(wish.only))


def needs_supabase(wish: Wish, project: Project) -> bool:
    """Say whether the deploy changes anything by the Supabase CLI besides the database."""
    is_compute = wish.target == "compute"
    return (
        (is_compute and is_part(wish, "functions", "secrets"))
        or (wish.front_door and is_part(wish, "front-doors", "secrets"))
        or (bool(project.notebooks) and is_part(wish, "notebooks"))
    )


def _has_token(file: Path) -> bool:
    try:
        return _NAMES_TOKEN.search(file.read_text("utf-8", "replace")) is not None
    except OSError:
        return False


def lacks_a_password(settings: Settings) -> bool:
    """Say whether there is a database's URL without a password in it; a socket's file needs none."""
    url = settings.get("DATABASE_URL")
    return url is not None and settings.database is not None and settings.database[0] == url


def needs_project(wish: Wish, project: Project) -> bool:
    """Say whether the project's name is in anything that the deploy does: its commands, or URLs."""
    return needs_supabase(wish, project) or wish.target == "compute" or wish.front_door


def changes_database(wish: Wish, project: Project) -> bool:
    """Say whether migrations are part of the deploy."""
    return project.has_migrations and is_part(wish, "database") and not wish.skip_db


def supabase(wish: Wish, project: Project, settings: Settings) -> Iterable[Problem]:
    """Yield what is wrong with the project and the access token."""
    if not needs_project(wish, project):
        return
    ref = settings.project_ref
    if ref is None:
        yield Problem(
            "SUPABASE_PROJECT_REF",
            "no Supabase project is named",
            f"put it into {settings.file}: the 20 letters in your dashboard's URL",
        )
    elif REF.fullmatch(ref) is None:
        yield Problem("SUPABASE_PROJECT_REF", f"{ref!r} is no project ref", "20 lower-case letters")
    if not needs_supabase(wish, project):
        return
    token = settings.get("SUPABASE_ACCESS_TOKEN")
    if token is None and settings.env and _has_token(project.root / ".env"):
        # The CLI reads .env where it runs, whatever the environment of the deploy is.
        yield Problem(
            "SUPABASE_ACCESS_TOKEN",
            f"not set in {settings.file}, so the Supabase CLI would take the one of .env",
            f"put the token that is meant into {settings.file}",
        )
    elif token is None:
        yield Problem(
            "SUPABASE_ACCESS_TOKEN",
            "not set",
            "fine after `supabase login`; for CI make one at supabase.com/dashboard/account/tokens",
            is_fatal=False,
        )
    elif _TOKEN.fullmatch(token) is None:
        yield Problem(
            "SUPABASE_ACCESS_TOKEN",
            "not an access token, which begins with sbp_",
            "make one at supabase.com/dashboard/account/tokens; it is none of the project's API keys",
        )


def default_file(wish: Wish, project: Project, settings: Settings) -> Iterable[Problem]:
    """Yield what the Supabase CLI would end at in `.env`; that environment's own deploy refuses it itself."""
    if settings.env and (needs_supabase(wish, project) or changes_database(wish, project)):
        problem = problem_of_default_file(project.root)
        if problem is not None:
            yield Problem(
                ".env", problem, f"the CLI reads it besides {settings.file}: change that line"
            )


def database(wish: Wish, project: Project, settings: Settings) -> Iterable[Problem]:
    """Yield what is wrong with the database's URL; that it is of the project, whatever is deployed."""
    given, found = settings.get("DATABASE_URL"), settings.database
    if found is not None:
        yield from _of_another_project(settings, found[0])
    if not changes_database(wish, project):
        return
    if given is None:
        yield Problem(
            "DATABASE_URL",
            "not set",
            f"put the session pooler's URL (dashboard, Connect) into {settings.file}, or --skip-db",
        )
    elif "[YOUR-PASSWORD]" in given:
        yield Problem(
            "DATABASE_URL",
            "has [YOUR-PASSWORD] in it, as the dashboard shows it",
            "put the database's password there, percent-encoded, or take it out and set "
            "SUPABASE_DB_PASSWORD",
        )
    elif found is None:
        yield Problem(
            "DATABASE_URL",
            "not a URL of a database, or its password is not percent-encoded (@ : / ? # [ ] %)",
            "postgresql://user:password@host:5432/postgres; or take the password out and set "
            "SUPABASE_DB_PASSWORD",
        )
    else:
        yield from _pooler(found[0])


def _pooler(bare: str) -> Iterable[Problem]:
    if urlsplit(bare).port == _TRANSACTION_POOLER:
        yield Problem(
            "DATABASE_URL",
            f"port {_TRANSACTION_POOLER} is the transaction pooler, where migrations may break",
            "the session pooler or a direct connection: port 5432",
        )


def _of_another_project(settings: Settings, bare: str) -> Iterable[Problem]:
    url = urlsplit(bare)
    named = _OF_A_PROJECT.search(f"{url.username or ''} {url.hostname or ''}")
    ref = (named["user"] or named["host"]) if named else None
    if ref is not None and settings.project_ref is not None and ref != settings.project_ref:
        yield Problem(
            "DATABASE_URL",
            f"is of project {ref}, and everything else would go to {settings.project_ref}",
            "take both from one project's dashboard",
        )


def given(settings: Settings) -> Iterable[Problem]:
    """Yield what stands in the file that nobody can have meant, and what the shell has changed of it."""
    for name, value in settings.variables.items():
        if value.rstrip().endswith("…") or _PLACEHOLDER.fullmatch(value):
            # Only of these names it is known what they may hold: an address of mail may stand in < and >.
            yield Problem(
                name,
                "still has the example's value"
                if name in _KNOWN
                else "looks like an example's value",
                f"put the real one into {settings.file}",
                is_fatal=name in _KNOWN,
            )
    for name in ("SUPABASE_URL", "INNGEST_BASE_URL"):
        url = settings.get(name)
        if url is not None and _WEB.fullmatch(url) is None:
            yield Problem(name, f"{url!r} is no URL", "https://host, with a port if it has one")
    ref, _, domain = host_of(settings.get("SUPABASE_URL") or "").partition(".")
    if domain == "supabase.co" and settings.project_ref not in (None, ref):
        yield Problem(
            "SUPABASE_URL",
            f"is of project {ref}, and everything else would go to {settings.project_ref}",
            "take both from one project's dashboard",
        )
    for name in sorted(settings.overridden):
        yield Problem(
            name,
            f"the shell's value is used, which is not that of {settings.file}",
            f"unset {name}, if that is not meant",
            is_fatal=False,
        )


def keys(wish: Wish, settings: Settings) -> Iterable[Problem]:
    """Yield what is wrong with the keys of the server of runs, and with its mode."""
    if is_part(wish, "secrets", "functions", "sync", "verify"):
        yield from _keys(settings)
    dev = (settings.functions_get.get("INNGEST_DEV") or "").strip().lower()
    if dev not in ("", "0", "false", "no", "off"):
        yield Problem(
            "INNGEST_DEV",
            "set: in dev mode no call is checked, and anyone could make one",
            f"take it out of {settings.file}",
        )
    for name in _WRITTEN_BY_US:
        if name in settings.functions_get:
            yield Problem(
                name,
                "set, though each image has its own",
                f"take it out of {settings.file}; STEPBASE_PUBLIC_ORIGIN names a domain of yours",
            )
    for name in settings.functions_get:
        if _OF_THE_HOST.fullmatch(name) is not None:
            yield Problem(
                name,
                "set, though it belongs to where functions run: with another value they may not start",
                f"call it something else in {settings.file}, or take it out",
            )


def _keys(settings: Settings) -> Iterable[Problem]:
    signing = settings.get("INNGEST_SIGNING_KEY")
    if signing is None:
        yield Problem(
            "INNGEST_SIGNING_KEY",
            "not set: in cloud mode an app answers nobody without it",
            f"put it into {settings.file}; Inngest: app.inngest.com/env/production/manage/signing-key",
        )
    elif _HEX.fullmatch(key_text(signing)) is None:
        yield Problem(
            "INNGEST_SIGNING_KEY",
            "no signing key: expected hex digits, with signkey-…- before them or not",
            "copy it again, without quotes and dots",
        )
    if settings.get("INNGEST_EVENT_KEY") is None:
        yield Problem(
            "INNGEST_EVENT_KEY",
            "not set: functions could not send events",
            f"put it into {settings.file}; Inngest: app.inngest.com/env/production/manage/keys",
        )


def places(wish: Wish, settings: Settings) -> Iterable[Problem]:
    """Yield what is missing of where functions run, and of where they find the project."""
    if not is_part(wish, "stage", "secrets", "functions", "answer", "sync", "verify"):
        return
    origin = settings.public_origin
    if origin is not None:
        is_safe = origin.startswith("https://") or host_of(origin) in _LOOPBACK
        if _ORIGIN.fullmatch(origin) is None or not is_safe:
            yield Problem(
                "STEPBASE_PUBLIC_ORIGIN",
                f"{origin!r} is no origin that can be called",
                "https://host, without a path",
            )
    elif wish.target == "docker":
        yield Problem(
            "STEPBASE_PUBLIC_ORIGIN",
            "not set: nobody knows where this host is reached",
            "https://functions.example.com, the proxy before the containers (docs/deploy.md)",
        )
    for name, how in _asked_for(wish):
        if settings.get(name) is None:
            yield Problem(name, "not set", f"put it into {settings.file}: {how}")


def _asked_for(wish: Wish) -> Iterable[tuple[str, str]]:
    """Yield what a target cannot do without, and where it is found."""
    if wish.target == "cloudrun":
        number = "gcloud projects describe PROJECT --format='value(projectNumber)'"
        yield "GOOGLE_CLOUD_PROJECT", "gcloud projects list"
        yield "GOOGLE_CLOUD_PROJECT_NUMBER", number
        yield "GOOGLE_CLOUD_REGION", "the one next to your database, e.g. us-west2"
    if wish.target != "compute":
        why = "(dashboard, Project Settings, API keys); steps call the project with it"
        yield "SUPABASE_URL", f"https://<ref>.supabase.co {why}"
        yield "SUPABASE_SECRET_KEY", f"sb_secret_… {why}"


def secrets(wish: Wish, settings: Settings, given: Mapping[str, str]) -> Iterable[Problem]:
    """Yield what no secret store would take, or no file could hold."""
    is_supabase = wish.target == "compute"
    for name, value in given.items():
        if is_supabase and name.startswith("SUPABASE_"):
            yield Problem(
                name,
                "Supabase takes no secret whose name begins with SUPABASE_",
                f"call it something else in {settings.file}",
            )
        if len(value.encode()) > MOST_SECRET_BYTES:
            yield Problem(
                name,
                f"{len(value.encode()):,} bytes; a secret may have {MOST_SECRET_BYTES:,}",
                "put it into Storage or a table, and its name here",
            )
        if not dotenv.is_writable(value):
            yield Problem(
                name,
                "has ' and ` in it, or a carriage return: no .env file can hold it",
                "write it as base64",
            )
    if len(given) > MOST_SECRETS:
        yield Problem(
            settings.file,
            f"{len(given)} variables for functions; a project has {MOST_SECRETS} secrets",
            "put several into one, as JSON",
        )
