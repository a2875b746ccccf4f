"""Replies as the engine reads them (vector `stub-sdk-odd-replies.json`), and what it refuses."""

import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stepbase.errors import ProtocolError
from stepbase.protocol import names
from stepbase.protocol.op import Op, Opcode, decode_op
from stepbase.protocol.reply import FunctionError, NoAnswer, Ops, Output, decode_reply

SDK = {names.SDK: "stub:v1", names.REQ_VERSION: "2"}


def refused(status: int, body: bytes, **more: str) -> ProtocolError:
    with pytest.raises(ProtocolError) as caught:
        decode_reply(status, {**SDK, **more}, body)
    return caught.value


# --- outputs -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "body", "text"),
    [
        (200, b'{"a": 1.0}', '{"a": 1.0}'),
        (200, b"null", "null"),
        (200, b"", "null"),
        (204, b"", "null"),
        (200, b"not json", '"not json"'),
        (200, b"7", "7"),
        (200, '"ä"'.encode(), '"ä"'),
        (200, b'"\xff"', '"\ufffd"'),
        (200, b"NaN", '"NaN"'),
        (200, b'{"x": Infinity}', '"{\\"x\\": Infinity}"'),
        (200, b"1e999", '"1e999"'),
        (200, b'"\\u0000"', '"\\u0000"'),
        (200, b"12345678901234567890123", "12345678901234567890123"),
        (299, b"1", "1"),
    ],
)
def test_a_2xx_is_the_output_as_it_was_written(status: int, body: bytes, text: str) -> None:
    assert decode_reply(status, SDK, body) == Output(text, 2)


def test_an_output_nested_beyond_reading_is_kept_as_a_text() -> None:
    body = b"[" * 5000 + b"]" * 5000

    assert decode_reply(200, SDK, body) == Output(json.dumps(body.decode()), 2)


# --- no SDK ------------------------------------------------------------------------------------


def test_a_2xx_without_the_sdk_header_is_not_an_sdk() -> None:
    reply = decode_reply(200, {}, b"<html>login")

    assert reply == NoAnswer(
        "HTTP 200 without the x-inngest-sdk header: the URL is answered by something that is not an "
        "app's serve endpoint; check the synced URL (body starts '<html>login')",
        is_outage=False,
        status=200,
    )


def test_a_function_that_cannot_fetch_its_state_says_that_the_server_is_away() -> None:
    told = {"x-inngest-sdk": "x:v1", "x-stepbase-outage": "true"}

    away = decode_reply(503, told, b'{"message":"no answer"}')
    silent = decode_reply(503, told, b"")
    failed = decode_reply(503, {"x-inngest-sdk": "x:v1"}, b'{"message":"no answer"}')

    assert away == NoAnswer("no answer", is_outage=True, status=503)
    assert silent == NoAnswer("HTTP 503 without a body", is_outage=True, status=503)
    assert isinstance(failed, FunctionError)


@pytest.mark.parametrize("status", [401, 500])
def test_a_refusal_that_passes_is_an_outage(status: int) -> None:
    told = {"x-inngest-sdk": "x:v1", "x-stepbase-outage": "true"}

    reply = decode_reply(status, told, b'{"code":"c","message":"function shop-note not found"}')

    assert reply == NoAnswer("function shop-note not found", is_outage=True, status=status)


def test_a_result_stays_one_whatever_the_header_says() -> None:
    told = {"x-inngest-sdk": "x:v1", "x-stepbase-outage": "true"}

    assert isinstance(decode_reply(200, told, b"1"), Output)


@pytest.mark.parametrize(
    ("status", "is_outage"),
    [(502, True), (503, True), (504, True), (404, False), (500, False), (301, False)],
)
def test_without_the_sdk_header_only_a_gateways_answer_is_an_outage(
    status: int, is_outage: bool
) -> None:
    reply = decode_reply(status, {}, b"oops")

    assert isinstance(reply, NoAnswer)
    assert (reply.is_outage, reply.status) == (is_outage, status)
    assert reply.message.startswith(f"Your server returned HTTP {status} before the SDK responded")


def test_an_official_sdks_refusal_of_the_signature_says_so() -> None:
    reply = decode_reply(401, {"x-inngest-sdk-handled": "true"}, b'{"message":"Unauthorized"}')

    assert isinstance(reply, NoAnswer)
    assert (reply.is_outage, reply.status) == (False, 401)
    assert "refused the call's signature" in reply.message


