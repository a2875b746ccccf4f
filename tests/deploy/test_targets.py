"""Whole deploys to Cloud Run and Docker, by stubs that record: every command, and what runs afterwards."""

import json
import re
import shlex
import shutil

import pytest
from tests.deploy.conftest import EVENT_KEY, MAIL_KEY, SECRET_KEY, SIGNING_KEY, Shop
from tests.deploy.test_compute import assert_kept_secret
from tests.repo.tree import ROOT
from tests.support.platform import Found, command_of

from stepbase.deploy import dotenv
from stepbase.deploy.target import compose, label, port_of

_NAMES = (
    "INNGEST_BASE_URL",
    "INNGEST_EVENT_KEY",
    "INNGEST_SIGNING_KEY",
    "SHOP_MAIL_KEY",
    "SUPABASE_SECRET_KEY",
    "SUPABASE_URL",
)


@pytest.fixture(autouse=True)
def _away_from_supabase(shop: Shop) -> None:
    shop.set(
        SUPABASE_URL="https://db.example.com",
        SUPABASE_SECRET_KEY=SECRET_KEY,
        GOOGLE_CLOUD_PROJECT="shop",
        GOOGLE_CLOUD_PROJECT_NUMBER="42",
        GOOGLE_CLOUD_REGION="us-west2",
    )


def digest(shop: Shop, name: str) -> str:
    """Return what a running folder's image calls itself."""
    text = (shop.state / "running" / name / "Dockerfile").read_text()
    return text.partition("STEPBASE_DEPLOYMENT=")[2][:12]


def test_cloud_run(shop: Shop) -> None:
    shutil.rmtree(shop.root / "supabase" / "notebooks")

    done = shop.deploy("--yes", "--target", "cloudrun", "--skip-db")

    assert done.returncode == 0, done.stdout + done.stderr
    secrets = [
        each
        for name in _NAMES
        for each in (
            ["gcloud", "secrets", "describe", f"stepbase-{name}", "--project=shop"],
            ["gcloud", "secrets", "create", f"stepbase-{name}", "--project=shop",
             "--replication-policy=automatic", "--quiet"],
            ["gcloud", "secrets", "versions", "access", "latest", f"--secret=stepbase-{name}",
             "--project=shop"],
            ["gcloud", "secrets", "versions", "add", f"stepbase-{name}", "--project=shop", "--data-file=-"],
        )
    ]  # fmt: skip
    mounted = ",".join(f"{name}=stepbase-{name}:latest" for name in _NAMES)
    runs = [
        ["gcloud", "run", "deploy", name, f"--source=build/{name}", "--project=shop", "--region=us-west2",
         "--port=8080", "--cpu=1", "--memory=512Mi", "--cpu-boost", "--concurrency=40", "--timeout=3600",
         "--min-instances=0", "--max-instances=20", "--allow-unauthenticated",
         f"--update-labels=stepbase-deployment={digest(shop, name)}", f"--set-secrets={mounted}", "--quiet"]
        for name in ("currency", "door")
    ]  # fmt: skip
    assert shop.calls == [*secrets, *runs]
    stored = {
        each.name.removeprefix("stepbase-"): (each / "v001").read_text()
        for each in (shop.state / "secrets").iterdir()
    }
    assert stored == {
        "INNGEST_BASE_URL": shop.inngest.url,
        "INNGEST_EVENT_KEY": EVENT_KEY,
        "INNGEST_SIGNING_KEY": SIGNING_KEY,
        "SHOP_MAIL_KEY": MAIL_KEY,
        "SUPABASE_SECRET_KEY": SECRET_KEY,
        "SUPABASE_URL": "https://db.example.com",
    }
    [sync] = shop.syncs
    assert sync.body["url"] == f"{shop.platform.url}/currency/api/inngest"
    assert_kept_secret(shop, done.stdout, done.stderr)


