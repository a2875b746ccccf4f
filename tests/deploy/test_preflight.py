"""Everything that a deploy refuses, each with its words, and all of it at once."""

import dataclasses
import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from tests.deploy.conftest import EVENT_KEY, SECRET_KEY, SIGNING_KEY, write_program
from tests.repo.tree import ROOT
from tests.support.management_api import REF, TOKEN

from stepbase.deploy import edge, planning, preflight, projectfile, session
from stepbase.deploy.executions import steps_of
from stepbase.deploy.look import Folder, FunctionSeen
from stepbase.deploy.planning import Project, Wish
from stepbase.deploy.problem import Problem
from stepbase.deploy.settings import Settings
from stepbase.deploy.target import port_of

FUNCTIONS, EDGE = "functions", "supabase/functions"

_CONFIG = """
[compute.currency]
runtime = "dockerfile"
source = "build/currency"
[functions.currency]
verify_jwt = false
"""
_BASE = {
    "SUPABASE_PROJECT_REF": REF,
    "SUPABASE_ACCESS_TOKEN": TOKEN,
    "SUPABASE_URL": f"https://{REF}.supabase.co",
    "SUPABASE_SECRET_KEY": SECRET_KEY,
    "DATABASE_URL": "postgresql://postgres:x@db.example.com:5432/postgres",
    "INNGEST_SIGNING_KEY": SIGNING_KEY,
    "INNGEST_EVENT_KEY": EVENT_KEY,
    "STEPBASE_PUBLIC_ORIGIN": "https://functions.example.com",
    "GOOGLE_CLOUD_PROJECT": "shop",
    "GOOGLE_CLOUD_PROJECT_NUMBER": "42",
    "GOOGLE_CLOUD_REGION": "us-west2",
}


_PROGRAMS = {"supabase": "echo 3.1.0", "gcloud": "exit 0", "docker": "echo v2.40.0"}


def function(**wire: Any) -> FunctionSeen:
    return FunctionSeen("currency-award", {"id": "currency-award", **wire}, 4, False)


@dataclass
class World:
    """A project in which nothing is wrong, to change one thing of."""

    root: Path
    wish: Wish = field(default_factory=lambda: Wish("compute", front_door=True))
    variables: dict[str, str | None] = field(default_factory=lambda: dict(_BASE))
    config: str = _CONFIG
    folders: list[Folder] = field(default_factory=list)
    plan: str | None = None
    env: str = ""
    programs: dict[str, str] = field(default_factory=lambda: dict(_PROGRAMS))

    def problems(self, monkeypatch: pytest.MonkeyPatch) -> list[Problem]:
        """Return what preflight finds."""
        file = self.root / "supabase" / "config.toml"
        file.write_text(self.config)
        known = {name: value for name, value in self.variables.items() if value is not None}
        name = f".env.{self.env}" if self.env else ".env"
        ref = known.get("SUPABASE_PROJECT_REF")
        settings = Settings(self.env, name, known, frozenset(known), ref)
        folder = self.root / "bin"
        folder.mkdir(exist_ok=True)
        for name, line in self.programs.items():
            write_program(folder / name, line)
        monkeypatch.setenv("PATH", str(folder))
        doors = edge.front_doors(self.root)
        project = Project(self.root, tuple(self.folders), doors, (), has_migrations=True)
        read = projectfile.read(self.root)
        target = session.target_of(self.wish, settings, read)
        given = {
            **target.secrets(settings),
            **planning.project_secrets(self.wish, project, target, settings),
        }
        return preflight.check(self.wish, project, settings, read, given, self.plan)


@pytest.fixture
def world(tmp_path: Path) -> World:
    (tmp_path / "functions" / "currency").mkdir(parents=True)
    path = tmp_path / "functions" / "currency"
    (path / "main.py").touch()
    (path / "requirements.txt").write_text("functions_framework\nhttpx>=0.27\nrfc8785\n")
    (tmp_path / "functions" / "requirements.lock").write_text(
        "functions-framework==3.10.2\nhttpx==0.28.1\nrfc8785==0.1.4\n"
    )
    door = tmp_path / "supabase" / "functions" / "currency"
    door.mkdir(parents=True)
    shutil.copy(ROOT / "supabase" / "functions" / "currency" / "index.ts", door)
    return World(tmp_path, folders=[Folder("currency", path, "currency", (function(),))])


Change = Callable[[World], object]


