"""Supabase's Management API, as far as the real CLI asks it during a deploy, over real HTTP.

It keeps what it is given (secrets, notebooks, Edge Functions, Compute builds) and records every request.
What it answers is what CLI 3.1.0 was seen to accept; the shapes are checked by the CLI itself.
"""

import email
import email.policy
import io
import json
import re
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.support.fake_api import FakeApi, Received, fake_api

REF = "abcdefghijklmnopqrst"
TOKEN = "sbp_" + "0123456789" * 4
_PROJECT = {
    "id": REF,
    "ref": REF,
    "organization_id": "o",
    "organization_slug": "o",
    "name": "shop",
    "region": "us-west-2",
    "created_at": "2026-01-01T00:00:00Z",
    "status": "ACTIVE_HEALTHY",
    "database": {"host": "db.x", "version": "17", "postgres_engine": "17", "release_channel": "ga"},
}
_AT = "2026-11-24T12:00:00.000Z"
_TIMES = {"created_at": _AT, "inserted_at": _AT, "updated_at": _AT}
_UUID = "00000000-0000-4000-8000-000000000001"


@dataclass
class ManagementApi:
    """Attributes:
    api: The server; its `received` are the requests.
    secrets: The project's secrets.
    notebooks: Their contents by name.
    functions: The Edge Functions' metadata by slug.
    built: For each Compute, the files of the build that serves.
    on_request: Called with each request before it is answered; may kill whoever asks.
    build_state: What a new build ends as.
    """

    api: FakeApi
    secrets: dict[str, str] = field(default_factory=dict)
    notebooks: dict[str, Any] = field(default_factory=dict)
    functions: dict[str, dict[str, Any]] = field(default_factory=dict)
    built: dict[str, dict[str, bytes]] = field(default_factory=dict)
    on_request: Callable[[Received], None] = lambda _: None
    build_state: str = "active"
    _contexts: dict[str, bytes] = field(default_factory=dict)

    @property
    def asked(self) -> list[str]:
        """Every request so far, as method and path."""
        return [f"{each.method} {each.path}" for each in self.api.received]

    def write_profile(self, folder: Path) -> Path:
        """Write the profile that leads the CLI here."""
        path = folder / "profile.yaml"
        path.write_text(
            f"name: fake\napi_url: {self.api.url}\ndashboard_url: {self.api.url}\nproject_host: fake.test\n"
        )
        return path

    def answer(self, request: Received) -> tuple[int, Any]:
        """Answer one request."""
        self.on_request(request)
        path, _, query = request.path.partition("?")
        if (
            not path.startswith("/context/")
            and request.headers.get("authorization") != f"Bearer {TOKEN}"
        ):
            return 401, {"message": "Unauthorized"}
        for pattern, answer in self._routes():
            match = re.fullmatch(pattern, f"{request.method} {path}")
            if match:
                return answer(request, query, *match.groups())
        return 404, {"message": f"Cannot {request.method} {path}"}

    def _routes(self) -> list[tuple[str, Callable[..., tuple[int, Any]]]]:
        v1, v2 = f"/v1/projects/{REF}", f"/v2/projects/{REF}"
        return [
            (f"GET {v1}", lambda *_: (200, _PROJECT)),
            (f"POST {v1}/secrets", self._set_secrets),
            (f"GET {v1}/functions", lambda *_: (200, list(self.functions.values()))),
            (f"POST {v1}/functions/deploy", self._deploy_function),
            (rf"POST {v2}/compute/([a-z0-9-]+)/uploads", self._upload),
            (r"PUT /context/([a-z0-9-]+)", self._context),
            (rf"POST {v2}/compute/([a-z0-9-]+)/deploy", self._deploy_compute),
            (rf"GET {v2}/compute/([a-z0-9-]+)", self._compute),
            (f"GET {v2}/notebooks", self._list_notebooks),
            (f"POST {v2}/notebooks", self._put_notebook),
            (rf"(?:PATCH|PUT) {v2}/notebooks/([\w-]+)", self._put_notebook),
        ]

    def _set_secrets(self, request: Received, *_: str) -> tuple[int, Any]:
        self.secrets.update({each["name"]: each["value"] for each in request.body})
        return 201, {}

    def _deploy_function(self, request: Received, query: str, *_: str) -> tuple[int, Any]:
        slug = query.removeprefix("slug=").partition("&")[0]
        metadata = json.loads(_form(request)["metadata"])
        self.functions[slug] = {
            "id": _UUID, "slug": slug, "name": slug, "status": "ACTIVE", "version": 1,
            "created_at": 1, "updated_at": 1, "verify_jwt": metadata.get("verify_jwt", True),
            "entrypoint_path": metadata["entrypoint_path"],
        }  # fmt: skip
        return 201, self.functions[slug]

    def _upload(self, request: Received, query: str, name: str) -> tuple[int, Any]:
        attributes = {"url": f"{self.api.url}/context/{name}", "method": "PUT", "expires_at": _AT}
        kind = "project_compute_instance_upload"
        return 201, {"data": {"id": f"up-{name}", "type": kind, "attributes": attributes}}

    def _context(self, request: Received, query: str, name: str) -> tuple[int, Any]:
        self._contexts[name] = request.content
        return 200, {}

    def _deploy_compute(self, request: Received, query: str, name: str) -> tuple[int, Any]:
        assert request.body["data"]["attributes"]["context_upload_id"] == f"up-{name}"
        with tarfile.open(fileobj=io.BytesIO(self._contexts[name])) as tar:
            members = [each for each in tar.getmembers() if each.isfile()]
            files = {each.name.removeprefix("./"): tar.extractfile(each) for each in members}
            self.built[name] = {path: file.read() for path, file in files.items() if file}
        return 202, _compute_named(name, "building")

    def _compute(self, request: Received, query: str, name: str) -> tuple[int, Any]:
        if name not in self.built:
            return 404, {"error": {"code": "not_found.compute", "message": "not found"}}
        return 200, _compute_named(name, self.build_state)

    def _list_notebooks(self, *_: Any) -> tuple[int, Any]:
        data = [_notebook(name, each) for name, each in self.notebooks.items()]
        return 200, {
            "data": data,
            "meta": {"next_cursor": None},
            "links": {"prev": None, "next": None},
        }

    def _put_notebook(self, request: Received, *_: str) -> tuple[int, Any]:
        attributes = request.body["data"]["attributes"]
        self.notebooks[attributes["name"]] = attributes
        return 201, {"data": _notebook(attributes["name"], attributes)}