@pytest.mark.parametrize("target", ["compute", "cloudrun", "docker"])
def test_what_is_executed_is_what_was_printed(shop: Shop, target: str) -> None:
    """Every line of the plan, in order and to the byte, and every command of it."""
    words = ("--target", target, *(["--front-door"] if target == "compute" else []))
    planned = shop.deploy("--dry-run", *words)
    assert shop.calls == [] and not (shop.root / "build").exists()

    done = shop.deploy("--yes", *words)

    assert (planned.returncode, done.returncode) == (0, 0), done.stdout + done.stderr
    plan = planned.stdout.partition("\n\n")[2].partition("\n\n")[0].splitlines()
    lines = done.stdout.splitlines()
    assert [line for line in lines if line in plan] == plan
    printed = [
        line.strip()[2:].partition("  (")[0] for line in plan if line.strip()[:2] in ("$ ", "? ")
    ]
    executed = [shlex.join(argv) for argv in shop.calls]
    assert [re.sub(r"^[A-Z_]+=1 ", "", line) for line in printed] == executed
    assert len(executed) >= 5


def test_a_table_says_what_happened(shop: Shop) -> None:
    words = ("--yes", "--target", "cloudrun", "--skip-db")
    shop.deploy(*words)

    done = shop.deploy(*words)

    rows = [line.split() for line in done.stdout.splitlines()]
    heading = rows.index(["stage", "done", "not", "needed", "seconds"])
    table = {row[0]: row[1:3] for row in rows[heading + 1 :] if len(row) == 4}
    secrets = 2 * len(_NAMES)
    assert table == {
        "stage": ["2", "0"],
        "secrets": ["0", str(secrets)],
        "functions": ["2", "0"],
        "notebooks": ["1", "0"],
        "answer": ["2", "0"],
        "sync": ["1", "0"],
        "verify": ["1", "0"],
    }
    url = f"{shop.platform.url}/currency/api/inngest"
    assert ["currency", "currency", "5", digest(shop, "currency"), url] in rows


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--only", "database", "--skip-db"), "nothing is to be done"),
        (("--only", "front-doors"), "nothing is to be done"),
    ],
)
def test_a_deploy_of_nothing_is_refused(shop: Shop, words: tuple[str, ...], message: str) -> None:
    planned = shop.deploy("--dry-run", *words)
    done = shop.deploy("--yes", *words)

    assert (planned.returncode, done.returncode) == (1, 1)
    assert message in planned.stdout and message in done.stdout


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--json",), "--json prints a plan: add --dry-run"),
        (("--only", "nothing"), "stages are stage, database, secrets"),
        (("--plan", "gold"), "'gold' is not one of"),
        (("--wait", "0"), "--wait"),
        (("--target", "aws"), "'compute', 'cloudrun', 'docker'"),
    ],
)
def test_misuse_is_told(shop: Shop, words: tuple[str, ...], message: str) -> None:
    done = shop.deploy(*words)

    assert done.returncode == 2 and message in done.stderr and done.stdout == ""


def test_a_plan_that_does_not_fit_stops_a_deploy(shop: Shop) -> None:
    done = shop.deploy("--yes", "--plan", "free", "currency")

    assert done.returncode == 1
    assert "currency-award: concurrency 10; plan free runs 5 steps at once" in done.stdout
    assert shop.calls == [] and "nothing was changed" in done.stderr


def test_a_folder_that_prints_and_reads_its_own_variables_is_loaded(shop: Shop) -> None:
    main = shop.root / "functions" / "door" / "main.py"
    noise = (
        "import os, subprocess\n"
        'os.write(1, b"not json\\n")\n'
        'subprocess.run(["echo", "nor this"])\n'
        'print("mail key:", os.environ["SHOP_MAIL_KEY"])\n'
        'assert not set(os.environ) & {"INNGEST_SIGNING_KEY", "SUPABASE_ACCESS_TOKEN", "DATABASE_URL"}\n'
    )
    main.write_text(main.read_text().replace("from typing", noise + "from typing"))

    planned = shop.deploy("--dry-run", "--target", "docker")

    assert planned.returncode == 0, planned.stdout + planned.stderr
    assert "nor this" in planned.stderr and "mail key: •••" in planned.stderr


def test_a_folder_that_wants_what_is_not_set_is_explained(shop: Shop) -> None:
    main = shop.root / "functions" / "door" / "main.py"
    main.write_text('import os\nkey = os.environ["SHOP_SMS_KEY"]\n' + main.read_text())

    planned = shop.deploy("--dry-run", "--target", "docker")

    assert "KeyError: 'SHOP_SMS_KEY'" in planned.stdout
    assert "no variables but those of your own in .env" in planned.stdout


