"""Posts to the server on the hot path: blocking, over connections that are kept.

A checkpoint goes out after nearly every step. httpx costs more processor time for it than the whole
call (docs/decisions/0007), so this is the standard library's client with a few idle connections. Where
a proxy is configured, httpx carries the request, as it knows how.
"""

import os
import threading
import urllib.request
from functools import lru_cache
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from typing import Final
from urllib.parse import urlsplit

from stepbase import standin
from stepbase.sdk import http
from stepbase.sdk.http import TIMEOUT_SECONDS, Answer, Exchange

_MOST_IDLE: Final = 16

_lock = threading.Lock()
_idle: dict[tuple[str, str], list[HTTPConnection]] = {}
_pid = 0


def post(exchange: Exchange) -> Answer:
    """Carry a request; status 0 and the reason as body if there was no answer."""
    target = urlsplit(exchange.url)
    if standin.current.get() is not None or _has_proxy(target.scheme, target.netloc):
        return http.send(exchange)
    path = f"{target.path}?{target.query}" if target.query else target.path
    while True:
        connection, is_new = _take(target.scheme, target.netloc)
        try:
            connection.request(
                exchange.method, path, body=exchange.body, headers=dict(exchange.headers)
            )
            response = connection.getresponse()
            body = response.read()
        except (OSError, HTTPException) as error:
            connection.close()
            if is_new or isinstance(error, TimeoutError):
                reason = f"no answer from {exchange.url}: {type(error).__name__}: {error}"
                return Answer(0, {}, reason.encode())
            continue  # a kept connection may have been closed by the other side meanwhile
        headers = {name.lower(): value for name, value in response.getheaders()}
        if response.will_close:
            connection.close()
        else:
            _keep(target.scheme, target.netloc, connection)
        return Answer(response.status, headers, body)


def close() -> None:
    """Close all idle connections."""
    with _lock:
        connections = [each for kept in _idle.values() for each in kept]
        _idle.clear()
    for each in connections:
        each.close()


@lru_cache(maxsize=64)
def _has_proxy(scheme: str, host: str) -> bool:
    return scheme in urllib.request.getproxies() and not urllib.request.proxy_bypass(host)


def _take(scheme: str, host: str) -> tuple[HTTPConnection, bool]:
    global _pid
    with _lock:
        if _pid != os.getpid():  # a forked worker must not share its parent's connections
            _idle.clear()
            _pid = os.getpid()
        kept = _idle.get((scheme, host))
        if kept:
            return kept.pop(), False
    kind = HTTPSConnection if scheme == "https" else HTTPConnection
    return kind(host, timeout=TIMEOUT_SECONDS), True


def _keep(scheme: str, host: str, connection: HTTPConnection) -> None:
    with _lock:
        kept = _idle.setdefault((scheme, host), [])
        if len(kept) < _MOST_IDLE:
            kept.append(connection)
            return
    connection.close()