# --- function errors ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (b'{"name": "E", "message": "m"}', {"name": "E", "message": "m"}),
        (b"plain", {"name": "Error", "message": "plain"}),
        (b'"quoted"', {"name": "Error", "message": "quoted"}),
        (b"[1]", {"name": "Error", "message": "[1]"}),
        (b"", {"name": "Error", "message": "HTTP 500 without a body"}),
        (b'{"x": NaN}', {"name": "Error", "message": '{"x": NaN}'}),
        (b"\xff", {"name": "Error", "message": "\ufffd"}),
    ],
)
def test_anything_else_is_an_error_object(body: bytes, error: dict[str, object]) -> None:
    assert decode_reply(500, SDK, body) == FunctionError(error, 500, version=2)


def test_no_retry_is_obeyed_on_any_status_and_retry_after_is_kept() -> None:
    headers = {**SDK, names.NO_RETRY: "True", names.RETRY_AFTER: "3"}

    assert decode_reply(200, headers, b'{"a":1}') == FunctionError({"a": 1}, 200, True, "3", 2)
    assert decode_reply(400, {**SDK, names.NO_RETRY: "false"}, b"{}") == FunctionError(
        {}, 400, False, None, 2
    )


@pytest.mark.parametrize(
    ("text", "version"),
    [("2", 2), ("-1", None), ("two", None), ("²", None), ("9" * 5000, None), ("", None)],
)
def test_a_version_that_is_no_small_number_is_none(text: str, version: int | None) -> None:
    assert decode_reply(200, {**SDK, names.REQ_VERSION: text}, b"1") == Output("1", version)


# --- ops ---------------------------------------------------------------------------------------


def test_ops_come_in_order_with_what_the_headers_say() -> None:
    body = b'[{"op":"StepRun","id":"a","data":1},{"op":"None"}]'

    reply = decode_reply(206, {**SDK, names.RETRY_AFTER: "9", names.NO_RETRY: "true"}, body)

    assert reply == Ops((Op(Opcode.STEP_RUN, "a", data=1), Op(Opcode.NONE, "")), True, "9", 2)


def test_a_single_object_is_a_list_of_one() -> None:
    reply = decode_reply(206, SDK, b'{"op":"Sleep","id":"z","opts":{"duration":"1s"}}')

    assert isinstance(reply, Ops)
    assert reply.ops == (Op(Opcode.SLEEP, "z", opts={"duration": "1s"}),)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "a 206 reply has no body: expected a list of ops"),
        (b"  ", "a 206 reply has no body: expected a list of ops"),
        (b"[", "a 206 reply is not JSON"),
        (b"\xff", "a 206 reply is not JSON"),
        (b"[" * 5000, "a 206 reply is not JSON"),
        (b'[{"op":"StepRun","id":"a","data":NaN}]', "a 206 reply is not JSON: NaN is not JSON"),
        (b'[{"op":"StepRun","id":"a","data":1e999}]', "1e999 is too large for a number"),
        (b'"StepRun"', "a 206 reply must be a list of ops, got 'StepRun'"),
        (b"[1]", "op [0] must be a JSON object, got 1"),
        (b'[{"op":"None"},{"op":"Bogus","id":"x"}]', "op [1] has the unknown opcode 'Bogus'"),
        (b'[{"id":"x"}]', "op [0] has the unknown opcode None"),
        (b'[{"op":["StepRun"],"id":"x"}]', "op [0] has the unknown opcode ['StepRun']"),
        (b'[{"op":"StepRun"}]', "op [0] (StepRun) has no id: expected the step's hashed id"),
        (b'[{"op":"StepRun","id":""}]', "op [0] (StepRun) has no id"),
        (b'[{"op":"StepRun","id":7}]', "op [0] (StepRun) has no id"),
        (b'[{"op":"StepRun","id":"a\\u0000"}]', "op [0] (StepRun) has no id"),
        (b'[{"op":"StepRun","id":"\\ud800"}]', "op [0] (StepRun) has no id"),
        (b'[{"op":"Sleep","id":"a","opts":"1s"}]', "op [0]: 'opts' must be a JSON object"),
        (b'[{"op":"StepError","id":"a","error":"no"}]', "op [0]: 'error' must be a JSON object"),
        (b'[{"op":"Sleep","id":"a","name":5}]', "op [0]: 'name' must be a string, got 5"),
        (b'[{"op":"Sleep","id":"a","displayName":{}}]', "op [0]: 'displayName' must be a string"),
    ],
)
def test_broken_ops_are_refused_with_their_place(body: bytes, message: str) -> None:
    assert message in str(refused(206, body))