def test_every_folder_s_problem_is_said_and_once(shop: Shop) -> None:
    (shop.root / "functions" / "door" / "requirements.txt").unlink()
    (shop.root / "functions" / "currency" / "rates.json").symlink_to("/etc/hostname")

    planned = shop.deploy("--dry-run", "--target", "docker")

    assert planned.stdout.count("functions/door") == 1
    assert planned.stdout.count("problem  functions/currency: ") == 1
    assert "rates.json is a link to /etc/hostname, outside of the project" in planned.stdout


def test_an_edge_function_of_somebody_else_is_not_written_over(shop: Shop) -> None:
    index = shop.root / "supabase" / "functions" / "currency" / "index.ts"
    ours = index.read_text()
    index.write_text("Deno.serve(() => new Response('mine'));\n")

    refused = shop.deploy("--write-config", "--front-door")

    assert refused.returncode == 1 and "is an Edge Function of yours" in refused.stderr
    assert "mine" in index.read_text()
    index.write_text(ours.replace("140", "100"))  # a front door of an older version
    assert shop.deploy("--write-config", "--front-door").returncode == 0
    assert index.read_text() == ours


def test_blocks_need_a_file_to_be_in(shop: Shop) -> None:
    shutil.rmtree(shop.root / "supabase")

    done = shop.deploy("--write-config")

    assert done.returncode == 1 and "supabase init makes one" in done.stderr


def test_a_secret_gets_a_version_only_when_it_changes(shop: Shop) -> None:
    words = ("--yes", "--target", "cloudrun", "--skip-db", "--only", "secrets")
    assert shop.deploy(*words).returncode == 0
    shop.set(SHOP_MAIL_KEY="another")

    done = shop.deploy(*words)

    assert done.returncode == 0
    versions = {
        each.name: len(list(each.glob("v*"))) for each in (shop.state / "secrets").iterdir()
    }
    assert versions == {f"stepbase-{name}": 2 if name == "SHOP_MAIL_KEY" else 1 for name in _NAMES}
    assert done.stdout.count("    not needed") == 2 * len(_NAMES) - 1


def test_docker(shop: Shop) -> None:
    shop.set(STEPBASE_REGISTRY="registry.example.com/shop/")

    done = shop.deploy("--yes", "--target", "docker", "--skip-db")

    assert done.returncode == 0, done.stdout + done.stderr
    images = {
        name: f"registry.example.com/shop/{name}:{digest(shop, name)}"
        for name in ("currency", "door")
    }
    files = {name: f"build/compose/{name}/compose.yaml" for name in images}
    up = ["up", "--detach", "--wait", "--no-build"]
    assert [each for each in shop.calls if each[0] == "docker"] == [
        ["docker", "build", "--pull", "--tag", images["currency"], "build/currency"],
        ["docker", "push", images["currency"]],
        ["docker", "compose", "--file", files["currency"], *up],
        ["docker", "build", "--pull", "--tag", images["door"], "build/door"],
        ["docker", "push", images["door"]],
        ["docker", "compose", "--file", files["door"], *up],
    ]
    ups = [set(each["given"]) for each in shop.recorded if "compose" in each["argv"]]
    assert len(ups) == 2 and all(set(_NAMES) <= each for each in ups)
    given = json.loads((shop.state / "compose.env").read_text())
    assert given["INNGEST_SIGNING_KEY"] == SIGNING_KEY and "SUPABASE_ACCESS_TOKEN" not in given
    assert shop.syncs[0].body["url"] == f"{shop.platform.url}/currency/api/inngest"
    assert_kept_secret(shop, done.stdout, done.stderr)


def test_an_engine_beside_them(shop: Shop) -> None:
    shutil.copy(ROOT / "pyproject.toml", shop.root)
    done = shop.deploy("--yes", "--target", "docker", "--skip-db", "--with-engine", "door")

    assert done.returncode == 0, done.stdout + done.stderr
    up = [each for each in shop.recorded if "build/compose/engine/compose.yaml" in each["argv"]]
    assert {"DATABASE_URL", "INNGEST_SIGNING_KEY"} <= set(up[0]["given"])
    dockerfile = (shop.state / "running" / "engine" / "Dockerfile").read_text()
    assert command_of(dockerfile)[:4] == ["python", "-m", "stepbase.cli", "engine"]
    assert [each.path for each in shop.inngest.received][:1] == ["/health"]
    assert_kept_secret(shop, done.stdout, done.stderr)


