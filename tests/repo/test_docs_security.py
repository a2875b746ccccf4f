"""docs/security.md: every point names tests that are there, and what no other test shows is shown here."""

import ast
import dataclasses
import re
from typing import Any

import httpx
import pytest
from tests.console.conftest import StartConsole, host, start_console
from tests.repo.tree import ROOT, assert_none, parsed, shown
from tests.sql.test_grants import _EXECUTE

from stepbase import config
from stepbase.engine.settings import Settings

__all__ = ["host", "start_console"]  # the fixtures

PAGE = ROOT / "docs" / "security.md"
SHARED = ROOT / "shared" / "stepbase"
_PROOF = re.compile(r"\[`(?P<test>test_\w+)`\]\(\.\./(?P<file>tests/[\w/.]+)\)")
SECRET = "5ec2e7" * 8

COMPARED = (
    # Where a key, a signature or a token that somebody sent is compared with ours.
    ("protocol/signing.py", "_matching"),
    ("protocol/signing.py", "bearer_matches"),
    ("engine/api/auth.py", "may_send"),
    ("console/access.py", "may_act"),
    ("console/access.py", "_is_signed_in"),
    ("console/access.py", "_opens"),
    ("local/gateway/auth.py", "_check_key"),
)


def points() -> list[str]:
    """Return the page's points, each as one line."""
    text = PAGE.read_text("utf-8")
    return [
        " ".join(point.split()) for point in re.findall(r"^\* .*\n(?:  .*\n)*", text, re.MULTILINE)
    ]


def test_every_point_names_a_test_that_is_there() -> None:
    found = points()

    assert len(found) > 50
    assert_none(point[:80] for point in found if not _PROOF.search(point))
    proofs = {(each["file"], each["test"]) for p in found for each in _PROOF.finditer(p)}
    assert len(proofs) > 60
    assert_none(
        f"{file}: {test}"
        for file, test in sorted(proofs)
        if not re.search(rf"^(async )?def {test}\(", (ROOT / file).read_text("utf-8"), re.MULTILINE)
    )


def test_the_doors_of_the_api_are_those_that_are_granted() -> None:
    rows = re.findall(r"^\| `(stepbase_\w+)` \| `(\w+)` \|", PAGE.read_text("utf-8"), re.MULTILINE)
    granted = {
        (name.partition("(")[0].removeprefix("public."), role)
        for role, names in _EXECUTE.items()
        for name in names
        if name.startswith("public.stepbase_")
    }

    assert set(rows) == granted


def test_every_key_of_the_environment_is_in_the_table() -> None:
    source = (SHARED / "config.py").read_text("utf-8")
    keys = set(
        re.findall(r'"((?:INNGEST|SUPABASE|STEPBASE)_[A-Z_]*(?:KEY|KEYS|SECRET|FALLBACK))"', source)
    )
    text = PAGE.read_text("utf-8")

    assert len(keys) >= 6
    # A fallback is the same key, later.
    assert_none(sorted(key for key in keys if key.removesuffix("_FALLBACK") not in text))


def test_settings_do_not_show_their_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    kept: list[Any] = [
        Settings(
            database_url=f"postgresql://u:{SECRET}@h/d", port=0,
            signing_keys=(SECRET,), event_keys=(SECRET,),
        ),
    ]  # fmt: skip
    for name, value in {
        "INNGEST_SIGNING_KEY": SECRET, "INNGEST_SIGNING_KEY_FALLBACK": SECRET, "INNGEST_EVENT_KEY": SECRET,
        "SUPABASE_URL": "https://x.supabase.co", "SUPABASE_SECRET_KEY": SECRET,
        "SUPABASE_JWT_SECRET": SECRET, "STEPBASE_EVENT_KEY_FALLBACK": SECRET,
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    kept += [config.inngest(), config.supabase(), config.supabase_auth()]
    assert all(SECRET in dataclasses.astuple(each) for each in kept[1:])

    assert_none(type(each).__name__ for each in kept if SECRET in repr(each) + str(each))


def test_keys_are_compared_in_constant_time() -> None:
    for file, name in COMPARED:
        [function] = [
            node
            for node in ast.walk(parsed(SHARED / file))
            if isinstance(node, ast.FunctionDef) and node.name == name
        ]
        assert "compare_digest" in ast.unparse(function), (file, name)
    # And nowhere is such a value compared in another way.
    assert_none(
        f"{shown(path)}:{node.lineno}"
        for path in SHARED.rglob("*.py")
        for node in ast.walk(parsed(path))
        if isinstance(node, ast.Compare)
        and any(isinstance(op, ast.Eq | ast.NotEq | ast.In) for op in node.ops)
        and re.search(
            r"\b(mac|signature|event_key|signing_key|secret_key|csrf)\b",
            ast.unparse(node),
        )
    )


@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_the_cookie_is_secure_behind_https(start_console: StartConsole, scheme: str) -> None:
    key = "ab" * 32
    async with start_console(signing_keys=(key,), event_keys=("send",)) as running:
        answer: httpx.Response = await running.web.post(
            "/sign-in", data={"key": key}, headers={"x-forwarded-proto": scheme}
        )

    assert ("secure" in answer.headers["set-cookie"].lower()) == (scheme == "https")
