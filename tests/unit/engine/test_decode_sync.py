"""Syncs as the server reads them (vectors `02-register…`, `api-register-variants.json`)."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stepbase.engine.registry import check_function
from stepbase.errors import ProtocolError
from stepbase.protocol.lane_options import Concurrency, LaneOptions
from stepbase.protocol.sync import (
    CancelConfig,
    FunctionConfig,
    TriggerConfig,
    decode_function,
    decode_register,
)

URL = "http://127.0.0.1:9000/api/inngest"


def function(**changes: Any) -> dict[str, Any]:
    step = {
        "id": "step",
        "name": "step",
        "runtime": {"type": "http", "url": f"{URL}?fnId=app-f&stepId=step"},
    }
    return {
        "id": "app-f",
        "name": "f",
        "triggers": [{"event": "app/f"}],
        "steps": {"step": step},
        **changes,
    }


def with_step(**changes: Any) -> dict[str, Any]:
    raw = function()
    raw["steps"]["step"].update(changes)
    return raw


def registration(**changes: Any) -> dict[str, Any]:
    return {
        "url": URL,
        "appName": "app",
        "sdk": "x:v1",
        "framework": "f",
        "functions": [function()],
        **changes,
    }


def test_a_function_is_read_with_everything_the_engine_honours() -> None:
    raw = function(
        triggers=[
            {"event": "app/f", "expression": "event.data.n > 1"},
            {"cron": "TZ=Asia/Bangkok 0 9 * * 1-5", "jitter": "5s"},
        ],
        cancel=[{"event": "app/stop", "if": "event.data.id == async.data.id", "timeout": "1h"}],
        timeouts={"start": "90s", "finish": "1d"},
        concurrency=[{"limit": 5}],
        unknown={"kept": True},
    )
    raw["steps"]["step"]["retries"] = {"attempts": 2}

    config = decode_function(raw)

    assert config == FunctionConfig(
        slug="app-f",
        name="f",
        url=f"{URL}?fnId=app-f&stepId=step",
        triggers=(
            TriggerConfig("app/f", "event.data.n > 1"),
            TriggerConfig(None, None, "TZ=Asia/Bangkok 0 9 * * 1-5", "5s"),
        ),
        retries=2,
        cancels=(CancelConfig("app/stop", "event.data.id == async.data.id", 3600.0),),
        start_timeout=90.0,
        finish_timeout=86400.0,
        limits=LaneOptions((Concurrency(5),)),
    )
    assert config.raw == raw


def test_what_is_left_out_has_the_servers_defaults() -> None:
    config = decode_function({k: v for k, v in function().items() if k not in ("triggers", "name")})

    assert (config.name, config.triggers, config.retries) == ("app-f", (), 4)
    assert (config.cancels, config.start_timeout, config.finish_timeout) == ((), None, None)


@pytest.mark.parametrize(("attempts", "retries"), [(0, 0), (20, 20), (25, 20), (None, 4)])
def test_retries_are_clamped_to_twenty(attempts: int | None, retries: int) -> None:
    assert decode_function(with_step(retries={"attempts": attempts})).retries == retries


@pytest.mark.parametrize(
    "names",
    [
        {"appName": "a", "deployType": "ping"},
        {"appname": "a", "deploy_type": "ping"},
        {"app_name": "a"},
        {"APPNAME": "a"},
    ],
)
def test_both_spellings_of_the_apps_name_are_accepted(names: dict[str, str]) -> None:
    raw = {k: v for k, v in registration().items() if k != "appName"} | names

    assert decode_register(raw).app_name == "a"


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ([], "Invalid request: expected a JSON object"),
        (registration(appName=""), "App ID required"),
        (registration(appName=5), "App ID required"),
        ({}, "App ID required"),
        (registration(url="ftp://x"), "'url' must be the app's http(s) serve URL, got 'ftp://x'"),
        (registration(url=None), "'url' must be the app's http(s) serve URL, got None"),
        (registration(functions={}), "'functions' must be a list"),
        (registration(functions=[1]), "each function must be a JSON object"),
        (
            registration(functions=[function(), function()]),
            "function ids must be unique in an app, twice here: ['app-f']",
        ),
    ],
)
def test_a_broken_sync_is_refused(raw: object, message: str) -> None:
    with pytest.raises(ProtocolError) as caught:
        decode_register(raw)

    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (function(id=""), "a function has no 'id'"),
        (function(id=5), "a function has no 'id'"),
        (
            function(steps={}),
            "function 'app-f': steps must be an object with exactly one step, got '0 steps'",
        ),
        (function(steps=[]), "function 'app-f': steps must be a JSON object, got []"),
        (
            with_step(runtime={"url": "ws://x"}),
            "function 'app-f': steps.step.runtime.url must be an http(s) URL, got 'ws://x'",
        ),
        (
            with_step(runtime=None),
            "function 'app-f': steps.step.runtime must be a JSON object, got None",
        ),
        (
            with_step(retries={"attempts": -1}),
            "function 'app-f': steps.step.retries.attempts must be an integer from 0 to 20, got -1",
        ),
        (
            with_step(retries={"attempts": True}),
            "function 'app-f': steps.step.retries.attempts must be an integer from 0 to 20, got True",
        ),
        (
            with_step(retries=3),
            "function 'app-f': steps.step.retries must be a JSON object, got 3",
        ),
        (
            function(triggers={"event": "x"}),
            "function 'app-f': triggers must be a list, got {'event': 'x'}",
        ),
        (
            function(triggers=[{}]),
            "function 'app-f': triggers[0] must be one of 'event' and 'cron', got {}",
        ),
        (
            function(triggers=[{"event": "x", "cron": "* * * * *"}]),
            "function 'app-f': triggers[0] must be one of 'event' and 'cron', "
            "got {'event': 'x', 'cron': '* * * * *'}",
        ),
        (
            function(triggers=[{"event": "x", "expression": 5}]),
            "function 'app-f': triggers[0].expression must be a string, got 5",
        ),
        (
            function(triggers=[{"event": str(i)} for i in range(11)]),
            "function 'app-f': triggers must be a list of at most 10, got '11 entries'",
        ),
        (
            function(triggers=[{"event": "x"}, {"event": "x"}]),
            "function 'app-f': triggers must be a list without duplicates, "
            "got [{'event': 'x'}, {'event': 'x'}]",
        ),
        (
            function(cancel=[{"event": str(i)} for i in range(6)]),
            "function 'app-f': cancel must be a list of at most 5, got '6 entries'",
        ),
        (
            function(cancel=[{"if": "x"}]),
            "function 'app-f': cancel[0].event must be an event name, got None",
        ),
        (
            function(cancel=[{"event": "x", "timeout": "soon"}]),
            "function 'app-f': cancel[0].timeout must be a duration like \"2h\", got 'soon'",
        ),
        (
            function(stepbase={"lookBack": "2d"}),
            "function 'app-f': stepbase.lookBack must be a duration of at most 24 hours, got '2d'",
        ),
        (
            function(timeouts={"finish": "9" * 60 + "w"}),
            "function 'app-f': timeouts.finish must be a duration like \"2h\", got '"
            + "9" * 60
            + "w'",
        ),
        (
            function(timeouts=["1h"]),
            "function 'app-f': timeouts must be a JSON object, got ['1h']",
        ),
        (
            function(concurrency=[{}, {}, {}]),
            "function 'app-f': concurrency must be at most 2 limits, got '3 limits'",
        ),
        (
            function(
                batchEvents={"maxSize": 5}, cancel=[{"event": "x"}], singleton={"mode": "skip"}
            ),
            "function 'app-f': batchEvents must be used without cancel, singleton, got 'both'",
        ),
    ],
)
def test_a_broken_function_is_refused_with_its_name_and_the_field(
    raw: object, message: str
) -> None:
    with pytest.raises(ProtocolError) as caught:
        decode_function(raw)

    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (
            function(triggers=[{"event": "a", "expression": "event.data.("}]),
            "function 'app-f', trigger 'a': not a valid CEL expression: 'event.data.('",
        ),
        (
            function(cancel=[{"event": "a", "if": "1 +"}]),
            "function 'app-f', cancel on 'a': not a valid CEL expression: '1 +'",
        ),
        (
            function(triggers=[{"cron": "not a cron"}]),
            "function 'app-f': cron 'not a cron' is not a schedule (3 fields instead of 5); expected "
            'five fields such as "0 9 * * 1-5", optionally after "TZ=Area/City "',
        ),
        (function(triggers=[{"cron": "61 * * * *"}]), "cron '61 * * * *' is not a schedule"),
        (function(triggers=[{"cron": "0 0 30 2 *"}]), "cron '0 0 30 2 *' is not a schedule"),
        (
            function(triggers=[{"cron": "TZ=Mars/Crater * * * * *"}]),
            "cron 'TZ=Mars/Crater * * * * *' names an unknown time zone",
        ),
        (
            function(triggers=[{"cron": "TZ=../../etc/passwd * * * * *"}]),
            "names an unknown time zone",
        ),
        (function(triggers=[{"cron": "TZ= * * * * *"}]), "names an unknown time zone"),
    ],
)
def test_what_would_fail_when_an_event_comes_is_refused_at_sync(raw: object, message: str) -> None:
    with pytest.raises(ProtocolError) as caught:
        check_function(decode_function(raw))

    assert message in str(caught.value)


@pytest.mark.parametrize(
    "spec", ["0 9 * * 1-5", "TZ=Asia/Bangkok 0 9 * * 1-5", "CRON_TZ=UTC */5 * * * *"]
)
def test_schedules_of_five_fields_are_accepted(spec: str) -> None:
    check_function(decode_function(function(triggers=[{"cron": spec}])))


def test_a_stored_function_is_read_back_as_it_was_registered() -> None:
    config = decode_function(function(cancel=[{"event": "x"}]))

    assert decode_function(json.loads(json.dumps(config.raw))) == config


KEYS = st.sampled_from(
    ["id", "name", "triggers", "steps", "step", "runtime", "url", "retries", "attempts", "cancel"]
    + ["timeouts", "start", "event", "cron", "if", "timeout", "functions", "appName", "concurrency"]
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=6) | st.just(URL) | st.just("1h"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=5),
    max_leaves=15,
)


@settings(max_examples=200, deadline=None)
@given(changes=st.dictionaries(KEYS, JSON, max_size=3), raw=JSON)
def test_any_json_is_a_sync_or_breaks_the_protocol(changes: dict[str, Any], raw: object) -> None:
    for body in (raw, registration(**changes), registration(functions=[function(**changes)])):
        try:
            decode_register(body)
        except ProtocolError as error:
            assert error.status == 400
