"""What a person does from a page. Each writes a line into the log: who did what, and what came of it."""

import json
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from urllib.parse import quote

from starlette.requests import Request

from stepbase.console import typed
from stepbase.console.page import Desk, Page
from stepbase.console.pages import again
from stepbase.console.pages import send as pages
from stepbase.engine import operate, syncing
from stepbase.engine.intake import Sent
from stepbase.errors import ProtocolError, StoreError
from stepbase.protocol.event import decode_event
from stepbase.protocol.jsontext import dumps, find_unstorable, loads
from stepbase.protocol.redact import SHOWN, redact_text

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
    """What came of an action: where to go on, or why it was refused; or the page that is shown instead."""

    to: str
    problem: str = ""
    said: str = ""
    page: Page | None = None


Action = Callable[[Desk, Request, Mapping[str, str]], Awaitable[Done]]


async def cancel(desk: Desk, request: Request, form: Mapping[str, str]) -> Done:
    """Cancel a run."""
    run_id = request.path_params["run_id"]
    ended = await desk.engine.store.cancel([run_id], _CANCELLED)
    problem = "" if ended else "it had ended already"
    return Done(f"/runs/{run_id}", problem, "cancelled")


async def rerun(desk: Desk, request: Request, form: Mapping[str, str]) -> Done:
    """Make a whole run again."""
    run_id = request.path_params["run_id"]
    made, problem = await _made_again(desk, operate.Again(run_id))
    return Done(f"/runs/{made or run_id}", problem, f"made again as {made}")


async def rerun_from(desk: Desk, request: Request, form: Mapping[str, str]) -> Done:
    """Make a run again from a step, perhaps with other arguments; what is wrong comes back as typed."""
    run_id, step, given = request.path_params["run_id"], form.get("step", ""), again.read(form)
    if form.get("more"):
        given = again.Typed([*given.texts, ""])
        return Done("", "", "not yet", await again.page(desk, request, step, given))
    problem = "Not made again: correct what is marked below." if given.errors else ""
    if not given.errors:
        wanted = operate.Again(run_id, step, list(given.values) or None)
        try:
            made, problem = await _made_again(desk, wanted)
        except StoreError as error:
            made, problem = "", f"Not made again: {error}"
        if made:
            return Done(f"/runs/{made}", "", f"made again as {made}")
    page = await again.page(desk, request, step, given, problem, 422)
    return Done("", problem, "", page)


async def _made_again(desk: Desk, wanted: operate.Again) -> tuple[str, str]:
    """Return the new run, or else why there is none."""
    engine = desk.engine
    made, outcome = await operate.rerun(engine.store, engine.registry, wanted, engine.new_id)
    refused = _RERUN_REFUSED.get(outcome, "")
    return ("" if refused else made), refused


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
    """Send an event as an app would; a form with something wrong in it comes back as it was typed."""
    name, is_json = form.get("name", "").strip(), form.get("by") != pages.BY_FORM
    try:
        told = await pages.schemas_of(desk, name) if name else []
    except StoreError as error:
        kept = pages.as_typed(name, form, f"Not sent: {error}")
        shown_again = replace(await pages.page(desk, kept, told=[]), status=503)
        return Done("/send", f"{name}: {kept.problem}", "", shown_again)
    one = pages.chosen(told, form.get("of", ""))
    made = (one.controls if one else None) or ()
    is_json = is_json or not made
    text = form.get("data") or "{}"
    read = _read_json(text) if is_json else typed.read(made, form)
    target = form.get("switch", "")
    if target == pages.BY_JSON:
        shown = text if is_json else json.dumps(read.data, indent=2, ensure_ascii=False)
        filled = pages.Shown(name, one, True, shown, {})
        return Done("/send", "", "not sent yet", await pages.page(desk, filled, told=told))
    if target == pages.BY_FORM and not read.errors:
        values = {**typed.presets(made), **typed.typed_of(made, read.data)}
        filled = pages.Shown(name, one, not made, text, values)
        last = read.data or None
        return Done(
            "/send", "", "not sent yet", await pages.page(desk, filled, told=told, last=last)
        )
    event_id, problem = "", ""
    errors = dict(read.errors)
    if not errors:
        event_id, problem = await _sent(desk, name, read.data)
    if event_id:
        return Done(f"/events/{event_id}", "", f"sent {name}")
    problem = problem or errors.pop(typed.WHOLE, "") or "Not sent: correct what is marked below."
    refused = pages.Shown(name, one, is_json, text, dict(form), errors, problem)
    shown_again = await pages.page(desk, refused, told=told)
    return Done("/send", _for_the_log(name, read, problem), "", shown_again)


def _for_the_log(name: str, read: typed.Typed, problem: str) -> str:
    """Say why an event was not sent, without what was typed: the log has no payloads."""
    if typed.WHOLE in read.errors:
        return f"{name}: the data is not a JSON object"
    wrong = ", ".join(read.errors)
    return f"{name}: wrong in the form: {wrong}" if wrong else f"{name}: {problem}"


def _read_json(text: str) -> typed.Typed:
    try:
        data = loads(text)
    except (ValueError, RecursionError) as error:
        return typed.Typed({}, {typed.WHOLE: f"the data is not JSON: {error}"})
    if not isinstance(data, dict):
        return typed.Typed({}, {typed.WHOLE: "the data must be a JSON object"})
    return typed.Typed(data, {})


async def _sent(desk: Desk, name: str, data: Mapping[str, object]) -> tuple[str, str]:
    """Send an event; return its id, or else what is wrong with it."""
    if not name:
        return "", "an event needs a name"
    if SHOWN in dumps(data):
        return "", f'replace "{SHOWN}": a secret was taken out there, and would not be sent'
    raw = {"name": name, "data": data}
    unstorable = find_unstorable(raw, "event")
    if unstorable is not None:
        return "", unstorable
    try:
        [event_id] = await desk.engine.intake.accept([Sent(decode_event(raw))])
    except (ProtocolError, StoreError) as error:
        return "", str(error)
    return event_id, ""


ACTIONS: dict[str, Action] = {
    "/runs/{run_id}/cancel": cancel,
    "/runs/{run_id}/rerun": rerun,
    "/runs/{run_id}/again": rerun_from,
    "/functions/{slug:path}/pause": pause,
    "/functions/{slug:path}/resume": resume,
    "/apps/{app:path}/resync": resync,
    "/outbox/requeue": requeue,
    "/send": send,
}


def redacted(done: Done, secrets: tuple[str, ...]) -> Done:
    """Return what came of an action without keys and tokens, for the page and the log."""
    return replace(
        done,
        problem=redact_text(done.problem, secrets),
        said=redact_text(done.said, secrets),
    )


def audit(request: Request, done: Done) -> None:
    """Write down an action."""
    client = request.client.host if request.client else "?"
    _log.info(
        "action",
        extra={"path": request.url.path, "client": client, "outcome": done.problem or done.said},
    )
