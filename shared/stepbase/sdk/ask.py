"""What every request of an app to its server carries: who asks, from where, and with which key."""

from collections.abc import Generator, Mapping

from stepbase.config import InngestConfig
from stepbase.protocol import names, signing
from stepbase.sdk.http import Answer, Exchange
from stepbase.sdk.version import SDK


def origin_headers(settings: InngestConfig) -> dict[str, str]:
    """Return the headers that say which SDK asks, for which environment, on which platform."""
    headers = {names.SDK: SDK, "user-agent": SDK}
    if settings.env:
        headers[names.ENV] = settings.env
    if settings.platform:
        headers[names.PLATFORM] = settings.platform
    return headers


def ask(
    method: str,
    url: str,
    settings: InngestConfig,
    headers: Mapping[str, str] | None = None,
    body: bytes | None = None,
) -> Generator[Exchange, Answer, Answer]:
    """Ask the server's API with the signing key, and with the fallback key if that is refused."""
    base = {
        **origin_headers(settings),
        names.REQ_VERSION: str(names.EXECUTION_VERSION),
        **(headers or {}),
    }
    keys = [each for each in (settings.signing_key, settings.signing_key_fallback) if each]
    answer = Answer(0, {}, b"")
    for key in keys or [""]:
        bearer = {"authorization": f"Bearer {signing.hash_key(key)}"} if key else {}
        answer = yield Exchange(method, url, {**base, **bearer}, body)
        if answer.status not in (401, 403):
            break
    return answer