def variables(**changes: str | None) -> Change:
    return lambda world: world.variables.update(changes)


def target(name: str, **changes: str | None) -> Change:
    def change(world: World) -> None:
        world.wish = Wish(name)
        world.variables.update(changes)

    return change


def config(old: str, new: str) -> Change:
    def change(world: World) -> None:
        assert old in world.config
        world.config = world.config.replace(old, new)

    return change


def folder(**changes: Any) -> Change:
    def change(world: World) -> None:
        world.folders[0] = dataclasses.replace(world.folders[0], **changes)

    return change


def file(path: str, text: str | None) -> Change:
    def change(world: World) -> None:
        found = world.root / path
        found.parent.mkdir(parents=True, exist_ok=True)
        found.unlink() if text is None else found.write_text(text)

    return change


def folder_called(name: str) -> Change:
    return file(f"{FUNCTIONS}/{name}/main.py", "")


def both(*changes: Change) -> Change:
    def change(world: World) -> None:
        for each in changes:
            each(world)

    return change


def on_plan(**wire: Any) -> Change:
    def change(world: World) -> None:
        world.plan = "free"
        folder(functions=(function(**wire),))(world)

    return change


def twice(world: World) -> None:
    world.folders.append(dataclasses.replace(world.folders[0], name="other"))
    file(f"{FUNCTIONS}/other/requirements.txt", "httpx\n")(world)
    file(f"{EDGE}/other/index.ts", "")(world)
    world.config += _CONFIG.replace("currency", "other")


def many(world: World) -> None:
    world.variables.update({f"SHOP_{number}": "x" for number in range(101)})


def no_tools(world: World) -> None:
    world.programs.clear()


def programs(**lines: str) -> Change:
    return lambda world: world.programs.update(lines)


