"""Whether what answers is what was deployed; every difference is explained. Pure."""

import json
from collections.abc import Mapping
from typing import Any

from stepbase.deploy.plan import Served
from stepbase.protocol.signing import hash_key
from stepbase.sdk.http import Answer

_SAID = 160


def said(answer: Answer) -> str:
    """Return the beginning of an answer, for messages."""
    text = answer.body.decode("utf-8", "replace").strip()
    return text if len(text) <= _SAID else f"{text[:_SAID]}…"


def as_object(answer: Answer) -> Mapping[str, Any] | None:
    """Return the JSON object that an answer is, or None."""
    try:
        found = json.loads(answer.body)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def no_answer(url: str, answer: Answer) -> str:
    """Explain an answer that is none of ours."""
    status, text = answer.status, said(answer)
    if status == 0:
        return text
    if status in (401, 403):
        why = "somebody asks for a key before it: an Edge Function with verify_jwt, or Cloud Run without "
        why += "--allow-unauthenticated"
    elif status == 404:
        why = "nothing is served there: another name in config.toml, or the build has failed"
    elif status in (502, 503, 504, 546):
        why = "it has not started, or ended: look at its log (supabase logs --service compute, gcloud run "
        why += "services logs read, docker compose logs)"
    else:
        why = "that is none of stepbase's answers"
    return f"GET {url}: HTTP {status} {text!r}; {why}"


def health_problem(served: Served, answer: Answer) -> str | None:
    """Say why a folder is not up as what was deployed, or None if it is."""
    found = as_object(answer)
    if answer.status != 200 or found is None:
        return no_answer(served.health, answer)
    # A folder without an app may answer by code of its own, which knows nothing of deployments.
    deployment = found.get("deployment", None if served.app_id else served.deployment)
    if deployment != served.deployment:
        return (
            f"{served.health} answers as deployment {deployment or 'unknown'}, not "
            f"{served.deployment}: the one before still serves, or the new one did not start"
        )
    return None


def open_problem(served: Served, answer: Answer) -> str | None:
    """Say what an unsigned introspection shows to be wrong, or None."""
    found = as_object(answer)
    if answer.status != 200 or found is None or "function_count" not in found:
        return no_answer(served.url, answer)
    if not found.get("has_signing_key") and found.get("mode") == "cloud":
        return (
            f"{served.name} has no signing key: INNGEST_SIGNING_KEY has not reached it "
            "(secrets take about a minute on Compute; a container gets them when it starts)"
        )
    if found.get("mode") != "cloud":
        return (
            f"{served.name} runs in dev mode, where anyone may call it: INNGEST_DEV is set where it runs; "
            "remove it (supabase secrets unset INNGEST_DEV) and deploy again"
        )
    if found["function_count"] != served.function_count:
        return (
            f"{served.name} has {found['function_count']} functions, and {served.function_count} were "
            "deployed: another version answers"
        )
    return None


def signed_problems(served: Served, answer: Answer, signing_key: str) -> list[str]:
    """Say everything that a signed introspection shows to be wrong."""
    problem = open_problem(served, answer)
    if problem is not None:
        return [problem]
    found = as_object(answer) or {}
    if not found.get("authentication_succeeded"):
        return [
            f"{served.name} does not accept our signature: it has another INNGEST_SIGNING_KEY than this "
            "environment's file, or one of the clocks is minutes off"
        ]
    problems = []
    if found.get("app_id") != served.app_id:
        problems.append(f"{served.name} serves app {found.get('app_id')!r}, not {served.app_id!r}")
    if found.get("signing_key_hash") not in (None, hash_key(signing_key)):
        problems.append(
            f"{served.name} accepts our signing key as its fallback only: it has another main key; "
            "deploy its secrets again"
        )
    at = f"{found.get('serve_origin') or ''}{found.get('serve_path') or ''}"
    if at != served.url:
        problems.append(_wrong_url(served, found, at))
    if not found.get("has_event_key"):
        problems.append(f"{served.name} has no INNGEST_EVENT_KEY: its functions cannot send events")
    return problems


def _wrong_url(served: Served, found: Mapping[str, Any], at: str) -> str:
    if not found.get("serve_origin"):
        return (
            f"{served.name} does not know its own URL: INNGEST_SERVE_ORIGIN is not in its image; behind "
            "Supabase it would be registered as edge-runtime.supabase.com"
        )
    return (
        f"{served.name} registers itself as {at}, and is served at {served.url}: INNGEST_SERVE_ORIGIN or "
        "INNGEST_SERVE_PATH is set where it runs (supabase secrets list), or an old image answers"
    )


def sync_problem(served: Served, answer: Answer) -> str | None:
    """Say why a sync failed, or None if it did not."""
    if 200 <= answer.status < 300:
        return None
    found = as_object(answer) or {}
    text = str(found.get("message") or found.get("error") or said(answer))
    if answer.status == 0:
        return text
    if answer.status in (401, 403):
        text += "; the signing key (or INNGEST_API_KEY) is not one of this Inngest environment"
    elif answer.status == 404:
        text += f"; nothing is registered there, or {served.url} is not served"
    return f"sync of {served.name}: HTTP {answer.status} {text}"


def is_list(answer: Answer) -> bool:
    """Say whether the server of runs has told what it has registered; not every one does."""
    return answer.status == 200 and _functions(answer) is not None


def registered_problems(served: Served, answer: Answer) -> list[str]:
    """Say what the server of runs has registered otherwise than it was deployed.

    Its functions are those of the app that are in use, with the URL that each is called at; failure handlers
    may be among them.
    """
    functions = _functions(answer) or []
    steps = [step for each in functions for step in each.get("config", {}).get("steps", [])]
    elsewhere = {str(step.get("uri")).partition("?")[0] for step in steps} - {served.url}
    problems = []
    if elsewhere:
        problems.append(
            f"the server calls {served.name} at {', '.join(sorted(elsewhere))}, and it is served at "
            f"{served.url}: another sync has come later (an old deploy, a stepbase engine -u, a dev server)"
        )
    if len(functions) < served.function_count:
        problems.append(
            f"the server has {len(functions)} functions of {served.name}, and it has {served.function_count}"
        )
    return problems


def _functions(answer: Answer) -> list[Mapping[str, Any]] | None:
    try:
        found = json.loads(answer.body)
    except ValueError:
        return None
    found = found.get("data") if isinstance(found, dict) else found
    is_fit = isinstance(found, list) and all(isinstance(each, dict) for each in found)
    return found if is_fit else None