def _form(request: Received) -> dict[str, bytes]:
    """Return the parts of a multipart form by name."""
    head = f"content-type: {request.headers['content-type']}\r\n\r\n".encode()
    message = email.message_from_bytes(head + request.content, policy=email.policy.HTTP)
    found = {}
    for part in message.iter_parts():
        content = part.get_payload(decode=True)
        assert isinstance(content, bytes)
        found[str(part.get_param("name", header="content-disposition"))] = content
    return found


def _compute_named(name: str, state: str) -> dict[str, Any]:
    attributes = {
        "spec": {"size": "2gb-1vcpu", "exposure": "public", "instances": 1},
        "build_state": state,
        "image_version": "v1",
        "secret_generation": "1",
        "deleting": False,
    }
    if state == "failed":
        attributes["state_reason"] = "pip install failed"
    return {"data": {"id": name, "type": "project_compute_instance", "attributes": attributes}}


def _notebook(name: str, attributes: dict[str, Any]) -> dict[str, Any]:
    cells = [
        {"id": f"cell-{number}", **cell}
        for number, cell in enumerate(attributes.get("content", {}).get("cells", []))
    ]
    content = {"schema_version": 1, "cells": cells}
    by = {"owner": None, "updated_by": None, "favorite": False}
    whole = {"description": None, **attributes, **_TIMES, **by, "content": content}
    return {"id": _UUID, "type": "notebook", "attributes": whole}


@contextmanager
def management_api() -> Iterator[ManagementApi]:
    """Run one for a while."""
    with fake_api() as api:
        found = ManagementApi(api)
        api.answer = found.answer
        yield found
