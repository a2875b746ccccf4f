"""No page, no JSON, no log line and no command shows a secret, wherever it stands in what is stored."""

import json
import logging
from typing import Any

import asyncpg
import pytest
from click.testing import CliRunner
from tests.console.conftest import Shown, StartConsole
from tests.support.stub_host import SDK_HEADERS, Answer, ops, step_run

from stepbase.cli.main import main
from stepbase.console.site import PAGES
from stepbase.protocol.ids import hash_step_id

KEY = "signkey-test-" + "ab" * 32
BARE = "ab" * 32
EVENT_KEY = "an-event-key-of-this-engine"
SECRETS = {
    "header": "s3cr3t-in-a-header", "pair": "s3cr3t-in-a-pair", "text": "s3cr3t-in-json-in-text",
    "password": "s3cr3t-password", "result": "s3cr3t-of-a-step", "query": "s3cr3t-in-a-query",
    "supabase": "sb_secret_abcdefgh1234", "user": "s3cr3t-of-postgres",
}  # fmt: skip


@pytest.fixture
async def full(start_console: StartConsole, database: str) -> Any:
    """An engine with keys, whose tables hold secrets in every place."""
    async with start_console(token=KEY, signing_keys=(KEY,), event_keys=(EVENT_KEY,)) as shown:
        hashed = hash_step_id("a")
        message = (
            f"POST /x with {KEY} and {EVENT_KEY} said {SECRETS['supabase']};"
            f" postgres://me:{SECRETS['user']}@db/x; Authorization: Bearer {SECRETS['header']}"
        )

        def answer(call: dict[str, Any]) -> Answer:
            if hashed not in call["steps"]:
                return ops(step_run(hashed, {"apiKey": SECRETS["result"], "kept": "in the result"}))
            return Answer(
                500, {"name": "Error", "message": message, "stack": message},
                {**SDK_HEADERS, "x-inngest-no-retry": "true"},
            )  # fmt: skip

        shown.host.handlers["app-f"] = answer
        body = shown.host.registration(shown.host.function("app-f"))
        url = f"{shown.host.url}?eventKey={SECRETS['query']}"
        told = {"app-f": {"app/f": {"model": "F", "schema": {"properties": {
            "headers": {"type": "object"}, "password": {"type": "string", "default": SECRETS["password"]},
        }}}}}  # fmt: skip
        await shown.api.register({**body, "url": url, "stepbase": {"schemas": told}})
        data = {
            "headers": {
                "Authorization": f"Bearer {SECRETS['header']}",
                "accept": "kept in a header",
            },
            "raw": [["Cookie", SECRETS["pair"]], ["accept", "*/*"]],
            "body": json.dumps({"token": SECRETS["text"]}),
            "password": SECRETS["password"],
        }
        [event_id] = await shown.api.send({"name": "app/f", "data": data}, key=EVENT_KEY)
        run = await shown.api.result(event_id)
        connection = await asyncpg.connect(database)
        await connection.execute(
            "update stepbase.apps set error = $1, error_at = now(), error_code = 'away'", message
        )
        await connection.execute("select stepbase.emit('app/f', '{}', id => 'dead')")
        await connection.execute("update stepbase.outbox set dead_at = now(), error = $1", message)
        await connection.close()
        yield shown, run, event_id


def _leaks(text: str) -> list[str]:
    return [
        name
        for name, each in {**SECRETS, "key": BARE, "event key": EVENT_KEY}.items()
        if each in text
    ]


async def test_no_page_shows_a_secret(full: tuple[Shown, dict[str, Any], str]) -> None:
    shown, run, event_id = full
    await shown.web.post("/sign-in", data={"key": KEY})
    values = {
        "{run_id}": run["run_id"], "{event_id}": event_id, "{slug:path}": "app-f", "{name:path}": "app/f",
    }  # fmt: skip
    queries = ["", "?name=app/f", "?name=app/f&as=json", "?of=payload", "?of=output", "?text=s3cr3t",
               f"?step={hash_step_id('a')}", "?attempt=1"]  # fmt: skip
    seen = ""
    for path in PAGES:
        for name, value in values.items():
            path = path.replace(name, value)
        for query in queries:
            for form in ("", "format=json"):
                asked = path + query + (("&" if query else "?") + form if form else "")
                text = (await shown.web.get(asked)).text
                assert _leaks(text) == [], asked
                seen += text

    assert "[redacted]" in seen and "kept in a header" in seen and "kept" in seen
    assert "eventKey=[redacted]" in seen


async def test_what_came_of_an_action_has_no_secret(
    full: tuple[Shown, dict[str, Any], str], caplog: pytest.LogCaptureFixture
) -> None:
    shown, _, _ = full
    await shown.web.post("/sign-in", data={"key": KEY})
    await shown.host.stop()

    with caplog.at_level(logging.INFO):
        answer = await shown.act("/apps/app/resync")
    page = await shown.page(answer.headers["location"])

    assert "could not be synced" in page and _leaks(page) == []
    assert _leaks("".join(str(each.__dict__) for each in caplog.records)) == []


async def test_no_command_shows_a_secret(
    full: tuple[Shown, dict[str, Any], str], database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import asyncio

    _, run, _ = full
    monkeypatch.setenv("INNGEST_SIGNING_KEY", KEY)
    monkeypatch.setenv("INNGEST_EVENT_KEY", EVENT_KEY)
    asked = [["runs"], ["trace", run["run_id"]], ["events"], ["apps"], ["functions"],
             ["tail", "--since", "1h", "--for", "0s"], ["outbox", "list"]]  # fmt: skip
    for command in asked:
        for form in ([], ["--json"]):
            line = [*command, *form, "--database-url", database]
            result = await asyncio.to_thread(CliRunner().invoke, main, line)
            assert result.output and result.exception is None, (line, result.output)
            assert _leaks(result.output) == [], line
