"""A deploy that is killed at any of its stages ends, when it is run again, as if it had not been."""

import json
import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest
from tests.deploy.conftest import SECRETS, Shop, write_program
from tests.support.fake_api import Received
from tests.support.platform import files_of

from stepbase import clock
from stepbase.deploy.errors import DeployError
from stepbase.deploy.journal import open_for
from stepbase.deploy.plan import Plan
from stepbase.deploy.program import run_program


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
        "+supabase db push",
        "+supabase db advisors",
        "+supabase secrets set",
        "+supabase compute push currency",
        "+supabase functions deploy",
        "-supabase notebooks push",
        "GET /compute/v1/currency/health",
        "PUT /functions/v1/currency",
        "GET /functions/v1/currency",
    ],
    "cloudrun": [
        "+supabase db push",
        "+gcloud secrets create",
        "+gcloud secrets versions add",
        "-gcloud run deploy",
        "+gcloud run deploy",
    ],
    "docker": ["+docker build", "-docker compose", "+docker compose", "GET /door/health"],
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


def test_what_a_check_has_found_wrong_is_not_taken_for_done(shop: Shop) -> None:
    """Somebody else's deploy came between a killed one and its second try."""
    words = ("--yes", "--skip-db", "door", "--wait", "1")
    shop.start(*words, STUB_KILL="-supabase notebooks push").communicate(timeout=60)
    main = shop.root / "functions" / "door" / "main.py"
    ours = main.read_text()
    # The other one, from elsewhere: it knows nothing of this journal.
    main.write_text(ours + "# other\n")
    journal = shop.root / "build" / ".deploy" / "compute.json"
    kept = journal.read_text()
    assert shop.deploy("--yes", "--skip-db", "door").returncode == 0
    main.write_text(ours)
    journal.write_text(kept)

    second = shop.deploy(*words)
    third = shop.deploy(*words)

    assert second.returncode == 1 and "the one before still serves" in second.stderr
    assert third.returncode == 0, third.stdout + third.stderr


def test_a_sync_that_came_later_is_overridden_by_the_next_try(shop: Shop) -> None:
    """The server of runs calls an app elsewhere: the second try syncs again."""
    usual = shop.inngest.answer
    synced = len(shop.syncs)

    def answer(request: Received) -> tuple[int, Any]:
        if request.path != "/v1/apps/currency/functions":
            return usual(request)
        at = (
            "https://old.example.com"
            if len(shop.syncs) < synced + 2
            else shop.syncs[-1].body["url"]
        )
        return 200, [{"config": {"steps": [{"uri": at}]}}] * 5

    shop.inngest.answer = answer

    first = shop.deploy("--yes", "--skip-db", "currency")
    second = shop.deploy("--yes", "--skip-db", "currency")

    assert first.returncode == 1 and "calls currency at https://old.example.com" in first.stderr
    assert second.returncode == 0, second.stdout + second.stderr


def test_a_program_ends_with_the_deploy_and_so_does_what_it_started(shop: Shop) -> None:
    """One that does not listen, as a wrapper of a program often does not."""
    pids = shop.state / "pids"
    write_program(
        shop.tools / "supabase",
        f"""case "$1" in --version) echo 3.1.0; exit;; esac
trap '' TERM INT HUP
sh -c 'trap "" TERM INT HUP; echo $$ >> {pids}; while :; do sleep 0.2; done' &
echo $$ >> {pids}; echo started; while :; do sleep 0.2; done""",
    )
    process = shop.start("--yes", "--skip-db", "door", "--only", "secrets")
    assert process.stdout is not None
    while "started" not in process.stdout.readline():
        pass
    while len(pids.read_text().split()) < 2:
        time.sleep(0.01)

    process.send_signal(signal.SIGHUP)
    _, complaints = process.communicate(timeout=60)

    assert process.returncode == 1 and "interrupted" in complaints
    left = [pid for pid in pids.read_text().split() if _is_alive(pid)]
    assert left == []


def _is_alive(pid: str) -> bool:
    """Say whether a process runs: one that has ended may wait for whoever reaps it."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"


def test_a_program_that_takes_forever_is_ended(tmp_path: Path) -> None:
    with pytest.raises(DeployError, match=r"sh took more than 0 s and was ended"):
        run_program(["sh", "-c", "sleep 60"], tmp_path, dict(os.environ), None, print, 0.3)


def test_a_program_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(DeployError, match="no-such-program cannot be run"):
        run_program(["no-such-program"], tmp_path, {}, None, print)


def test_no_command_line_of_any_process_shows_a_secret(shop: Shop) -> None:
    """All that `ps` can show, while a deploy runs: it and every program that it starts."""
    seen: set[bytes] = set()
    over = threading.Event()

    def watch() -> None:
        while not over.is_set():
            for entry in Path("/proc").glob("[0-9]*/cmdline"):
                try:
                    seen.add(entry.read_bytes())
                except OSError:
                    pass  # it has ended

    watcher = threading.Thread(target=watch)
    watcher.start()
    prepare(shop, "cloudrun")
    codes = [
        shop.deploy(*words(target), "--skip-db").returncode
        for target in ("compute", "cloudrun", "docker")
    ]
    over.set()
    watcher.join()

    assert codes == [0, 0, 0]
    lines = b"\n".join(seen)
    assert all(each in lines for each in (b"compute\0push", b"versions\0add", b"compose\0--file"))
    assert not [secret for secret in SECRETS if secret.encode() in lines]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        '{"plan": 1}',
        '{"plan":"PLAN","salt":"zz","given":"","started_s":NOW,"done":[]}',
        '{"plan":"PLAN","salt":"","given":null,"started_s":NOW,"done":[]}',
        '{"plan":"PLAN","salt":"","given":"","started_s":"now","done":[]}',
    ],
)
def test_a_journal_of_another_kind_is_no_journal(tmp_path: Path, text: str) -> None:
    plan = Plan("compute", "", (), ())
    path = tmp_path / "build" / ".deploy" / "compute.json"
    path.parent.mkdir(parents=True)
    path.write_text(text.replace("PLAN", plan.digest).replace("NOW", str(clock.now_s())))

    found = open_for(tmp_path, plan, {}, is_whole=True)

    assert found.done == [] and found.plan == plan.digest


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_a_deploy_with_words(shop: Shop, number: signal.Signals) -> None:
    process = shop.start("--yes", "--skip-db", "door")
    shop.platform.on_request = lambda *_: process.send_signal(number)

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
