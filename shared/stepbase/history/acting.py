"""What the commands share that have an engine do something: its HTTP API, and its refusals in words."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import click

if TYPE_CHECKING:
    import httpx

URL = click.option(
    "--url",
    help="The engine's URL.  [env: INNGEST_BASE_URL, INNGEST_DEV; default: http://127.0.0.1:8288]",
)
_SECONDS = 30.0


class RefusedError(click.ClickException):
    """The engine does not do it, or is away; the message says why and what to do. Exit code 1."""


class Api:
    """An engine's API, asked with the signing key of the environment where there is one.

    Args:
        url: As given by `--url`, or None for what the environment names.

    Raises:
        UsageError: If the URL is none.
    """

    def __init__(self, url: str | None) -> None:
        from stepbase import config

        self.url = (url or config.engine_origin()).rstrip("/")
        if not self.url.startswith(("http://", "https://")):
            raise click.UsageError(
                f"--url: expected http://… or https://…, got {self.url!r}: for example http://127.0.0.1:8288"
            )
        self._keys = config.inngest()

    def ask(self, method: str, path: str, body: object = None) -> Any:
        """Make a request and return the decoded answer, or None if it has no body.

        Raises:
            RefusedError: If the engine is away, refuses the key, or says no.
        """
        from stepbase.protocol import signing

        key = self._keys.signing_key
        try:
            token = {"authorization": f"Bearer {signing.hash_key(key)}"} if key else {}
        except ValueError as error:
            raise RefusedError(f"INNGEST_SIGNING_KEY: {error}") from error
        answer = self._send(method, path, token, body)
        if answer.status_code in (401, 403):
            what = (
                "INNGEST_SIGNING_KEY is not one of its keys"
                if key
                else "it has keys: set INNGEST_SIGNING_KEY to its signing key"
            )
            raise RefusedError(f"the engine at {self.url} refuses us: {what}")
        return self._read(answer)

    def send(self, event: Mapping[str, object]) -> str:
        """Send one event with the event key of the environment; return the engine's id of it.

        Raises:
            RefusedError: As `ask`.
        """
        from stepbase.protocol import names

        key = self._keys.event_key
        answer = self._send("POST", f"/e/{quote(key or names.NO_EVENT_KEY, safe='')}", {}, [event])
        if answer.status_code == 401:
            what = (
                "INNGEST_EVENT_KEY is not one of its keys"
                if key
                else "it has keys: set INNGEST_EVENT_KEY"
            )
            raise RefusedError(f"the engine at {self.url} does not take this event: {what}")
        return str(self._read(answer)["ids"][0])

    def _send(
        self, method: str, path: str, headers: Mapping[str, str], body: object
    ) -> "httpx.Response":
        import httpx

        try:
            # Nobody's proxy stands between an operator and an engine, unless the engine is far away.
            trusts = not self.url.startswith(
                ("http://127.0.0.1", "http://localhost", "http://[::1]")
            )
            with httpx.Client(timeout=_SECONDS, trust_env=trusts) as client:
                return client.request(method, self.url + path, headers=dict(headers), json=body)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise RefusedError(
                f"no engine answers at {self.url} ({type(error).__name__}: {error}): "
                "is one running (stepbase dev, stepbase engine)? --url names another"
            ) from error

    def _read(self, answer: "httpx.Response") -> Any:
        try:
            decoded = answer.json() if answer.content else None
        except ValueError:
            decoded = answer.text
        if answer.is_success and not isinstance(decoded, str):
            return decoded
        said = decoded.get("error") if isinstance(decoded, dict) else None
        if not isinstance(said, str):
            raise RefusedError(
                f"{self.url} answered HTTP {answer.status_code} and not as an engine does: "
                "is that an engine's URL, without a path?"
            )
        again = "; try again in a moment" if answer.status_code == 503 else ""
        raise RefusedError(f"{said}{again}")


def run_path(run_id: str) -> str:
    """Return the API's path of a run."""
    return f"/v1/runs/{quote(run_id, safe='')}"


def report(done: Sequence[Mapping[str, object]], as_json: bool) -> None:
    """Print what came of each thing acted on, as JSON or in lines; exit with 1 if one was refused.

    Args:
        done: Rows with `text` for people, `ok`, and whatever else JSON shall have.
    """
    import json

    if as_json:
        rows = [{k: v for k, v in each.items() if k != "text"} for each in done]
        click.echo(json.dumps(rows, ensure_ascii=False))
    else:
        for each in done:
            click.echo(str(each["text"]), err=not each["ok"])
    if not all(each["ok"] for each in done):
        raise SystemExit(1)


def set_paused(functions: Sequence[str], verb: str, url: str | None, as_json: bool) -> None:
    """Pause or resume functions, and print what came of it; exits as `report`.

    Args:
        verb: ``"pause"`` or ``"resume"``, as in the API's path.
    """
    api, done = Api(url), []
    for slug in functions:
        row: dict[str, object] = {"function": slug, "ok": True, "is_paused": verb == "pause"}
        try:
            api.ask("POST", f"/v1/functions/{quote(slug)}/{verb}")
            row["text"] = f"{slug} {verb}d"
        except RefusedError as error:
            text = error.message
            if "there is no function" in text:
                text += "; stepbase functions lists them"
            row = {"function": slug, "ok": False, "error": text, "text": text}
        done.append(row)
    report(done, as_json)
