"""The recorded questions about runs and events, asked of our engine about runs of the same functions."""

import json
from typing import Any

from tests.support.engine_client import EngineClient
from tests.support.recordings import Found, differing, load, served_at
from tests.support.stub_host import StubHost, ops

REST = "api-rest.json"

# As recorded: an event whose run ended, two whose runs sleep, one that started none.
_EVENTS = {
    "ended": "01M84M2VRFKGR5VVCNB9Y7DESH",
    "first": "01M84M2X52H32NRB0ZRA7H4JDM",
    "second": "01M84M2Y4FPFVGV609VHSSZQET",
    "none": "01M84M2Z418P4217TJ420CS16H",
}
_RUNS = {
    "ended": "01M84M2VRQZFENE5VXGK6NTFZB",
    "first": "01M84M2X7R0JF4KPVY5VS6WD47",
    "second": "01M84M2Y74J4E00K8W4E0X9ECD",
}


async def play_rest(client: EngineClient, host: StubHost) -> dict[str, Found]:
    """Ask every recorded question once the run of `scenario-steperr.json` has ended."""
    recorded = load(REST)
    _, events = await client.request("GET", "/v1/events?name=cap/steperr&limit=1")
    sent = {"ended": events["data"][0]["internal_id"]}
    nap = recorded["GET /v1/runs/{id}/jobs sleeping"]["response"]["body"]["data"][0]
    step = nap["Raw"]["data"]["payload"]["edge"]["outgoing"]
    host.handlers["cap-cancelme"] = lambda call: ops(
        {"op": "Sleep", "id": step, "displayName": "nap", "name": "1m"}
    )
    for which, number in (("first", 99), ("second", 98)):
        event = {"name": "cap/cancelme", "data": {"id": number}}
        [sent[which]] = await client.send(event)
        await client.opened(sent[which], "sleep")
    ours = {_EVENTS[which]: event_id for which, event_id in sent.items()}
    for which, theirs in _RUNS.items():
        [run] = await client.runs_of(sent[which])
        ours[theirs] = run["run_id"]
    found = {}
    for entry, exchange in recorded.items():
        if _EVENTS["none"] in exchange["request"]["path"]:
            [ours[_EVENTS["none"]]] = await client.send({"name": "cap/none"})
        found[f"{REST}#{entry}"] = await _ask(client, host.port, ours, exchange)
    return found


async def _ask(client: EngineClient, port: int, ours: dict[str, str], exchange: Any) -> Found:
    request, response = exchange["request"], exchange["response"]
    path: str = request["path"]
    for theirs, mine in ours.items():
        path = path.replace(theirs, mine)
    headers = dict(request.get("headers") or {})
    status, answer = await client.request(request["method"], path, request.get("body"), headers)
    return differing(
        {"status": status, "body": _sorted(answer)},
        {"status": response["status"], "body": _sorted(served_at(port, response["body"]))},
    )


def _sorted(body: Any) -> Any:
    """Put lists of functions in one order, and read what was not recorded as JSON."""
    if isinstance(body, str):
        try:
            return json.loads(body)
        except ValueError:
            return body
    if isinstance(body, list) and body and "internal_id" in body[0]:
        return sorted(body, key=lambda each: str(each["id"]))
    return body
