"""What is wrong with the variables of a deploy: missing, of another form, or dangerous."""

import re
from collections.abc import Iterable, Mapping
from urllib.parse import urlsplit

from stepbase.deploy import dotenv
from stepbase.deploy.planning import Project, Wish
from stepbase.deploy.problem import Problem
from stepbase.deploy.settings import REF, Settings
from stepbase.protocol.signing import key_text

MOST_SECRETS = 100
MOST_SECRET_BYTES = 48 * 1024
_TOKEN = re.compile(r"sbp_[0-9a-f]{40}|sbp_[A-Za-z0-9_]{20,}")
_HEX = re.compile(r"(?:[0-9a-fA-F]{2})+")
_TRANSACTION_POOLER = 6543
_LOOPBACK = ("localhost", "127.0.0.1", "::1")
_WRITTEN_BY_US = ("INNGEST_SERVE_ORIGIN", "INNGEST_SERVE_PATH", "STEPBASE_DEPLOYMENT")


def needs_supabase(wish: Wish, project: Project) -> bool:
    """Say whether the deploy changes anything by the Supabase CLI besides the database."""
    return wish.target == "compute" or wish.front_door or bool(project.notebooks)


def changes_database(wish: Wish, project: Project) -> bool:
    """Say whether migrations are part of the deploy."""
    is_asked_for = not wish.only or "database" in wish.only
    return project.has_migrations and is_asked_for and not wish.skip_db


def supabase(wish: Wish, project: Project, settings: Settings) -> Iterable[Problem]:
    """Yield what is wrong with the project and the access token."""
    if not needs_supabase(wish, project):
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
    token = settings.get("SUPABASE_ACCESS_TOKEN")
    if token is None:
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


def database(wish: Wish, project: Project, settings: Settings) -> Iterable[Problem]:
    """Yield what is wrong with the database's URL."""
    if not changes_database(wish, project):
        return
    found = settings.database
    if found is None:
        yield Problem(
            "DATABASE_URL",
            "not set",
            f"put the session pooler's URL (dashboard, Connect) into {settings.file}, or --skip-db",
        )
        return
    url = urlsplit(found[0])
    try:
        is_url = url.scheme in ("postgres", "postgresql") and bool(url.hostname)
        port = url.port
    except ValueError:
        is_url, port = False, None
    if not is_url:
        yield Problem(
            "DATABASE_URL",
            "not a URL of a database",
            "postgresql://user:password@host:5432/postgres",
        )
    elif port == _TRANSACTION_POOLER:
        yield Problem(
            "DATABASE_URL",
            f"port {_TRANSACTION_POOLER} is the transaction pooler, where migrations may break",
            "the session pooler or a direct connection: port 5432",
        )


def keys(settings: Settings) -> Iterable[Problem]:
    """Yield what is wrong with the keys of the server of runs, and with its mode."""
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


def places(wish: Wish, settings: Settings) -> Iterable[Problem]:
    """Yield what is missing of where functions run, and of where they find the project."""
    origin = settings.public_origin
    if origin is not None:
        parts = urlsplit(origin)
        is_safe = parts.scheme == "https" or parts.hostname in _LOOPBACK
        if not parts.hostname or parts.path or parts.query or not is_safe:
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
    if wish.target == "cloudrun":
        for name, how in (
            ("GOOGLE_CLOUD_PROJECT", "gcloud projects list"),
            (
                "GOOGLE_CLOUD_PROJECT_NUMBER",
                "gcloud projects describe PROJECT --format='value(projectNumber)'",
            ),
            ("GOOGLE_CLOUD_REGION", "the one next to your database, e.g. us-west2"),
        ):
            if settings.get(name) is None:
                yield Problem(name, "not set", f"put it into {settings.file}: {how}")
    if wish.target != "compute":
        for name in ("SUPABASE_URL", "SUPABASE_SECRET_KEY"):
            if settings.get(name) is None:
                yield Problem(
                    name,
                    "not set: steps could not call the project",
                    f"put it into {settings.file} (dashboard, Project Settings, API keys)",
                )


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
