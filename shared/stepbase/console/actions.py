"""What a person does from a page. Each writes a line into the log: who did what, and what came of it."""

import json
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from urllib.parse import quote

from starlette.requests import Request

from stepbase.console.page import Desk
from stepbase.engine import operate, syncing
from stepbase.engine.intake import Sent
from stepbase.errors import ProtocolError, StoreError
from stepbase.protocol.event import decode_event
from stepbase.protocol.jsontext import dumps, find_unstorable, loads

_log = logging.getLogger("stepbase.console.audit")

_CANCELLED = dumps({"name": "Cancelled", "message": "cancelled from the console"})
_RERUN_REFUSED = {
    "unknown": "that run is not known any more",
    "live": "it has not ended: cancel it first, or let it end",
    "no step": "it has no such step",
    "gone": "its function is no longer registered",
}


@dataclass(frozen=True, slots=True)
class Done:
    """What came of an action: where to go on, or why it was refused."""

    to: str
    problem: str = ""
    said: str = ""


Action = Callable[[Desk, Request, Mapping[str, str]], Awaitable[Done]]


async def cancel(desk: Desk, request: Request, form: Mapping[str, str]) -> Done:
    """Cancel a run."""
    run_id = request.path_params["run_id"]
    ended = await desk.engine.store.cancel([run_id], _CANCELLED)
    problem = "" if ended else "it had ended already"
    return Done(f"/runs/{run_id}", problem, "cancelled")


async def rerun(desk: Desk, request: Request, form: Mapping[str, str]) -> Done:
    """Make a run again: wholly, or from a step, which may get another input."""
    run_id = request.path_params["run_id"]
    step, text = form.get("step") or None, form.get("input", "").strip()
    given: list[object] | None = None
    if step is not None and text:
        try:
            read = loads(text)
        except (ValueError, RecursionError) as error:
            return Done(f"/runs/{run_id}", f"the input is not JSON: {error}")
        if not isinstance(read, list):
            return Done(f"/runs/{run_id}", "the input must be a JSON list: the step's arguments")
        given = read
    again = operate.Again(run_id, step, given)
    engine = desk.engine
    made, outcome = await operate.rerun(engine.store, engine.registry, again, engine.new_id)
    if outcome in _RERUN_REFUSED:
        return Done(f"/runs/{run_id}", _RERUN_REFUSED[outcome])
    return Done(f"/runs/{made}", "", f"made again as {made}")


async def pause(desk: Desk, request: Request, form: Mapping[str, str]) -> Done:
    """Make no more calls of a function."""
    return await _set_paused(desk, request, is_paused=True)


async def resume(desk: Desk, request: Request, form: Mapping[str, str]) -> Done:
    """Go on with what waited."""
    return await _set_paused(desk, request, is_paused=False)


async def _set_paused(desk: Desk, request: Request, *, is_paused: bool) -> Done:
    slug = request.path_params["slug"]
    known = await desk.engine.store.pause_function(slug, is_paused=is_paused)
    await desk.engine.registry.reload()
    problem = "" if known else "there is no such function"
    return Done(f"/functions/{quote(slug)}", problem, "paused" if is_paused else "resumed")


async def resync(desk: Desk, request: Request, form: Mapping[str, str]) -> Done:
    """Ask an app for its functions again."""
    name = request.path_params["app"]
    apps = {row["name"]: row["url"] for row in await desk.engine.store.list_apps()}
    if name not in apps:
        return Done("/apps", f"there is no app {name}")
    try:
        status, body = await syncing.sync(desk.engine.caller, desk.engine.registry, apps[name])
    except (OSError, ValueError, ProtocolError) as error:
        return Done("/apps", f"{apps[name]} could not be synced: {error}")
    if status >= 400:
        words = body[:300].decode("utf-8", "replace")
        return Done("/apps", f"{apps[name]} answered {status}: {words}")
    return Done("/apps", "", f"synced {name}")


async def requeue(desk: Desk, request: Request, form: Mapping[str, str]) -> Done:
    """Give dead events another try: one, or all of them."""
    count = await desk.engine.store.outbox_requeue([form["id"]] if form.get("id") else None)
    return Done("/outbox", "" if count else "nothing was dead any more", f"{count} due again")


async def send(desk: Desk, request: Request, form: Mapping[str, str]) -> Done:
    """Send an event as an app would."""
    name = form.get("name", "").strip()
    back = f"/send?name={quote(name, safe='')}"
    try:
        raw = {"name": name, "data": json.loads(form.get("data") or "{}")}
        unstorable = find_unstorable(raw, "event")
        if unstorable is not None:
            return Done(back, unstorable)
        event = decode_event(raw)
        [event_id] = await desk.engine.intake.accept([Sent(replace(event))])
    except (ValueError, RecursionError) as error:
        return Done(back, f"the data is not JSON: {error}")
    except (ProtocolError, StoreError) as error:
        return Done(back, str(error))
    return Done(f"/events/{event_id}", "", f"sent {name}")


ACTIONS: dict[str, Action] = {
    "/runs/{run_id}/cancel": cancel,
    "/runs/{run_id}/rerun": rerun,
    "/functions/{slug:path}/pause": pause,
    "/functions/{slug:path}/resume": resume,
    "/apps/{app:path}/resync": resync,
    "/outbox/requeue": requeue,
    "/send": send,
}


def audit(request: Request, done: Done) -> None:
    """Write down an action."""
    client = request.client.host if request.client else "?"
    _log.info(
        "action",
        extra={"path": request.url.path, "client": client, "outcome": done.problem or done.said},
    )
