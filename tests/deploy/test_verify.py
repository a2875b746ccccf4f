"""What the answers of a deployed folder mean: each difference has words that say what to do."""

import json
from typing import Any

import pytest

from stepbase.deploy import verify
from stepbase.deploy.plan import Served
from stepbase.protocol.signing import hash_key
from stepbase.sdk.http import Answer

KEY = "signkey-prod-" + "5e" * 32
ORIGIN = "https://abcdefghijklmnopqrst.supabase.co"
APP = Served(
    "currency",
    "currency",
    2,
    f"{ORIGIN}/compute/v1/currency",
    f"{ORIGIN}/compute/v1/currency/health",
    "d1",
)
DOOR = Served(
    "door", None, 0, f"{ORIGIN}/compute/v1/door", f"{ORIGIN}/compute/v1/door/health", "d2"
)
OPEN = {"function_count": 2, "mode": "cloud", "has_signing_key": True, "has_event_key": True}
SIGNED = {
    **OPEN,
    "authentication_succeeded": True,
    "app_id": "currency",
    "signing_key_hash": hash_key(KEY),
    "serve_origin": ORIGIN,
    "serve_path": "/compute/v1/currency",
}


def answer(body: Any, status: int = 200) -> Answer:
    return Answer(status, {}, body if isinstance(body, bytes) else json.dumps(body).encode())


@pytest.mark.parametrize(
    ("served", "given", "problem"),
    [
        (APP, answer({"status": "ok", "deployment": "d1"}), None),
        (APP, answer({"status": "ok", "deployment": "d0"}), "answers as deployment d0, not d1"),
        (APP, answer({"status": "ok"}), "answers as deployment unknown"),
        (DOOR, answer({"status": "ok"}), None),
        (DOOR, answer({"status": "ok", "deployment": "d1"}), "answers as deployment d1, not d2"),
        (DOOR, answer({"error": "no JWKS"}, 503), "look at its log"),
        (APP, answer(b"not found", 404), "another name in config.toml"),
        (APP, answer({"message": "Missing authorization header"}, 401), "verify_jwt"),
        (APP, answer(b"<html>", 200), "none of stepbase's answers"),
        (APP, Answer(0, {}, b"no answer from x: refused"), "no answer from x"),
    ],
)
def test_health(served: Served, given: Answer, problem: str | None) -> None:
    found = verify.health_problem(served, given)

    assert found is None if problem is None else problem in str(found)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({}, None),
        ({"mode": "dev"}, "supabase secrets unset INNGEST_DEV"),
        ({"has_signing_key": False}, "secrets take about a minute on Compute"),
        ({"function_count": 1}, "has 1 functions, and 2 were deployed"),
    ],
)
def test_what_anyone_may_see(change: dict[str, Any], problem: str | None) -> None:
    found = verify.open_problem(APP, answer({**OPEN, **change}))

    assert found is None if problem is None else problem in str(found)


@pytest.mark.parametrize(
    ("change", "problems"),
    [
        ({}, []),
        ({"authentication_succeeded": None}, ["another INNGEST_SIGNING_KEY"]),
        ({"app_id": "orders"}, ["serves app 'orders', not 'currency'"]),
        ({"signing_key_hash": "00"}, ["as its fallback only"]),
        ({"serve_origin": None}, ["INNGEST_SERVE_ORIGIN is not in its image"]),
        (
            {"serve_origin": "https://edge-runtime.supabase.com", "serve_path": "/currency"},
            ["registers itself as https://edge-runtime.supabase.com/currency"],
        ),
        ({"has_event_key": False}, ["cannot send events"]),
        ({"app_id": "x", "has_event_key": False}, ["serves app 'x'", "cannot send events"]),
    ],
)
def test_what_the_signed_answer_says(change: dict[str, Any], problems: list[str]) -> None:
    found = verify.signed_problems(APP, answer({**SIGNED, **change}), KEY)

    assert len(found) == len(problems)
    assert all(wanted in each for wanted, each in zip(problems, found, strict=True))


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        (answer({"ok": True}), None),
        (answer({"data": {}}, 202), None),
        (answer({"message": "invalid signing key"}, 401), "not one of this Inngest environment"),
        (answer({"error": "app not found"}, 404), "nothing is registered there"),
        (answer(b"oops", 500), "HTTP 500 oops"),
        (Answer(0, {}, b"no answer from x"), "no answer from x"),
    ],
)
def test_syncs(given: Answer, problem: str | None) -> None:
    found = verify.sync_problem(APP, given)

    assert found is None if problem is None else problem in str(found)


def registered(*urls: str) -> Answer:
    steps = [[{"id": "step", "uri": f"{url}?fnId=currency-x&stepId=step"}] for url in urls]
    return answer([{"id": "currency-x", "config": {"steps": each}} for each in steps])


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        (registered(APP.url, APP.url), None),
        (registered(APP.url, APP.url, APP.url), None),
        (
            registered(APP.url, "https://edge-runtime.supabase.com/currency"),
            "calls currency at https://edge-",
        ),
        (registered(APP.url), "has 1 functions of currency, and it has 2"),
        (answer([]), "has 0 functions"),
    ],
)
def test_what_the_server_has_registered(given: Answer, problem: str | None) -> None:
    assert verify.is_list(given)
    found = verify.registered_problems(APP, given)

    assert found == [] if problem is None else problem in "; ".join(found)


@pytest.mark.parametrize(
    "given", [answer([], 404), answer(b"x"), answer({"ok": True}), answer([1])]
)
def test_a_server_may_not_tell(given: Answer) -> None:
    assert not verify.is_list(given)