REFUSED: Mapping[str, tuple[Change, str]] = {
    "no program": (no_tools, "supabase: this program is not on the PATH"),
    "no project": (variables(SUPABASE_PROJECT_REF=None), "no Supabase project is named"),
    "a bad ref": (variables(SUPABASE_PROJECT_REF="shop"), "'shop' is no project ref"),
    "an API key as token": (variables(SUPABASE_ACCESS_TOKEN="sb_secret_x"), "which begins with sbp_"),
    "no database": (variables(DATABASE_URL=None), "DATABASE_URL: not set"),
    "no database URL": (variables(DATABASE_URL="db.example.com"), "not a URL of a database"),
    "the transaction pooler": (
        variables(DATABASE_URL="postgresql://u:p@h:6543/postgres"), "6543 is the transaction pooler"
    ),
    "no signing key": (variables(INNGEST_SIGNING_KEY=None), "INNGEST_SIGNING_KEY: not set"),
    "a bad signing key": (variables(INNGEST_SIGNING_KEY="signkey-prod-xyz"), "expected hex digits"),
    "no event key": (variables(INNGEST_EVENT_KEY=None), "INNGEST_EVENT_KEY: not set"),
    "dev mode": (variables(INNGEST_DEV="1"), "in dev mode no call is checked"),
    "a serve origin": (variables(INNGEST_SERVE_ORIGIN="https://x"), "though each image has its own"),
    "plain http": (variables(STEPBASE_PUBLIC_ORIGIN="http://x.com"), "no origin that can be called"),
    "an origin with a path": (variables(STEPBASE_PUBLIC_ORIGIN="https://x.com/a"), "without a path"),
    "no origin for Docker": (target("docker", STEPBASE_PUBLIC_ORIGIN=None), "where this host is reached"),
    "no URL for Docker": (target("docker", SUPABASE_URL=None), "SUPABASE_URL: not set"),
    "no key for Cloud Run": (target("cloudrun", SUPABASE_SECRET_KEY=None), "SUPABASE_SECRET_KEY: not set"),
    "no number": (target("cloudrun", GOOGLE_CLOUD_PROJECT_NUMBER=None), "gcloud projects describe"),
    "the dashboard's own words": (
        variables(DATABASE_URL="postgresql://postgres:[YOUR-PASSWORD]@db.example.com:5432/postgres"),
        "has [YOUR-PASSWORD] in it",
    ),
    "a password as it is": (
        variables(DATABASE_URL="postgresql://postgres:a#b@db.example.com:5432/postgres"),
        "not percent-encoded",
    ),
    "the pooler of another project": (
        variables(DATABASE_URL=f"postgresql://postgres.{'z' * 20}:x@aws-0.pooler.supabase.com/postgres"),
        f"DATABASE_URL: is of project {'z' * 20}",
    ),
    "the database of another project": (
        variables(DATABASE_URL=f"postgresql://postgres:x@db.{'z' * 20}.supabase.co/postgres"),
        f"DATABASE_URL: is of project {'z' * 20}",
    ),
    "the URL of another project": (
        variables(SUPABASE_URL=f"https://{'z' * 20}.supabase.co"), f"SUPABASE_URL: is of project {'z' * 20}"
    ),
    "a broken URL": (variables(SUPABASE_URL="https://[x"), "SUPABASE_URL: 'https://[x' is no URL"),
    "a host for a URL": (variables(INNGEST_BASE_URL="engine.example.com"), "INNGEST_BASE_URL: 'engine."),
    "a space in an origin": (variables(STEPBASE_PUBLIC_ORIGIN="https://a b.com"), "no origin that can be"),
    "a broken origin": (variables(STEPBASE_PUBLIC_ORIGIN="https://[x"), "no origin that can be called"),
    "the docs' dots": (variables(INNGEST_EVENT_KEY="…"), "INNGEST_EVENT_KEY: still has the example's value"),
    "the plan's brackets": (variables(SUPABASE_SECRET_KEY="<KEY>"), "SUPABASE_SECRET_KEY: still has the ex"),
    "the host's port": (variables(PORT="3000"), "PORT: set, though it belongs to where functions run"),
    "an old CLI": (programs(supabase="echo 2.109.0"), "is version 2.109.0; a deploy needs 3.1 or later"),
    "no Compose": (
        both(target("docker"), programs(docker='[ "$1" != compose ]')), "docker: has no `docker compose`"
    ),
    "a name for us": (folder_called("compose"), "keeps 'compose' for itself"),
    "a name that is none": (folder_called("2nd"), "functions/2nd: no name for compute"),
    "a long name": (
        both(target("cloudrun"), folder_called("a" * 50)), "no name for cloudrun"
    ),
    "two names that are one": (
        both(target("cloudrun"), folder_called("a-b"), folder_called("a_b")),
        "functions/a_b: is called a-b there, as functions/a-b is",
    ),
    "a secret of Supabase's": (variables(SUPABASE_MAIL_KEY="x"), "begins with SUPABASE_"),
    "a large secret": (variables(SHOP_DATA="x" * 50_000), "a secret may have 49,152"),
    "many secrets": (many, "variables for functions; a project has 100 secrets"),
    "an unwritable secret": (variables(SHOP_KEY="a'b`c"), "no .env file can hold it"),
    "a broken folder": (folder(broken="NameError: x"), "cannot be loaded: NameError: x"),
    "no functions": (folder(functions=()), "has no functions"),
    "one id twice": (twice, "is in functions/currency too"),
    "an unpinned requirement": (
        file("functions/currency/requirements.txt", "rich\n"), "rich is not pinned"
    ),
    "no server": (
        file("functions/currency/requirements.txt", "httpx\n"), "does not name functions-framework, rfc8785"
    ),
    "an old pin": (file("functions/currency/requirements.txt", "httpx>=99\n"), "does not allow the pinned"),
    "a requirement by address": (
        file("functions/currency/requirements.txt", "x @ https://x.com/x.whl\n"), "which no version pins"
    ),
    "no requirements": (file("functions/currency/requirements.txt", None), "requirements.txt: there is none"),
    "no lock": (file("functions/requirements.lock", None), "nothing is pinned"),
    "a broken lock": (file("functions/requirements.lock", "httpx>=1\n"), "is no pin"),
    "a broken config": (config("[compute.currency]", "[compute"), "config.toml: "),
    "no block": (config("build/currency", "functions/currency"), 'source = "build/currency"'),
    "an underscore": (config("[compute.currency]", "[compute.award_currency]"), "no _"),
    "another runtime": (config('"dockerfile"', '"node"'), "Python runs by its Dockerfile"),
    "a private compute": (
        config("runtime", 'exposure = "private"\nruntime'), "the server of runs could not call it"
    ),
    "an unknown size": (config("runtime", 'size = "1tb"\nruntime'), "size is '1tb'"),
    "no instances": (config("runtime", "instances = 0\nruntime"), "instances is 0"),
    "Python as an Edge Function": (
        config("verify_jwt", 'entrypoint = "../functions/currency/main.py"\nverify_jwt'),
        "Edge Functions run TypeScript",
    ),
    "a front door that asks for a user": (config("verify_jwt = false", ""), "verify_jwt is not false"),
    "no front door": (file("supabase/functions/currency/index.ts", None), "there is no index.ts"),
    "a large front door": (
        file(f"{EDGE}/currency/data.json", "x" * (5 * 1024 * 1024)), "may have 5 MiB"
    ),
    "concurrency on free": (
        on_plan(concurrency=[{"limit": 10}]), "plan free runs 5 steps at once"
    ),
    "run limits are no step limits": (
        on_plan(concurrency={"fn": [{"limit": 50}], "step": [{"limit": 6}]}), "concurrency 6; plan free"
    ),
    "batches on free": (
        on_plan(batchEvents={"maxSize": 10, "timeout": "5s"}), "plan free has 5 events a batch"
    ),
    "slow batches on free": (
        on_plan(batchEvents={"maxSize": 2, "timeout": "1m"}), "plan free has 30 s"
    ),
}  # fmt: skip


