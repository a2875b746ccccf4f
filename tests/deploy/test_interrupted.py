"""A deploy that is killed at any of its stages ends, when it is run again, as if it had not been."""

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import pytest
from tests.deploy.conftest import SECRETS, Shop, write_program
from tests.support.platform import files_of


def end_state(shop: Shop) -> Mapping[str, Any]:
    """Return what the platform, the project and the server of runs were left with."""
    kept = {
        name: content
        for name, content in files_of(shop.state).items()
        if name not in ("calls.jsonl", "killed") and not name.startswith(".")
    }
    synced = {(each.body["appname"], each.body["url"]) for each in shop.syncs}
    journals = list((shop.root / "build" / ".deploy").glob("*.json"))
    return {
        "kept": _without_port(kept.items(), shop),
        "synced": _without_port(synced, shop),
        "left": journals,
    }


def _without_port(found: Iterable[object], shop: Shop) -> str:
    """Write values down without the ports, which each test has of its own."""
    text = repr(sorted(map(repr, found)))
    return text.replace(shop.platform.url, "PLATFORM").replace(shop.inngest.url, "INNGEST")


KILLS = {
    "compute": [
        "+supabase db advisors",
        "+supabase secrets set",
        "+supabase compute push currency",
        "+supabase functions deploy",
        "-supabase notebooks push",
        "GET /compute/v1/currency/health",
        "PUT /functions/v1/currency",
        "GET /functions/v1/currency",
    ],
    "cloudrun": ["+gcloud run deploy"],
    "docker": ["+docker compose"],
}
"""Before (-) or after (+) a command has had its effect, or at a request that must be answered."""


def words(target: str) -> list[str]:
    """Return a command line that has every stage of a target."""
    return [
        "--yes",
        "--target",
        target,
        "currency",
        "door",
        *(["--front-door"] if target == "compute" else []),
    ]


def prepare(shop: Shop, target: str) -> None:
    """Set what a target needs."""
    if target != "compute":
        shop.set(SUPABASE_URL="https://db.example.com", SUPABASE_SECRET_KEY=SECRETS[3])
    if target == "cloudrun":
        shop.set(
            GOOGLE_CLOUD_PROJECT="shop",
            GOOGLE_CLOUD_PROJECT_NUMBER="42",
            GOOGLE_CLOUD_REGION="us-west2",
        )


@pytest.mark.parametrize("target", KILLS)
def test_a_killed_deploy_is_resumed(shop: Shop, target: str) -> None:
    """Every kill in turn, on one platform that is emptied between them; first of all, none."""
    prepare(shop, target)
    assert shop.deploy(*words(target)).returncode == 0
    wanted = end_state(shop)
    whole = shop.calls
    assert wanted["left"] == []

    for kill in KILLS[target]:
        forget(shop)
        killed_at = len(shop.platform.asked)
        process = shop.start(*words(target), STUB_KILL=kill)
        if kill[0] not in "+-":
            shop.platform.on_request = kill_at(kill, process.pid)
        process.communicate(timeout=60)
        shop.platform.on_request = lambda *_: None
        assert process.returncode == -signal.SIGKILL, kill
        journal = journal_of(shop)
        before = shop.calls
        assert not [secret for secret in SECRETS if secret in journal]

        again = shop.deploy(*words(target))

        assert again.returncode == 0, (kill, again.stdout, again.stderr)
        assert end_state(shop) == wanted, kill
        assert "going on with an interrupted deploy" in again.stdout
        # What was done and noted is not done again, and together nothing is left out.
        assert len(shop.platform.asked) > killed_at
        repeated = [each for each in shop.calls[len(before) :] if each in before]
        assert len(repeated) <= MOST_REPEATED, (kill, repeated)
        assert {tuple(each) for each in shop.calls} == {tuple(each) for each in whole}


def kill_at(request: str, pid: int) -> Callable[[str, str], None]:
    """Return what kills a deploy when it makes a request."""

    def look(method: str, path: str) -> None:
        if f"{method} {path}" == request:
            os.kill(pid, signal.SIGKILL)

    return look


MOST_REPEATED = 16
"""Cloud Run's secrets, two questions and two commands each, are looked at again; else one or two commands."""


def journal_of(shop: Shop) -> str:
    """Return the journal that a killed deploy has left."""
    [file] = (shop.root / "build" / ".deploy").glob("*.json")
    text = file.read_text()
    assert json.loads(text)["done"]
    return text


def forget(shop: Shop) -> None:
    """Empty the platform."""
    for entry in shop.state.iterdir():
        shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
    shop.inngest.received.clear()


def test_with_other_secrets_a_killed_deploy_begins_anew(shop: Shop) -> None:
    killed = shop.start("--yes", "--skip-db", "door", STUB_KILL="+supabase compute push door")
    killed.communicate(timeout=60)
    shop.set(SHOP_MAIL_KEY="another key")

    again = shop.deploy("--yes", "--skip-db", "door")

    assert again.returncode == 0, again.stdout + again.stderr
    assert "going on" not in again.stdout
    assert [argv[1:4] for argv in shop.calls].count(["compute", "push", "door"]) == 2


def test_with_another_plan_a_killed_deploy_begins_anew(shop: Shop) -> None:
    killed = shop.start("--yes", "--skip-db", "door", STUB_KILL="+supabase compute push door")
    killed.communicate(timeout=60)
    (shop.root / "functions" / "door" / "more.py").write_text("x = 1\n")

    again = shop.deploy("--yes", "--skip-db", "door")

    assert again.returncode == 0, again.stdout + again.stderr
    assert "going on" not in again.stdout


def test_a_signal_ends_a_deploy_with_words(shop: Shop) -> None:
    process = shop.start("--yes", "--skip-db", "door")
    shop.platform.on_request = lambda *_: process.send_signal(signal.SIGTERM)

    _, complaints = process.communicate(timeout=60)

    assert process.returncode == 1
    assert "interrupted" in complaints and "The same command goes on from here" in complaints


def test_what_a_program_prints_of_secrets_is_not_shown(shop: Shop) -> None:
    write_program(shop.tools / "supabase", f'echo "using {SECRETS[0]}, {SECRETS[4]}"; exit 3')

    done = shop.deploy("--yes", "--only", "secrets")

    assert done.returncode == 1
    assert "using •••, •••" in done.stdout and "exit code 3" in done.stderr
    assert not [secret for secret in SECRETS if secret in done.stdout + done.stderr]
    assert "The same command does these stages again" in done.stderr


def test_two_deploys_of_one_project_do_not_meet(shop: Shop) -> None:
    others: list[subprocess.CompletedProcess[str]] = []

    def start_another(*_: str) -> None:
        shop.platform.on_request = lambda *_: None
        others.append(shop.deploy("--yes", "--skip-db", "door"))

    shop.platform.on_request = start_another
    first = shop.deploy("--yes", "--skip-db", "door")

    assert first.returncode == 0, first.stdout + first.stderr
    [other] = others
    assert other.returncode == 1
    assert "another deploy of this project is running" in other.stderr
