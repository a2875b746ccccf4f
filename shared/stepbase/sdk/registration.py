"""Sync (PUT), introspection (GET), and fetching state that is too big for a call."""

import dataclasses
import hashlib
import json
import logging
from collections.abc import Generator
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from stepbase.config import InngestConfig
from stepbase.errors import ProtocolError
from stepbase.protocol import names, signing
from stepbase.protocol.call import Call
from stepbase.protocol.jsontext import dumps_bytes
from stepbase.sdk.ask import ask, is_away
from stepbase.sdk.http import Answer, Exchange
from stepbase.sdk.message import Request, Response
from stepbase.sdk.replies import server_kind
from stepbase.sdk.site import Site
from stepbase.sdk.version import LANGUAGE, VERSION

logger = logging.getLogger("stepbase.sdk.registration")

CAPABILITIES = {"in_band_sync": "v1", "trust_probe": "v1"}


def introspection(site: Site, request: Request, *, is_authenticated: bool) -> Response:
    """Describe the app; a signed request learns more (vectors `26-introspection…`, `python-cloud`)."""
    settings = site.settings
    kind = request.headers.get(names.SERVER_KIND)
    if kind is not None and kind != server_kind(settings):
        return Response(403, b"{}")
    body = _inspection(site, is_authenticated=is_authenticated)
    return Response(200, b"" if request.method == "HEAD" else dumps_bytes(body))


def _inspection(site: Site, *, is_authenticated: bool) -> dict[str, Any]:
    settings = site.settings
    body: dict[str, Any] = {
        "schema_version": names.SCHEMA_VERSION,
        "function_count": len(site.app.functions),
        "has_event_key": settings.event_key is not None,
        "has_signing_key": settings.signing_key is not None,
        "has_signing_key_fallback": settings.signing_key_fallback is not None,
        "mode": server_kind(settings),
    }
    if not is_authenticated:
        return body
    return {
        **body,
        "api_origin": settings.api_origin,
        "app_id": site.app.id,
        "authentication_succeeded": True,
        "capabilities": CAPABILITIES,
        "env": settings.env,
        "event_api_origin": settings.event_origin,
        "event_key_hash": settings.event_key
        and hashlib.sha256(settings.event_key.encode()).hexdigest(),
        "framework": site.framework,
        "sdk_language": LANGUAGE,
        "sdk_version": VERSION,
        "serve_origin": site.origin,
        "serve_path": site.path,
        "signing_key_fallback_hash": settings.signing_key_fallback
        and signing.hash_key(settings.signing_key_fallback),
        "signing_key_hash": settings.signing_key and signing.hash_key(settings.signing_key),
    }


def sync(
    site: Site, request: Request, key: str | None, problem: ProtocolError | None
) -> Generator[Exchange, Answer, Response]:
    """Register the app's functions with the server and relay its answer.

    In-band (the server asks for the functions in the reply) needs a signed request; out-of-band does
    not, because the registration itself carries the key (`INNGEST_ENABLE_UNAUTHED_SYNC=false` asks for it).

    Raises:
        ProtocolError: If the serve URL is not known, the server is of the other mode, or it refuses.
    """
    settings = site.settings
    kind = request.headers.get(names.SERVER_KIND)
    if kind is not None and kind != server_kind(settings):
        raise ProtocolError(
            f"sync refused: it comes from a {kind} server and this app runs in "
            f"{server_kind(settings)} mode; set INNGEST_DEV=1 for a dev server, unset it for a cloud one",
            code="server_kind_mismatch",
        )
    is_in_band = (
        request.headers.get(names.SYNC_KIND) == names.IN_BAND
        and settings.in_band
        and not settings.is_dev
    )
    must_be_signed = is_in_band or not (settings.unsigned_sync or settings.is_dev)
    if must_be_signed and key is None:
        raise problem or ProtocolError("this sync must be signed", status=401)
    url = serve_url(site, request, is_trusted=key is not None)
    functions = [each for function in site.app.functions.values() for each in function.wire(url)]
    if not functions:
        raise ProtocolError(
            f"app {site.app.id!r} has no functions to sync: define one with @app.function(…)",
            status=500,
            code="function_config_invalid",
        )
    # Anybody may send the header; what is told for it goes to our own server, and only on a server's word.
    is_trusted = key is not None or settings.is_dev
    is_ours = is_trusted and request.headers.get(names.OURS) == names.ENGINE
    if is_in_band:
        return _in_band(site, url, functions, _ours(site) if is_ours else {})
    answer = yield from _register(site, request, url, functions, _ours(site) if is_ours else {})
    response = _relay(answer, settings)
    if answer.headers.get(names.OURS) != names.ENGINE:
        if any("stepbase" in each for each in functions):
            logger.warning("engine=EngineOptions(…) is ignored by this server")
    elif not is_ours and answer.status == 200:
        yield from _tell_ours(site, request, url, functions)
    return response


def _ours(site: Site) -> dict[str, Any]:
    """What is told to our engine only: other servers get what the official SDKs send, and no more."""
    from stepbase.sdk.schemas import schemas_of  # a sync is rare

    return {"stepbase": {"schemas": schemas_of(site.app.functions.values())}}


