"""Takes keys and tokens out of JSON before it is stored elsewhere. Pure.

By the names of fields, and by the forms that well-known keys have. It cannot know a secret that looks like
any other text under a name like any other.
"""

import re
from collections.abc import Iterable
from typing import Any, Final

SHOWN: Final = "[redacted]"

_FIELD = re.compile(
    r"(?:^|_)(?:authorization|cookie|set_cookie|password|passwd|pwd|secret|token|api_?key|apikey|auth_?key|"
    r"private_?key|signing_?key|service_?role|credential|credentials|jwt|access_?key)s?$"
)
"""Matched against the end of a field's name in snake case: `apiKey` is `api_key`, `x-auth-token` is one."""

_BREAK = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|[-.\s]")
_FORMS = re.compile(
    r"sb_(?:secret|publishable)_[\w-]+"  # Supabase
    r"|sbp_[0-9a-f]{20,}"
    r"|signkey-[\w-]+|eventkey-[\w-]+"  # Inngest
    r"|eyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]*"  # JSON web tokens
    r"|(?<![\w-])(?:sk|rk|pk|whsec)[-_][\w-]{16,}"  # Stripe, OpenAI, Anthropic
    r"|gh[pousr]_\w{20,}|xox[abpr]-[\w-]{10,}|AKIA[0-9A-Z]{16}"
    r"|(?i:bearer|basic)\s+(?=\S*\d)[\w.~+/=-]{12,}"
    r"|(?<=://)[^/\s:@]+:[^/\s@]+(?=@)"  # user and password of a URL
)


def redact_text(text: str, secrets: Iterable[str] = ()) -> str:
    """Return a text without what looks like a key, and without the given secrets."""
    for secret in secrets:
        if len(secret) >= 8:
            text = text.replace(secret, SHOWN)
    return _FORMS.sub(SHOWN, text)


def redact(value: Any, secrets: tuple[str, ...] = ()) -> Any:
    """Return a JSON value like this one, with keys and tokens replaced."""
    if isinstance(value, str):
        return redact_text(value, secrets)
    if isinstance(value, dict):
        return {
            name: SHOWN if isinstance(each, str) and names_a_secret(name) else redact(each, secrets)
            for name, each in value.items()
        }
    if isinstance(value, list):
        return [redact(each, secrets) for each in value]
    return value


def names_a_secret(field: str) -> bool:
    """Say whether a field of this name holds a key, a token or a password."""
    return _FIELD.search(_BREAK.sub("_", field).lower()) is not None
