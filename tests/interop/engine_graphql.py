"""The recorded GraphQL questions, asked of our engine about the run that it made for the same event."""

import json
from collections.abc import Mapping
from typing import Any

from tests.support.engine_client import EngineClient
from tests.support.recordings import Found, differing, load, served_at

GRAPHQL = "api-graphql.json"
_EVENT = "cap/steperr"


async def play_graphql(client: EngineClient, port: int) -> dict[str, Found]:
    """Ask every recorded question once the run of `scenario-steperr.json` has ended."""
    recorded = load(GRAPHQL)
    _, events = await client.request("GET", f"/v1/events?name={_EVENT}&limit=1")
    event_id = events["data"][0]["internal_id"]
    run = await client.result(event_id)
    ours = {
        recorded["run"]["request"]["body"]["variables"]["id"]: run["run_id"],
        recorded["event-functionRuns"]["request"]["body"]["variables"]["q"]["eventId"]: event_id,
    }
    found = {}
    for entry, exchange in recorded.items():
        body = _with(ours, exchange["request"]["body"])
        status, answer = await client.request("POST", "/v0/gql", body)
        theirs = exchange["response"]
        if entry == "run":
            ours[_first_output(theirs["body"])] = _first_output(answer)
        found[f"{GRAPHQL}#{entry}"] = differing(
            {"status": status, "body": _named(entry, answer, theirs["body"])},
            {"status": theirs["status"], "body": _named(entry, served_at(port, theirs["body"]))},
        )
    return found


def _with(ours: Mapping[str, str], body: object) -> Any:
    text = json.dumps(body)
    for theirs, mine in ours.items():
        text = text.replace(theirs, mine)
    return json.loads(text)


def _first_output(answer: Any) -> str:
    output: str = answer["data"]["run"]["trace"]["childrenSpans"][0]["outputID"]
    return output


def _named(entry: str, answer: Any, recorded: Any = None) -> Any:
    """Of all functions keep those that were kept of the recording, by name."""
    if entry != "functions" or "errors" in answer:
        return answer
    kept = {each["slug"] for each in (recorded or answer)["data"]["functions"]}
    functions = [each for each in answer["data"]["functions"] if each["slug"] in kept]
    return {"data": {"functions": sorted(functions, key=lambda each: str(each["slug"]))}}