def _tell_ours(
    site: Site, request: Request, url: str, functions: list[dict[str, Any]]
) -> Generator[Exchange, Answer, None]:
    """Register once more, with what our engine reads: it turned out to be ours by its answer.

    A deploy asks the app to sync without knowing which server it belongs to.
    """
    try:
        again = yield from _register(site, request, url, functions, _ours(site))
    except Exception:  # the app is synced, and that is what its answer says
        logger.warning("event schemas were not told", exc_info=True)
        return
    if again.status != 200:
        logger.warning("event schemas were not taken", extra={"status": again.status})


def serve_url(site: Site, request: Request, *, is_trusted: bool) -> str:
    """Return the URL a server reaches this app at.

    Never made of the Host header in cloud mode: behind Supabase it names another host, and the path
    has lost its first segments. A signed sync may say it, because only the server can have signed it.

    Raises:
        ProtocolError: If it is not configured; the message says what to set.
    """
    settings = site.settings
    origin = site.origin
    path = site.path
    seen = urlsplit(request.url)
    if origin is None and not settings.is_dev:
        told = _told_url(request) if is_trusted else None
        if told is None:
            raise ProtocolError(
                "the public URL of this app is not known: set INNGEST_SERVE_ORIGIN (https://your-host) and "
                "INNGEST_SERVE_PATH, or pass serve_origin= and serve_path= to serve(…)",
                status=500,
                code="url_invalid",
            )
        seen = urlsplit(told)
    if origin is None:
        origin = f"{seen.scheme}://{seen.netloc}"
    elif "://" not in origin:
        origin = f"https://{origin}"
    path = seen.path if path is None else path
    return f"{origin.rstrip('/')}/{path.lstrip('/')}"


def _told_url(request: Request) -> str | None:
    try:
        told = json.loads(request.body)["url"]
    except (ValueError, KeyError, TypeError):
        return None
    is_url = isinstance(told, str) and told.startswith(("http://", "https://"))
    return told if is_url else None


def _in_band(
    site: Site, url: str, functions: list[dict[str, Any]], ours: dict[str, Any]
) -> Response:
    inspection = _inspection(site, is_authenticated=True)
    body = {
        "app_id": site.app.id,
        "env": site.settings.env,
        "framework": site.framework,
        "functions": functions,
        "inspection": {name: value for name, value in inspection.items() if value is not None},
        "platform": site.settings.platform,
        "sdk_author": "stepbase",
        "sdk_language": LANGUAGE,
        "sdk_version": VERSION,
        "url": url,
        **ours,
    }
    known = {name: value for name, value in body.items() if value is not None}
    return Response(200, dumps_bytes(known), {names.SYNC_KIND: names.IN_BAND})


def _register(
    site: Site,
    request: Request,
    url: str,
    functions: list[dict[str, Any]],
    ours: dict[str, Any],
) -> Generator[Exchange, Answer, Answer]:
    settings = site.settings
    body = {
        "appname": site.app.id,
        "capabilities": CAPABILITIES,
        "deploy_type": "ping",
        "framework": site.framework,
        "functions": functions,
        "sdk": f"{LANGUAGE}:v{VERSION}",
        "url": url,
        "v": "0.1",
        **ours,
    }
    headers = {"content-type": "application/json", names.FRAMEWORK: site.framework}
    if names.SERVER_KIND in request.headers:
        headers[names.EXPECTED_SERVER_KIND] = server_kind(settings)
    deploy_id = dict(parse_qsl(request.query)).get("deployId")
    target = f"{settings.api_origin}/fn/register"
    if deploy_id:
        target += f"?deployId={deploy_id}"
    return (yield from ask("POST", target, settings, headers, dumps_bytes(body)))


def _relay(answer: Answer, settings: InngestConfig) -> Response:
    if answer.status == 0:
        raise ProtocolError(
            f"the app could not register: {answer.body.decode(errors='replace')}; "
            "check INNGEST_BASE_URL or INNGEST_DEV",
            status=502 if not settings.is_dev else 500,
            code="registration_failed",
        )
    try:
        body = json.loads(answer.body)
    except ValueError:
        body = None
    if not isinstance(body, dict):
        raise ProtocolError(
            f"the server answered the registration with HTTP {answer.status} and no JSON object: "
            f"{answer.body[:120]!r}",
            status=500,
            code="registration_failed",
        )
    return Response(answer.status, dumps_bytes(body), {names.SYNC_KIND: "out_of_band"})


def fetch_state(site: Site, call: Call) -> Generator[Exchange, Answer, Call]:
    """Fetch events and steps the server left out because they are too big for a request.

    Raises:
        ProtocolError: If they cannot be had; the server tries the call again.
    """
    base = f"{site.settings.api_origin}/v0/runs/{call.run_id}"
    events = yield from _fetched(f"{base}/batch", list, site.settings)
    steps = yield from _fetched(f"{base}/actions", dict, site.settings)
    if not events:
        raise ProtocolError(f"the server has no events of run {call.run_id}", status=500)
    return dataclasses.replace(call, event=events[0], events=events, steps=steps, use_api=False)


def _fetched(url: str, kind: type, settings: InngestConfig) -> Generator[Exchange, Answer, Any]:
    answer = yield from ask("GET", url, settings)
    try:
        found = json.loads(answer.body) if answer.status == 200 else None
    except ValueError:
        found = None
    if not isinstance(found, kind):
        raise ProtocolError(
            f"could not fetch the run's state from {url}: HTTP {answer.status} {answer.body[:120]!r}",
            status=503 if is_away(answer) else 500,
            code="fetch_failed",
        )
    return found
