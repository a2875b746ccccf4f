"""Commands that have an engine do something: what they do, print and exit with, and how refusals read."""

import asyncio
from pathlib import Path

import pytest
from tests.cli.conftest import OTHER_KEY, SIGNING_KEY, StartEngine, Type
from tests.support.engine_client import EngineClient
from tests.support.fake_api import Received, fake_api

ACTIONS = [
    ("send", "shop/order"),
    ("cancel", "01M875DS7S0000000000000011"),
    ("rerun", "01M875DS7S0000000000000011"),
    ("pause", "shop-order"),
    ("resume", "shop-order"),
]


async def test_send_prints_the_id_of_an_event_that_starts_a_run(
    shop: EngineClient, type_in: Type
) -> None:
    said = await type_in("send", "shop/order", '{"id": 7}', "--id", "order-7")
    again = await type_in("send", "shop/order", '{"id": 7}', "--id", "order-7", "--json")

    run = await shop.result(said.out.strip())
    assert (said.code, run["status"]) == (0, "Completed")
    assert again.data["name"] == "shop/order" and set(again.data) == {"id", "name"}
    assert await shop.runs_of(again.data["id"]) in ([], [run])


async def test_send_carries_time_user_and_what_stands_in_a_file(
    shop: EngineClient, type_in: Type
) -> None:
    said = await type_in(
        "send", "shop/none", "-", "--ts", "2026-11-24T12:00Z", "--user", '{"id": "u1"}',
        given='{"text": "ümlaut"}',
    )  # fmt: skip

    _, answer = await shop.request("GET", f"/v1/events/{said.out.strip()}")
    assert answer["data"]["data"] == {"text": "ümlaut"}
    assert answer["data"]["ts"] == 1_795_521_600_000
    assert answer["data"]["user"] == {"id": "u1"}


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("{id: 7}",), "DATA is not JSON"),
        (("[7]",), "DATA: expected a JSON object as in '{\"id\": 7}', got '[7]'"),
        (("NaN",), "NaN is not JSON"),
        (("{}", "--ts", "soon"), "--ts: 'soon' is neither a time"),
        (("{}", "--user", "u1"), "--user is not JSON"),
        (("{}", "--url", "localhost:8288"), "--url: expected http://… or https://…"),
    ],
)
async def test_send_refuses_what_it_cannot_read(
    type_in: Type, words: tuple[str, ...], says: str
) -> None:
    said = await type_in("send", "shop/order", *words)

    assert said.code == 2 and says in said.err, said.err


async def test_send_says_why_an_event_is_refused(shop: EngineClient, type_in: Type) -> None:
    said = await type_in("send", "", "{}")

    assert said.code == 1 and "name" in said.err.lower()


async def test_cancel_ends_what_goes_on_and_says_what_had_ended(
    shop: EngineClient, type_in: Type
) -> None:
    [asleep] = await shop.send({"name": "shop/sleeps"})
    await shop.opened(asleep, "sleep")
    [live] = await shop.runs_of(asleep)
    done = await shop.result((await shop.send({"name": "shop/order"}))[0])

    said = await type_in("cancel", live["run_id"], done["run_id"], "01ARZ3NDEKTSV4RRFFQ69G5FAV")
    as_json = await type_in("cancel", done["run_id"], "--json")

    assert said.code == 1
    assert said.out == f"{live['run_id']} cancelled\n"
    assert f"run {done['run_id']} had ended: Completed" in said.err
    assert "run 01ARZ3NDEKTSV4RRFFQ69G5FAV is not known here" in said.err
    assert [run["status"] for run in await shop.runs_of(asleep)] == ["Cancelled"]
    assert as_json.code == 1
    assert [set(row) for row in as_json.data] == [{"run_id", "ok", "status", "error"}]


async def test_rerun_makes_a_run_again_wholly_or_from_a_step(
    shop: EngineClient, type_in: Type
) -> None:
    first = await shop.result((await shop.send({"name": "shop/order"}))[0])

    whole = await type_in("rerun", first["run_id"])
    part = await type_in(
        "rerun", first["run_id"], "--from", "second", "--input", '["other"]', "--json"
    )

    assert (whole.code, part.code) == (0, 0), part.err
    runs = await shop.ended(first["event_id"], 3)
    by_id = {run["run_id"]: run for run in runs}
    assert by_id[whole.out.strip()]["original_run_id"] == first["run_id"]
    assert part.data[0]["original_run_id"] == first["run_id"] and part.data[0]["ok"] is True
    assert by_id[part.data[0]["run_id"]]["output"] == {"ok": ["other"]}


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (("--from", "third"), 1, "has no step 'third'"),
        (("--input", "[1]"), 2, "say which with --from"),
        (("--from", "second", "--input", "1"), 2, "--input: expected a JSON list"),
    ],
)
async def test_rerun_says_what_is_wrong(
    shop: EngineClient, type_in: Type, words: tuple[str, ...], code: int, says: str
) -> None:
    run = await shop.result((await shop.send({"name": "shop/order"}))[0])

    said = await type_in("rerun", run["run_id"], *words)

    assert said.code == code and says in said.err, said.err


