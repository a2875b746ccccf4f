"""Bad syncs over real HTTP: each answer names the function and the field, and nothing is stored."""

from collections.abc import Callable

from tests.conftest import Connect
from tests.support.engine_client import EngineClient
from tests.support.stub_host import Answer, StubHost


def broken(host: StubHost, **changes: object) -> dict[str, object]:
    """Return a registration whose second function is changed."""
    return host.registration(host.function("app-fine"), {**host.function("app-f"), **changes})


def retries(host: StubHost, attempts: object) -> dict[str, object]:
    """Return a registration of a function with such retries."""
    return host.registration(host.function("app-f", retries=attempts))


BAD_SYNCS: dict[str, tuple[Callable[[StubHost], object], str]] = {
    "malformed": (lambda host: "{", "Invalid request: "),
    "a list": (lambda host: [], "Invalid request: expected a JSON object"),
    "no app": (lambda host: {"url": host.url}, "App ID required"),
    "no url": (
        lambda host: {"appName": "app", "url": "somewhere"},
        "'url' must be the app's http(s) serve URL, got 'somewhere'",
    ),
    "functions is an object": (
        lambda host: {"appName": "app", "url": host.url, "functions": {}},
        "'functions' must be a list",
    ),
    "a function without id": (lambda host: broken(host, id=""), "a function has no 'id'"),
    "twice the same id": (
        lambda host: broken(host, id="app-fine"),
        "function ids must be unique in an app, twice here: ['app-fine']",
    ),
    "no steps": (
        lambda host: broken(host, steps=None),
        "function 'app-f': steps must be a JSON object, got None",
    ),
    "two steps": (
        lambda host: broken(host, steps={"a": {}, "b": {}}),
        "function 'app-f': steps must be an object with exactly one step, got '2 steps'",
    ),
    "no url of a step": (
        lambda host: broken(host, steps={"step": {"runtime": {"url": "ftp://x"}}}),
        "function 'app-f': steps.step.runtime.url must be an http(s) URL, got 'ftp://x'",
    ),
    "trigger with both": (
        lambda host: broken(host, triggers=[{"event": "a/b", "cron": "* * * * *"}]),
        "function 'app-f': triggers[0] must be one of 'event' and 'cron', got ",
    ),
    "eleven triggers": (
        lambda host: broken(host, triggers=[{"event": f"a/{i}"} for i in range(11)]),
        "function 'app-f': triggers must be a list of at most 10, got '11 entries'",
    ),
    "bad filter": (
        lambda host: broken(host, triggers=[{"event": "a/b", "expression": "event.data.x =="}]),
        "function 'app-f', trigger 'a/b': not a valid CEL expression: 'event.data.x =='",
    ),
    "bad cancel filter": (
        lambda host: broken(host, cancel=[{"event": "a/c", "if": "((("}]),
        "function 'app-f', cancel on 'a/c': not a valid CEL expression: '((('",
    ),
    "filter without end": (
        lambda host: broken(host, cancel=[{"event": "a/c", "if": "(" * 9000}]),
        "function 'app-f', cancel on 'a/c': an expression has 9000 characters, 8192 are allowed: ",
    ),
    "cancel without event": (
        lambda host: broken(host, cancel=[{"if": "true"}]),
        "function 'app-f': cancel[0].event must be an event name, got None",
    ),
    "bad cancel timeout": (
        lambda host: broken(host, cancel=[{"event": "a/c", "timeout": "soon"}]),
        "function 'app-f': cancel[0].timeout must be a duration like \"2h\", got 'soon'",
    ),
    "six fields of cron": (
        lambda host: broken(host, triggers=[{"cron": "0 0 9 * * 1"}]),
        "function 'app-f': cron '0 0 9 * * 1' is not a schedule (6 fields instead of 5)",
    ),
    "cron out of range": (
        lambda host: broken(host, triggers=[{"cron": "61 9 * * *"}]),
        "function 'app-f': cron '61 9 * * *' is not a schedule (",
    ),
    "cron that never comes": (
        lambda host: broken(host, triggers=[{"cron": "0 0 31 2 *"}]),
        "function 'app-f': cron '0 0 31 2 *' is not a schedule (",
    ),
    "cron in no time zone": (
        lambda host: broken(host, triggers=[{"cron": "TZ=Mars/Base 0 9 * * *"}]),
        "function 'app-f': cron 'TZ=Mars/Base 0 9 * * *' names an unknown time zone",
    ),
    "negative retries": (
        lambda host: retries(host, -1),
        "function 'app-f': steps.step.retries.attempts must be an integer from 0 to 20, got -1",
    ),
    "retries as text": (
        lambda host: retries(host, "3"),
        "function 'app-f': steps.step.retries.attempts must be an integer from 0 to 20, got '3'",
    ),
    "bad timeout": (
        lambda host: broken(host, timeouts={"finish": 5}),
        "function 'app-f': timeouts.finish must be a string, got 5",
    ),
}


async def test_bad_sync_names_function_and_field_and_changes_nothing(
    client: EngineClient, host: StubHost, connect: Connect
) -> None:
    for what, (body, message) in BAD_SYNCS.items():
        status, answer = await client.request("POST", "/fn/register", body(host))

        assert status == 400, (what, answer)
        assert answer["status"] == 400, what
        assert answer["error"].startswith(message), (what, answer["error"])
    assert await (await connect()).fetchval("select count(*) from stepbase.functions") == 0


async def test_sync_with_characters_no_database_keeps_is_refused_in_words(
    client: EngineClient, host: StubHost
) -> None:
    nul, half = "a\x00", "a\ud83d"
    bad: list[tuple[dict[str, object], str]] = [
        ({**host.registration(), "framework": nul}, "the sync.framework contains a NUL character"),
        (broken(host, name=half), "function 'app-f': function.name contains half a surrogate"),
        (
            broken(host, cancel=[{"event": nul}]),
            "function 'app-f': function.cancel[0].event contains a NUL character",
        ),
        (broken(host, id=nul), "function 'a\\x00': function.id contains a NUL character"),
    ]
    for body, message in bad:
        status, answer = await client.request("POST", "/fn/register", body)

        assert status == 400, answer
        assert answer["error"].startswith(message), answer


async def test_more_than_twenty_retries_become_twenty(client: EngineClient, host: StubHost) -> None:
    host.handlers["app-f"] = lambda call: Answer(200, call["ctx"]["max_attempts"])
    await client.register(retries(host, 21))

    [event_id] = await client.send({"name": "app/f"})

    assert (await client.result(event_id))["output"] == 21


async def test_sync_for_another_mode_says_what_to_change(
    client: EngineClient, host: StubHost
) -> None:
    status, answer = await client.request(
        "POST", "/fn/register", host.registration(), {"x-inngest-expected-server-kind": "cloud"}
    )

    assert status == 400
    assert answer["error"] == (
        "Expected server kind dev, got cloud: the app runs in cloud mode; "
        "set or unset INNGEST_DEV on its side"
    )