def test_the_message_for_an_unknown_opcode_lists_the_known_ones() -> None:
    message = str(refused(206, b'[{"op":"StepNotFound","id":"x"}]'))

    assert "known: StepRun, Step, StepError" in message and "AiGateway" in message


def test_more_than_a_thousand_ops_are_refused() -> None:
    body = json.dumps([{"op": "StepRun", "id": str(i)} for i in range(1001)]).encode()

    assert str(refused(206, body)).startswith("a reply has 1001 ops, 1000 are allowed")


@pytest.mark.parametrize("status", [200, 201, 206, 500])
def test_a_reply_over_eight_mebibytes_is_refused_whatever_its_status(status: int) -> None:
    message = str(refused(status, b" " * (names.MAX_REPLY_BYTES + 1)))

    assert message.startswith("the reply has 8388609 bytes, 8388608 are allowed")


def test_names_lose_what_a_database_cannot_keep() -> None:
    body = (
        b'[{"op":"StepRun","id":"a","displayName":"x\\u0000y\\ud800",'
        b'"userland":{"id":"\\ud83du\\u0000"}}]'
    )

    reply = decode_reply(206, SDK, body)

    assert isinstance(reply, Ops)
    assert (reply.ops[0].display_name, reply.ops[0].userland_id) == ("xy?", "?u")


# --- streams -----------------------------------------------------------------------------------


def test_a_stream_is_read_as_what_it_wraps() -> None:
    body = b'   {"status": 206, "headers": {"Retry-After": 5}, "body": "[{\\"op\\":\\"None\\"}]"}'

    assert decode_reply(201, SDK, body) == Ops((Op(Opcode.NONE, ""),), False, "5", 2)


def test_a_streams_body_may_be_json_itself() -> None:
    assert decode_reply(201, SDK, b'{"status": 200, "body": {"a": 1}}') == Output('{"a":1}', 2)
    assert decode_reply(201, SDK, b'{"status": 200}') == Output("null", 2)


def test_half_a_character_in_a_streams_body_does_no_harm() -> None:
    assert decode_reply(201, SDK, b'{"status": 200, "body": "\\ud800"}') == Output('"?"', 2)


@pytest.mark.parametrize(
    "body",
    [b"", b"   ", b"nope", b"[]", b"{}", b'{"status": "x"}', b'{"status": null}', b"[" * 5000],
)
def test_a_broken_stream_is_refused(body: bytes) -> None:
    assert 'a 201 reply must end in {"status", "headers", "body"}' in str(refused(201, body))


def test_a_stream_in_a_stream_is_refused() -> None:
    assert str(refused(201, b'{"status": 201}')) == "a 201 reply wraps another 201"


# --- for every input ---------------------------------------------------------------------------

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(
                ["op", "id", "data", "error", "name", "opts", "status", "body", "userland"]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=10,
)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    status=st.integers(100, 599) | st.sampled_from([200, 201, 206]),
    headers=st.dictionaries(
        st.sampled_from([names.SDK, names.NO_RETRY, names.RETRY_AFTER, names.REQ_VERSION]),
        st.text(max_size=8),
    ),
    body=st.binary(max_size=30) | JSON.map(lambda value: json.dumps(value).encode()),
)
def test_any_reply_decodes_or_breaks_the_protocol(
    status: int, headers: dict[str, str], body: bytes
) -> None:
    try:
        reply = decode_reply(status, headers, body)
    except ProtocolError:
        return
    assert isinstance(reply, Output | Ops | FunctionError | NoAnswer)
    if isinstance(reply, Output):
        json.loads(reply.text)


STORABLE = st.text(st.characters(exclude_characters="\x00", exclude_categories=["Cs"]), max_size=6)
OPS = st.builds(
    Op,
    op=st.sampled_from(list(Opcode)),
    id=STORABLE.filter(bool),
    name=STORABLE,
    display_name=STORABLE,
    opts=st.none() | st.dictionaries(st.text(), JSON, max_size=2),
    data=JSON.filter(lambda value: value == value),
    error=st.none() | st.dictionaries(st.text(), JSON, max_size=2),
    userland_id=st.none() | STORABLE,
    userland_index=st.none() | st.integers(),
)


@given(op=OPS)
def test_an_op_comes_back_from_what_it_is_written_as(op: Op) -> None:
    assert decode_op(op.encode(), "[0]") == op


@given(raw=JSON)
def test_any_json_is_an_op_or_breaks_the_protocol(raw: object) -> None:
    try:
        assert isinstance(decode_op(raw, "[0]"), Op)
    except ProtocolError as error:
        assert "[0]" in str(error)