async def test_rerun_of_a_live_run_is_refused(shop: EngineClient, type_in: Type) -> None:
    [asleep] = await shop.send({"name": "shop/sleeps"})
    await shop.opened(asleep, "sleep")
    [live] = await shop.runs_of(asleep)

    said = await type_in("rerun", live["run_id"])

    assert said.code == 1 and "has not ended: cancel it first" in said.err


async def test_pause_holds_runs_back_and_resume_lets_them_go_on(
    shop: EngineClient, type_in: Type
) -> None:
    paused = await type_in("pause", "shop-order")
    [event] = await shop.send({"name": "shop/order"})
    listed = {row["slug"]: row["paused_at"] for row in (await type_in("functions", "--json")).data}
    resumed = await type_in("resume", "shop-order", "--json")
    unknown = await type_in("pause", "shop-oder")

    assert (paused.code, paused.out) == (0, "shop-order paused\n")
    assert listed["shop-order"] is not None and listed["shop-fails"] is None
    assert resumed.data == [{"function": "shop-order", "ok": True, "is_paused": False}]
    assert (await shop.result(event))["status"] == "Completed"
    assert unknown.code == 1 and "there is no function 'shop-oder'" in unknown.err
    assert "stepbase functions lists them" in unknown.err


@pytest.mark.parametrize("words", ACTIONS, ids=lambda words: words[0])
async def test_an_engine_that_is_away_is_named_with_what_to_do(
    type_in: Type, words: tuple[str, ...], tmp_path: Path
) -> None:
    said = await type_in(*words, "--url", "http://127.0.0.1:1")

    assert said.code == 1
    assert "no engine answers at http://127.0.0.1:1" in said.err
    assert "is one running (stepbase dev, stepbase engine)? --url names another" in said.err


@pytest.mark.parametrize("words", ACTIONS, ids=lambda words: words[0])
async def test_what_is_no_engine_is_told_apart(type_in: Type, words: tuple[str, ...]) -> None:
    def answer(request: Received) -> tuple[int, object]:
        return 404, "<html>nginx</html>"

    with fake_api(answer) as api:
        said = await type_in(*words, "--url", api.url)

    assert said.code == 1 and "answered HTTP 404 and not as an engine does" in said.err


@pytest.mark.parametrize("words", ACTIONS[1:], ids=lambda words: words[0])
async def test_a_wrong_or_missing_signing_key_is_named(
    start_engine: StartEngine,
    type_in: Type,
    monkeypatch: pytest.MonkeyPatch,
    words: tuple[str, ...],
) -> None:
    async with start_engine(signing_keys=(SIGNING_KEY,), event_keys=("ek",)) as (client, _):
        without = await type_in(*words, "--url", client.url)
        monkeypatch.setenv("INNGEST_SIGNING_KEY", OTHER_KEY)
        wrong = await type_in(*words, "--url", client.url)
        monkeypatch.setenv("INNGEST_SIGNING_KEY", SIGNING_KEY)
        right = await type_in(*words, "--url", client.url)

    assert (without.code, wrong.code, right.code) == (1, 1, 1)
    assert "it has keys: set INNGEST_SIGNING_KEY" in without.err
    assert "INNGEST_SIGNING_KEY is not one of its keys" in wrong.err
    assert "not known here" in right.err or "there is no function" in right.err
    assert OTHER_KEY not in wrong.err + wrong.out


async def test_a_wrong_or_missing_event_key_is_named(
    start_engine: StartEngine, type_in: Type, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with start_engine(signing_keys=(SIGNING_KEY,), event_keys=("ek",)) as (client, _):
        without = await type_in("send", "a/b", "--url", client.url)
        monkeypatch.setenv("INNGEST_EVENT_KEY", "other")
        wrong = await type_in("send", "a/b", "--url", client.url)
        monkeypatch.setenv("INNGEST_EVENT_KEY", "ek")
        right = await type_in("send", "a/b", "--url", client.url)

    assert without.code == 1 and "it has keys: set INNGEST_EVENT_KEY" in without.err
    assert wrong.code == 1 and "INNGEST_EVENT_KEY is not one of its keys" in wrong.err
    assert right.code == 0, right.err


async def test_actions_go_where_the_sdk_s_variables_say(
    shop: EngineClient, type_in: Type, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("INNGEST_DEV")
    monkeypatch.setenv("INNGEST_BASE_URL", shop.url + "/")

    said = await type_in("send", "shop/order")

    assert said.code == 0
    await asyncio.wait_for(shop.result(said.out.strip()), 30)