def test_nothing_is_wrong_with_what_is_right(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    assert world.problems(monkeypatch) == []


@pytest.mark.parametrize("name", ["cloudrun", "docker"])
def test_other_targets_ask_for_no_blocks(
    world: World, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    target(name)(world)
    world.config = ""

    assert world.problems(monkeypatch) == []


@pytest.mark.parametrize("case", REFUSED)
def test_each_is_refused_with_a_remedy(
    world: World, monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    change, words = REFUSED[case]
    change(world)

    found = world.problems(monkeypatch)

    matching = [each for each in found if words in each.line()]
    assert len(matching) == 1, [each.line() for each in found]
    assert matching[0].is_fatal and len(matching[0].remedy) > 5
    # No value of a secret is in any of the words.
    values = [value for name, value in _BASE.items() if re.search("KEY|TOKEN", name)]
    assert not [each for each in found for value in values if value in each.line()]


def test_all_are_said_at_once(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    at_once = ("no signing key", "no database", "a broken folder", "no lock", "an underscore")
    for case in at_once:
        REFUSED[case][0](world)

    text = "\n".join(each.line() for each in world.problems(monkeypatch))

    assert all(REFUSED[case][1] in text for case in at_once)


def test_a_login_is_as_good_as_a_token(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.variables["SUPABASE_ACCESS_TOKEN"] = None

    [note] = world.problems(monkeypatch)

    assert not note.is_fatal and "supabase login" in note.remedy


@pytest.mark.parametrize(
    ("only", "asked_for"),
    [
        ("stage", {"SUPABASE_PROJECT_REF"}),
        ("database", {"SUPABASE_PROJECT_REF", "DATABASE_URL", "supabase"}),
        ("notebooks", {"SUPABASE_PROJECT_REF"}),
        (
            "functions",
            {"SUPABASE_PROJECT_REF", "INNGEST_SIGNING_KEY", "INNGEST_EVENT_KEY", "supabase"},
        ),
        ("verify", {"SUPABASE_PROJECT_REF", "INNGEST_SIGNING_KEY", "INNGEST_EVENT_KEY"}),
    ],
)
def test_a_part_is_asked_for_what_it_needs_alone(
    world: World, monkeypatch: pytest.MonkeyPatch, only: str, asked_for: set[str]
) -> None:
    world.wish = Wish("compute", only=(only,))
    world.variables.clear()
    world.programs.clear()

    assert {each.where for each in world.problems(monkeypatch) if each.is_fatal} == asked_for


def test_what_has_lost_its_folder_is_told(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.config += _CONFIG.replace("currency", "old")
    file("build/compose/old/compose.yaml", "name: stepbase-old\n")(world)

    [compute] = world.problems(monkeypatch)
    world.wish = Wish("docker")
    [docker] = world.problems(monkeypatch)

    delete = f"SUPABASE_EXPERIMENTAL_COMPUTE=1 supabase compute delete old --remote={REF}, then"
    assert not compute.is_fatal and compute.remedy.startswith(delete)
    assert (
        not docker.is_fatal and "docker compose --project-name stepbase-old down" in docker.remedy
    )


def test_the_database_is_of_the_project_whatever_is_deployed(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without migrations, too: the file would be of two projects."""
    world.variables["DATABASE_URL"] = f"postgresql://postgres:x@db.{'z' * 20}.supabase.co/postgres"

    for wish in (Wish("compute", skip_db=True), Wish("compute", only=("functions",))):
        world.wish = wish
        [problem] = world.problems(monkeypatch)
        assert problem.is_fatal and f"is of project {'z' * 20}" in problem.line()


@pytest.mark.parametrize("name", ["cloudrun", "docker"])
def test_a_name_is_of_one_environment_alone(
    world: World, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    folder_called("currency-staging")(world)
    world.wish = Wish(name, env="staging")
    default = (
        "functions/currency: is called currency-staging there, as functions/currency-staging of the"
    )

    [problem] = world.problems(monkeypatch)
    assert problem.is_fatal and f"{problem.where}: {problem.what}".startswith(default)

    file(".env.staging", "")(world)
    world.wish = Wish(name)
    [problem] = world.problems(monkeypatch)
    assert problem.is_fatal and "as functions/currency of --env staging is" in problem.what


def test_two_environments_on_one_port_are_told(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a note: they may run on two hosts."""
    clash = next(
        name
        for name in map("f{}".format, range(10_000))
        if port_of(name) == port_of("currency", "staging")
    )
    folder_called(clash)(world)
    world.wish = Wish("docker", env="staging")

    [note] = world.problems(monkeypatch)

    assert not note.is_fatal and f"same port as functions/{clash} of the default" in note.what


def test_the_environment_counts_in_a_name_s_length(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder_called("a" * 42)(world)
    world.wish = Wish("cloudrun")
    assert world.problems(monkeypatch) == []

    world.wish = Wish("cloudrun", env="staging")

    [problem] = world.problems(monkeypatch)
    assert problem.is_fatal and "expected up to 41 letters" in problem.what
    assert problem.what.endswith(", for -staging follows it")


@pytest.mark.parametrize("value", ["<noreply@shop.example>", "Loading…"])
def test_a_value_of_one_s_own_may_look_like_an_example(
    world: World, monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    world.variables["MAIL_FROM"] = value

    [note] = world.problems(monkeypatch)

    assert not note.is_fatal
    assert (note.where, note.what) == ("MAIL_FROM", "looks like an example's value")


def test_what_another_package_brings_need_not_be_named(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    pins = "functions-framework==3.10.2\nrfc8785==0.1.4\nsupabase==2.20.0\n"
    file("functions/currency/requirements.txt", "functions-framework\nrfc8785\nsupabase\n")(world)
    file("functions/requirements.lock", f"{pins}httpx==0.28.1  # via postgrest\n")(world)
    [problem] = world.problems(monkeypatch)
    assert problem.is_fatal and problem.what.startswith("does not name httpx, without which")

    through = "postgrest==2.20.0  # via supabase\nhttpx==0.28.1  # via postgrest\n"
    file("functions/requirements.lock", pins + through)(world)

    assert world.problems(monkeypatch) == []


def test_the_cli_s_own_file_is_looked_at_for_every_environment(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The CLI reads .env where it runs; a deploy that does without the CLI does not care."""
    secret = "a\nvery secret key"
    file(".env", f"SHOP_KEY=`{secret}`\n")(world)
    world.env = "staging"
    for name, count in (("compute", 1), ("docker", 0)):
        world.wish = Wish(name, env="staging", skip_db=True)
        found = world.problems(monkeypatch)
        assert [each.where for each in found] == [".env"] * count
        assert all(each.is_fatal and "SHOP_KEY" in each.what for each in found)
        assert not any("very secret" in each.line() for each in found)


async def _straight(step: Any) -> None:
    await step.run("a", int)
    if await step.wait_for_event("b", "e"):
        await step.table("t").insert({})
    await step.ai.infer("c")
    await step.patch("p")


async def _looping(step: Any) -> None:
    for _ in range(3):
        await step.sleep("s", "1s")


async def _handing_on(step: Any) -> None:
    await _straight(step)


@pytest.mark.parametrize(
    ("handler", "count", "is_least"),
    [(_straight, 4, False), (_looping, 1, True), (_handing_on, 0, True), (len, 0, True)],
)
def test_steps_are_counted_in_the_source(
    handler: Callable[..., Any], count: int, is_least: bool
) -> None:
    steps = steps_of(handler)

    assert (steps.count, steps.is_least) == (count, is_least)
