"""The engine makes the calls that the real server made, ends its runs and answers in the same way."""

import asyncio
from collections.abc import Iterator

import pytest
from tests.interop.engine_differences import NOT_THE_ENGINES, explaining, unexplained, unused
from tests.interop.engine_graphql import GRAPHQL
from tests.interop.engine_keys import REGISTER, SIGNED, SYNC, play_keys
from tests.interop.engine_plays import CRON, REQUESTS, SCENARIOS, STUB, play_dev
from tests.interop.engine_rest import REST
from tests.support.recordings import Found, load, names
from tests.support.server import Server

PLAYED = [
    "02-register-POST-fn-register.json", "09-invoke.json", "23-on-failure-handler.json",
    CRON, REQUESTS, SYNC, REGISTER, SIGNED, *SCENARIOS,
]  # fmt: skip
BY_ENTRY = (
    STUB, GRAPHQL, REST, "api-event-ingest.json", "api-register-variants.json", "api-start-mode-auth.json"
)  # fmt: skip
ENTRIES = [f"{name}#{entry}" for name in BY_ENTRY for entry in load(name)]


@pytest.fixture(scope="module")
def played(
    cluster: Server, template: str, request: pytest.FixtureRequest
) -> Iterator[dict[str, Found]]:
    """What differs in everything played, by file or entry; prints it as a table at the end."""
    found: dict[str, Found] = {}
    for play in (play_dev, play_keys):
        database = asyncio.run(cluster.create(template))
        found |= asyncio.run(play(cluster.dsn(database)))
        asyncio.run(cluster.drop(database))
    yield found
    capture = request.config.pluginmanager.getplugin("capturemanager")
    assert capture is not None  # pytest's own
    with capture.global_and_fixture_disabled():
        print("\n" + table(found))


def table(found: dict[str, Found]) -> str:
    """Return a line for each file or entry: equal, or why it differs."""
    rows = {name: "; ".join(explaining(name, paths)) or "equal" for name, paths in found.items()}
    rows |= {name: f"see {NAMED[name]}" for name in names() if name in NAMED}
    rows |= {name: f"not played: {reason}" for name, reason in NOT_THE_ENGINES.items()}
    return "\n".join(f"{name:<58} {rows[name]}" for name in sorted(rows))


def named() -> dict[str, str]:
    """Return the files whose calls are all in scenarios, with the scenarios."""
    scenario_of = {
        call["request"]["body"]["ctx"]["request_id"]: name
        for name in SCENARIOS
        for call in load(name)["sdk_calls"]
    }
    found = {}
    for name in names("[0-9]*.json"):
        calls = [
            each["request"]
            for each in load(name).get("exchanges", [])
            if "fnId=" in each["request"]["path"]
        ]
        inside = [scenario_of.get(call["body"]["ctx"]["request_id"]) for call in calls]
        if inside and None not in inside:
            found[name] = ", ".join(sorted({each for each in inside if each is not None}))
    return found


NAMED = named()


@pytest.mark.parametrize("name", [*PLAYED, *ENTRIES])
def test_engine_does_as_recorded(played: dict[str, Found], name: str) -> None:
    assert unexplained(name, played[name]) == []


def test_every_listed_difference_is_still_there(played: dict[str, Found]) -> None:
    assert [f"{each.where} {each.path}" for each in unused(played)] == []


def test_every_recording_is_played_or_listed() -> None:
    known = [*PLAYED, *BY_ENTRY, *NAMED, *NOT_THE_ENGINES]

    assert sorted(set(known)) == names()
    assert not set(NOT_THE_ENGINES) & {*PLAYED, *BY_ENTRY, *NAMED}