@pytest.mark.parametrize(
    ("words", "change", "message"),
    [
        (("--target", "compute"), {}, "with --target docker alone"),
        (("--target", "docker"), {"INNGEST_BASE_URL": None}, "functions would not find the engine"),
        (("--target", "docker", "--skip-db"), {"DATABASE_URL": None}, "keeps its state there"),
        (
            ("--target", "docker"),
            {"DATABASE_URL": "postgresql://u@h/d", "SUPABASE_DB_PASSWORD": "pw"},
            "has no password in it",
        ),
    ],
)
def test_an_engine_that_could_not_work_is_refused(
    shop: Shop, words: tuple[str, ...], change: dict[str, str | None], message: str
) -> None:
    shop.set("", **change)

    done = shop.deploy("--dry-run", "--with-engine", "door", *words)

    assert done.returncode == 1 and message in done.stdout


def test_a_compose_file() -> None:
    text = compose("award_mail", "award-mail:1", ["KEY"])

    assert text.startswith("# Made by") and "name: stepbase-award-mail\n" in text
    assert '  "award-mail":\n    image: "award-mail:1"\n' in text
    assert f'ports: ["127.0.0.1:{port_of("award_mail")}:8080"]' in text
    assert '      "KEY": ${KEY?set it, or run stepbase deploy}\n' in text
    assert "read_only: true" in text and "cap_drop: [ALL]" in text


def test_without_a_project_of_supabase_com_only_notebooks_are_left_out(shop: Shop) -> None:
    """As with a Supabase of one's own."""
    shop.set(SUPABASE_PROJECT_REF=None, SUPABASE_ACCESS_TOKEN=None)

    done = shop.deploy("--yes", "--target", "docker", "door")

    assert done.returncode == 0, done.stdout + done.stderr
    assert "note     supabase/notebooks: no project of supabase.com is named" in done.stdout
    assert [argv[1:3] for argv in shop.calls if argv[0] == "supabase"] == [
        ["db", "push"],
        ["db", "advisors"],
    ]


def test_a_port_is_of_the_name_alone(shop: Shop) -> None:
    assert port_of("currency") == 8855  # as docs/deploy.md says
    planned = shop.deploy("--dry-run", "--target", "docker", "door")
    assert f"(door on 127.0.0.1:{port_of('door')})" in planned.stdout
    clash = next(
        name for name in map("f{}".format, range(10_000)) if port_of(name) == port_of("door")
    )
    shutil.copytree(shop.root / "functions" / "door", shop.root / "functions" / clash)

    refused = shop.deploy("--dry-run", "--target", "docker", "door")

    assert "has the same port as functions/door" in refused.stdout


def test_a_label_is_one_of_dns() -> None:
    assert label("Award_Mail") == "award-mail"


def test_where_nobody_can_be_asked_yes_must_be_said(shop: Shop) -> None:
    done = shop.deploy("--target", "docker", "--skip-db")

    assert done.returncode == 1
    assert "confirm with --yes" in done.stderr
    assert shop.calls == []


def test_one_environment_is_deployed_by_its_own_file(shop: Shop) -> None:
    missing = shop.deploy("--dry-run", "--target", "docker", "--env", "staging")

    assert missing.returncode == 1 and "put it into .env.staging" in missing.stdout
    (shop.root / ".env.staging").write_text((shop.root / ".env").read_text())
    shop.set("staging", SHOP_MAIL_KEY="of staging")
    done = shop.deploy("--yes", "--target", "docker", "--env", "staging", "--skip-db", "door")
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads((shop.state / "compose.env").read_text())["SHOP_MAIL_KEY"] == "of staging"


def _staging(shop: Shop, **changes: str | None) -> None:
    shop.set("staging", **dotenv.parse((shop.root / ".env").read_text(), ".env"))
    shop.set("staging", **changes)


