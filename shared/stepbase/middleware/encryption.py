"""Encryption of what leaves the process: results of steps and functions, and chosen fields of events.

The form on the wire is the one of `inngest-encryption` (PyPI), so runs may move between the two:
`{"__ENCRYPTED__": true, "__STRATEGY__": "inngest/libsodium", "data": <base64>}`, the base64 being nonce
and ciphertext of libsodium's secretbox over JSON.
"""

import base64
import binascii
import json
from collections.abc import Mapping, Sequence
from typing import Any

from stepbase.errors import DefinitionError, StepbaseError
from stepbase.protocol.jsontext import dumps_bytes
from stepbase.protocol.memo import MemoKind, decode_memo
from stepbase.sdk.event import Event
from stepbase.sdk.middleware import Input, Middleware, Output, StepInfo

MARK = "__ENCRYPTED__"
STRATEGY_MARK = "__STRATEGY__"
STRATEGY = "inngest/libsodium"


class DecryptionError(StepbaseError):
    """Encrypted data that no key opens; the call is tried again, in case a deploy brings the key."""

    code = "decryption_failed"


class EncryptionMiddleware(Middleware):
    """Encrypts results and event fields on their way out, and decrypts them on their way in.

    ::

        app = App("shop", middleware=[EncryptionMiddleware.factory(key)])

    Needs the extra `encryption` (PyNaCl). Errors, step ids and the other fields of events stay readable:
    servers need them.

    Args:
        key: Text of any length, from which the key is derived; or the key itself, 32 bytes or their
            hexadecimal form as bytes.
        fallback_keys: Older keys, tried in order when data are to be decrypted.
        event_fields: Fields of an event's data that are encrypted when it is sent.
        decrypt_only: Send everything as it is; for a first deploy, or the way back.

    Raises:
        DefinitionError: If a key has another form, or PyNaCl is missing.
    """

    def __init__(
        self,
        key: str | bytes,
        *,
        fallback_keys: Sequence[str | bytes] = (),
        event_fields: Sequence[str] = ("encrypted",),
        decrypt_only: bool = False,
    ) -> None:
        self._boxes = [_box(each) for each in (key, *fallback_keys)]
        self._fields = (event_fields,) if isinstance(event_fields, str) else tuple(event_fields)
        self._decrypt_only = decrypt_only

    def transform_input(self, input: Input) -> None:
        """Decrypt events and memos."""
        for event in input.events:
            event["data"] = self._open_event(event.get("data"), f'event "{event.get("name")}"')
        for hashed, raw in input.steps.items():
            memo = decode_memo(raw)
            if memo.kind is MemoKind.DATA and isinstance(memo.value, dict):
                opened = self._open_memo(memo.value, f"the result of step {hashed}")
                input.steps[hashed] = {"data": opened}

    def transform_output(self, output: Output) -> None:
        """Encrypt a result."""
        if output.error is None:
            output.data = self._seal(output.data)

    def transform_step_input(self, step: StepInfo) -> None:
        """Encrypt the fields of the event that an invoked function gets."""
        payload = (step.opts or {}).get("payload")
        if isinstance(payload, dict) and isinstance(payload.get("data"), dict):
            step.opts = {
                **(step.opts or {}),
                "payload": {**payload, "data": self._seal_fields(payload["data"])},
            }

    def before_send_events(self, events: list[Event[Any]]) -> None:
        """Encrypt the chosen fields."""
        for event in events:
            event.data = self._seal_fields(event.data)

    def _seal_fields(self, data: dict[str, Any]) -> dict[str, Any]:
        sealed = {
            name: self._seal(data[name]) for name in self._fields if data.get(name) is not None
        }
        return {**data, **sealed}

    def _seal(self, value: object) -> object:
        if self._decrypt_only or is_sealed(value):
            return value
        sealed = base64.b64encode(self._boxes[0].encrypt(dumps_bytes(value)))
        return {MARK: True, STRATEGY_MARK: STRATEGY, "data": sealed.decode()}

    def _open(self, value: Any, what: str) -> Any:
        if not is_sealed(value):
            return value
        from nacl.exceptions import CryptoError

        try:
            sealed = base64.b64decode(value["data"], validate=True)
        except (binascii.Error, ValueError):
            raise DecryptionError(f"{what} is marked as encrypted, but is not base64") from None
        for box in self._boxes:
            try:
                text = box.decrypt(sealed)
            except (CryptoError, ValueError):
                continue
            return json.loads(text)
        raise DecryptionError(
            f"{what} cannot be decrypted with any of the {len(self._boxes)} keys at hand: give the key it "
            "was encrypted with as one of fallback_keys=[…]"
        )

    def _open_event(self, data: Any, what: str) -> Any:
        """Decrypt what is encrypted of an event's data: the whole of it, or fields.

        A failure event carries the event that started the run.
        """
        if not isinstance(data, dict):
            return data
        if is_sealed(data):
            opened = self._open(data, f"{what}: data")
            if not isinstance(opened, dict):
                raise DecryptionError(f"{what}: its decrypted data is no JSON object")
            kept = {k: v for k, v in data.items() if k not in (MARK, STRATEGY_MARK, "data")}
            return {**kept, **opened}
        opened = {name: self._open(each, f"{what}: data.{name}") for name, each in data.items()}
        first = opened.get("event")
        if isinstance(first, dict) and "name" in first and "data" in first:
            opened["event"] = {**first, "data": self._open_event(first["data"], what)}
        return opened

    def _open_memo(self, value: dict[str, Any], what: str) -> Any:
        """Decrypt a result; a step that waited for an event has the event as its result."""
        if is_sealed(value):
            return self._open(value, what)
        if isinstance(value.get("name"), str) and isinstance(value.get("data"), Mapping):
            return {**value, "data": self._open_event(value["data"], what)}
        return value


def is_sealed(value: Any) -> bool:
    """Say whether a JSON value is one that was encrypted."""
    return (
        isinstance(value, dict)
        and value.get(MARK) is True
        and value.get(STRATEGY_MARK) == STRATEGY
        and isinstance(value.get("data"), str)
    )


def _box(key: object) -> Any:
    try:
        from nacl.hash import generichash
        from nacl.secret import SecretBox
    except ImportError as error:
        raise DefinitionError(
            "EncryptionMiddleware needs PyNaCl: pip install stepbase[encryption]"
        ) from error
    if isinstance(key, str) and key:
        return SecretBox(bytes.fromhex(generichash(key.encode(), digest_size=32).decode()))
    if isinstance(key, bytes) and len(key) in (32, 64):
        try:
            return SecretBox(key if len(key) == 32 else bytes.fromhex(key.decode()))
        except ValueError:
            pass
    raise DefinitionError(
        "EncryptionMiddleware: a key is a text that is not empty, 32 bytes, or 64 hexadecimal digits as bytes"
    )
