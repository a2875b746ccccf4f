"""Has apps declare their functions to the engine, as a deploy does."""

from collections.abc import Callable, Mapping

import httpx

from stepbase.local.errors import ChildError

_SECONDS = 20.0


async def sync(urls: Mapping[str, str], done: Callable[[str], None]) -> None:
    """Sync the apps of these serve URLs, by folder; `done` is told of each.

    Raises:
        ChildError: apps or the engine refused, a line for each; the others are synced.
    """
    refused = []
    async with httpx.AsyncClient(timeout=_SECONDS) as client:
        for folder, url in urls.items():
            try:
                response = await client.put(url)
            except httpx.HTTPError as error:
                refused.append(f"{folder} cannot be synced: {error!r}")
                continue
            if response.status_code == 200:
                done(folder)
            else:
                refused.append(f"{folder} cannot be synced: {_reason(response)}")
    if refused:
        raise ChildError("\n".join(refused))


def _reason(response: httpx.Response) -> str:
    """Return what an app said of why it was not synced."""
    try:
        return str(response.json()["message"])
    except (ValueError, KeyError, TypeError):
        return f"{response.status_code} {response.text[:500]}"