def test_an_environment_has_containers_of_its_own(shop: Shop) -> None:
    """Both may be on one host: neither project, port nor file of one is the other's."""
    _staging(shop)
    words = ("--yes", "--target", "docker", "--skip-db", "door")
    assert shop.deploy(*words).returncode == 0
    default = (shop.root / "build/compose/door/compose.yaml").read_text()

    done = shop.deploy(*words, "--env", "staging")

    assert done.returncode == 0, done.stdout + done.stderr
    assert (shop.root / "build/compose/door/compose.yaml").read_text() == default
    staging = (shop.root / "build/compose.staging/door/compose.yaml").read_text()
    assert "name: stepbase-door\n" in default and "name: stepbase-door-staging\n" in staging
    assert port_of("door") != port_of("door", "staging")
    assert f"127.0.0.1:{port_of('door', 'staging')}:8080" in staging
    assert f"door on 127.0.0.1:{port_of('door', 'staging')}" in done.stdout


def test_an_environment_has_services_of_its_own(shop: Shop) -> None:
    _staging(shop, STEPBASE_PUBLIC_ORIGIN=None)

    words = ("--dry-run", "--target", "cloudrun", "--skip-db", "currency")
    planned = shop.deploy(*words, "--env", "staging")

    assert planned.returncode == 0, planned.stdout + planned.stderr
    assert "$ gcloud run deploy currency-staging --source=build/currency " in planned.stdout
    url = "https://currency-staging-42.us-west2.run.app/api/inngest"
    assert f"> PUT {url}" in planned.stdout
    assert "INNGEST_SIGNING_KEY=stepbase-staging-INNGEST_SIGNING_KEY:latest" in planned.stdout


def test_an_environment_does_not_get_the_linked_project(shop: Shop) -> None:
    link = shop.root / "supabase" / ".temp"
    link.mkdir()
    (link / "project-ref").write_text("p" * 20)
    _staging(shop, SUPABASE_PROJECT_REF=None, SUPABASE_URL=None)

    planned = shop.deploy("--dry-run", "--env", "staging")

    assert planned.returncode == 1 and "p" * 20 not in planned.stdout
    assert "SUPABASE_PROJECT_REF: no Supabase project is named" in planned.stdout
    assert "put it into .env.staging" in planned.stdout


def test_an_environment_does_not_get_another_one_s_token(shop: Shop) -> None:
    """The Supabase CLI reads .env by itself: `test_dotenv` shows that it does."""
    assert "SUPABASE_ACCESS_TOKEN" in (shop.root / ".env").read_text()
    shop.set("staging", **dotenv.parse((shop.root / ".env").read_text(), ".env"))
    shop.set("staging", SUPABASE_ACCESS_TOKEN=None)

    planned = shop.deploy("--dry-run", "--env", "staging")

    assert planned.returncode == 1
    assert (
        "SUPABASE_ACCESS_TOKEN: not set in .env.staging, so the Supabase CLI would"
        in planned.stdout
    )


def test_an_old_version_does_not_pass_for_the_new_one(shop: Shop) -> None:
    assert shop.deploy("--yes", "--target", "docker", "--skip-db", "door").returncode == 0
    (shop.root / "functions" / "door" / "more.py").touch()
    old = shop.platform.find("door")
    shop.platform.find = lambda _: old

    done = shop.deploy("--yes", "--target", "docker", "--skip-db", "door", "--wait", "1")

    assert done.returncode == 1
    assert "stage answer failed" in done.stderr and "the one before still serves" in done.stderr


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"INNGEST_DEV": "1"}, "runs in dev mode, where anyone may call it"),
        ({"INNGEST_SERVE_PATH": "/elsewhere"}, "registers itself as"),
    ],
)
def test_what_is_wrong_where_it_runs_is_explained(
    shop: Shop, change: dict[str, str], message: str
) -> None:
    """Real hosts with other variables than they were deployed with."""
    assert shop.platform.find("currency") is None
    usual = shop.platform.find

    def find(name: str) -> Found | None:
        found = usual(name)
        return None if found is None else (found[0], {**found[1], **change})

    shop.platform.find = find

    done = shop.deploy("--yes", "--target", "docker", "--skip-db", "currency", "--wait", "1")

    assert done.returncode == 1
    assert message in done.stderr, done.stdout + done.stderr
