"""Ids that both sides compute alike, against what the real server sent."""

import hashlib
import json
import re
import uuid
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepbase.protocol import ids

FOLDER = Path(__file__).parents[2] / "vectors" / "inngest-server"


def load(name: str) -> Any:
    return json.loads((FOLDER / f"{name}.json").read_text())


def test_step_ids_are_hashed_as_recorded() -> None:
    ops = [each["response"]["body"] for each in load("scenario-repeat")["sdk_calls"]][:3]

    assert [body[0]["id"] for body in ops] == [ids.hash_step_id("same", i) for i in range(3)]


@given(st.text(min_size=1), st.integers(0, 5))
def test_a_hashed_id_is_the_sha1_of_the_numbered_id(step_id: str, index: int) -> None:
    try:
        text = (f"{step_id}:{index}" if index else step_id).encode()
    except UnicodeEncodeError:
        return

    assert ids.hash_step_id(step_id, index) == hashlib.sha1(text).hexdigest()


@given(st.integers(0, 2**48 - 1), st.binary(min_size=10, max_size=10))
def test_a_ulid_carries_its_time_and_sorts_by_it(ms: int, entropy: bytes) -> None:
    text = ids.ulid(ms, entropy)

    assert ids.is_ulid(text)
    assert ids.ulid_ms(text) == ms
    assert ms == 2**48 - 1 or text < ids.ulid(ms + 1, b"\x00" * 10)


@pytest.mark.parametrize(
    "text", ["", "01M84KVX", "01m84kvxaaxfdzb1d48jgnr1mf", "8" + "0" * 25, "I" * 26]
)
def test_what_is_no_ulid(text: str) -> None:
    assert not ids.is_ulid(text)


def test_a_seed_gives_the_recorded_ids() -> None:
    request, response = [
        load("11-send-event-step")["exchanges"][1][part] for part in ("request", "response")
    ]
    seed = next(value for name, value in request["headers"] if name == "x-inngest-event-id-seed")

    assert ids.seeded_event_ids(seed, 2) == response["body"]["ids"]


@given(st.integers(0, 2**48 - 1), st.binary(min_size=10, max_size=10))
def test_a_seed_is_read_back(ms: int, entropy: bytes) -> None:
    found = ids.seeded_event_ids(ids.event_id_seed(ms, entropy), 3)

    assert found is not None
    assert len(set(found)) == 3
    assert all(ids.ulid_ms(each) == ms for each in found)


@pytest.mark.parametrize(
    "seed", ["", "1", "x,AAAAAAAAAAAAAA==", "1,AAAA", "1,!", "-1,AAAAAAAAAAAAAA=="]
)
def test_a_malformed_seed_is_ignored(seed: str) -> None:
    assert ids.seeded_event_ids(seed, 1) is None


def test_apps_and_functions_have_the_recorded_ids() -> None:
    answer = load("02-register-POST-fn-register")["response"]["body"]
    call = load("03-call-first-and-step-run-206")["exchanges"][0]["request"]["body"]

    url = "http://127.0.0.1:19101/api/inngest?fnId=cap-demo&stepId=step"
    assert str(ids.app_uuid("cap")) == answer["app_id"]
    assert str(ids.function_uuid("demo", url)) == call["ctx"]["fn_id"]
    assert isinstance(ids.app_uuid("x"), uuid.UUID)


@pytest.mark.parametrize(
    ("url", "normal"),
    [
        ("http://127.0.0.1:1/a?b=c", "http://localhost:1/a?b=c"),
        ("http://0.0.0.0/a", "http://localhost/a"),
        ("http://[::1]:2/", "http://localhost:2/"),
        ("https://example.com/a", "https://example.com/a"),
    ],
)
def test_loopback_addresses_are_one(url: str, normal: str) -> None:
    assert ids.normalize_url(url) == normal


def test_the_alphabet_leaves_out_what_looks_alike() -> None:
    assert re.fullmatch(r"[0-9A-HJKMNP-TV-Z]{26}", ids.ulid(2**47, b"\xff" * 10))
