"""Takes keys and tokens out of JSON before it is shown, or stored elsewhere. Pure.

By the names of fields, and by the forms that well-known keys have. It cannot know a secret that looks like
any other text under a name like any other.
"""

import json
import re
from collections.abc import Iterable
from typing import Any, Final

SHOWN: Final = "[redacted]"

_NAMES = (
    r"authorization|cookie|set_cookie|password|passwd|pwd|secret|token|api_?key|apikey|auth_?key|"
    r"private_?key|signing_?key|event_?key|service_?role|credential|credentials|jwt|access_?key"
)
_FIELD = re.compile(rf"(?:^|_)(?:{_NAMES})s?$")
"""Matched against the end of a field's name in snake case: `apiKey` is `api_key`, `x-auth-token` is one."""

_BREAK = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|[-.\s]")
# What may be long begins where a word does: tried in its middle too, it would take the square of its length.
_FORMS = re.compile(
    r"sb_(?:secret|publishable)_[\w-]+"  # Supabase
    r"|sbp_[0-9a-f]{20,}"
    r"|signkey-[\w-]+|eventkey-[\w-]+"  # Inngest
    r"|(?<![\w-])eyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]*"  # JSON web tokens
    r"|(?<![\w-])(?:sk|rk|pk|whsec)[-_][\w-]{16,}"  # Stripe, OpenAI, Anthropic
    r"|gh[pousr]_\w{20,}|xox[abpr]-[\w-]{10,}|AKIA[0-9A-Z]{16}"
    r"|(?i:bearer|basic)\s+(?=\S*\d)[\w.~+/=-]{12,}"
    r"|(?<=://)[^/\s:@]+:[^/\s@]+(?=@)"  # user and password of a URL
    r"|(?<=/e/)[\w-]{20,}"  # an event key, which is the last part of the path that takes events
)
_IN_QUERY = re.compile(rf"(?i)([?&](?:[\w.-]*[_.-])?(?:{_NAMES}|signature|sig|key)=)[^&\s\"'<>#]+")
"""A parameter of a URL: `?apikey=…`, `&access_token=…`."""
_IN_TEXT = re.compile(
    r"(?i)(?<![\w-])((?:[\w-]*[-_])?(?:authorization|cookie|api[-_]?key|password|secret)[\"']?\s*[:=]\s*)"
    r"(?:(?:bearer|basic)\s+)?[\"']?(?=\S{0,40}\d|\S{12})[^\s\"',;}\])]{6,}"
)
"""A header or a setting in a message: `authorization: …`, `password=…`."""
_LABELS, _VALUES = (
    ("name", "key", "header", "field"),
    ("value", "values", "default", "const", "examples"),
)


def redact_text(text: str, secrets: Iterable[str] = ()) -> str:
    """Return a text without what looks like a key, and without the given secrets."""
    for secret in secrets:
        if len(secret) >= 8:
            text = text.replace(secret, SHOWN)
    text = _IN_QUERY.sub(rf"\1{SHOWN}", _FORMS.sub(SHOWN, text))
    return _IN_TEXT.sub(_kept_if_shown, text)


def _kept_if_shown(found: re.Match[str]) -> str:
    return found[0] if SHOWN in found[0] else found[1] + SHOWN


def redact(value: Any, secrets: tuple[str, ...] = ()) -> Any:
    """Return a JSON value like this one, with keys and tokens replaced, also in JSON text inside of it."""
    if isinstance(value, str):
        return redact_json(value, secrets)
    if isinstance(value, dict):
        label = next((each for name in _LABELS if isinstance(each := value.get(name), str)), "")
        secret_fields = _VALUES if names_a_secret(label) else ()
        return {
            name: _hidden(each, secrets)
            if name in secret_fields or names_a_secret(str(name))
            else redact(each, secrets)
            for name, each in value.items()
        }
    if isinstance(value, list):
        if all(isinstance(each, list) and len(each) == 2 for each in value):
            return [_pair(name, inner, secrets) for name, inner in value]
        return [redact(each, secrets) for each in value]
    return value


def _pair(name: Any, value: Any, secrets: tuple[str, ...]) -> list[Any]:
    """Return a header, as some write them."""
    hides = isinstance(name, str) and names_a_secret(name)
    shown = _hidden(value, secrets) if hides else redact(value, secrets)
    return [redact(name, secrets), shown]


def _hidden(value: Any, secrets: tuple[str, ...]) -> Any:
    """Hide a text, or a list of texts, also as the value or default of an object; others may hold more."""
    if isinstance(value, str):
        return SHOWN
    if isinstance(value, list) and all(isinstance(each, str) for each in value):
        return [SHOWN] * len(value)
    if isinstance(value, dict):
        return {
            name: _hidden(each, secrets) if name in _VALUES else redact(each, secrets)
            for name, each in value.items()
        }
    return redact(value, secrets)


def redact_json(text: str, secrets: tuple[str, ...] = ()) -> str:
    """Return JSON text without keys and tokens: byte for byte as it was if there are none."""
    if text.lstrip()[:1] not in ("{", "["):
        return redact_text(text, secrets)
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return redact_text(text, secrets)
    try:
        shown = redact(value, secrets)
        return text if shown == value else json.dumps(shown, ensure_ascii=False)
    except RecursionError:
        return redact_text(text, secrets)


def names_a_secret(field: str) -> bool:
    """Say whether a field of this name holds a key, a token or a password."""
    return _FIELD.search(_BREAK.sub("_", field).lower()) is not None
