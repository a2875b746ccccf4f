"""Requests made for functions: what is sent, what comes of the answer, and where they may not go."""

from typing import Any

import pytest

from stepbase.engine import http1
from stepbase.engine.addresses import PrivateAddressError, is_public, public
from stepbase.engine.gateway import Outgoing, outcome, outgoing, redirected
from stepbase.protocol.op import Op, Opcode

KEY = "sk-secret/1"


def fetching(**opts: Any) -> Op:
    return Op(Opcode.GATEWAY, "g", opts={"url": "https://a.example/x", **opts})


def asking(**opts: Any) -> Op:
    return Op(Opcode.AI_GATEWAY, "a", opts={"url": "https://a.example/v1?x=1", **opts})


def answered(status: int, body: bytes, **headers: str) -> http1.Response:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return http1.Response(status, named, body)


@pytest.mark.parametrize(
    ("format_", "header", "url"),
    [
        ("openai-chat", ("authorization", f"Bearer {KEY}"), "https://a.example/v1?x=1"),
        ("grok", ("authorization", f"Bearer {KEY}"), "https://a.example/v1?x=1"),
        ("anthropic", ("x-api-key", KEY), "https://a.example/v1?x=1"),
        ("bedrock", ("authorization", KEY), "https://a.example/v1?x=1"),
        ("gemini", None, "https://a.example/v1?x=1&key=sk-secret%2F1"),
    ],
)
def test_a_model_gets_its_key_as_its_provider_wants_it(
    format_: str, header: tuple[str, str] | None, url: str
) -> None:
    sent = outgoing(asking(format=format_, auth_key=KEY, body={"q": 1}))

    secret = {name: value for name, value in sent.headers.items() if KEY in value}
    assert secret == (dict([header]) if header else {})
    assert (sent.method, sent.url, sent.body) == ("POST", url, b'{"q":1}')
    assert ("anthropic-version" in sent.headers) == (format_ == "anthropic")
    assert sent.headers["content-type"] == "application/json"


def test_a_key_that_is_in_the_url_already_is_not_put_there_again() -> None:
    url = f"https://a.example/v1?key={KEY}"

    assert outgoing(asking(format="gemini", auth_key=KEY, url=url)).url == url


def test_a_fetch_is_sent_as_asked_but_for_what_frames_it() -> None:
    headers = {"X-A": "b", "Host": "other", "Content-Length": "9", "Accept": ["a", "b"]}
    sent = outgoing(fetching(method="put", headers=headers, body="é"))

    assert (sent.method, sent.body) == ("PUT", "é".encode())
    assert sent.headers == {"user-agent": "stepbase", "x-a": "b", "accept": "a, b"}
    assert outgoing(fetching()).method == "GET"


@pytest.mark.parametrize(
    ("op", "message"),
    [
        (fetching(url="ftp://x"), "'url' must be an absolute"),
        (fetching(url=None), "'url' must be an absolute"),
        (fetching(method="GET /\r\n"), "'method' must be an HTTP method"),
        (fetching(method="connect"), "'method' must not be CONNECT"),
        (fetching(headers=["a"]), "'headers' must be a JSON object"),
        (fetching(headers={"a": "b\r\nc: d"}), "a header has a name or a value"),
        (fetching(headers={"a b": "c"}), "a header has a name or a value"),
        (fetching(body={"a": 1}), "'body' must be text"),
        (asking(auth_key=5), "'auth_key' must be text"),
    ],
)
def test_what_cannot_be_sent_is_refused_in_words(op: Op, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        outgoing(op)


def test_an_answer_becomes_the_steps_result() -> None:
    done = outcome(fetching(), answered(201, b"\xff{}", content_type="text/x", x_t="1"))

    assert (done.op, done.opts) == (Opcode.STEP_RUN, None)
    assert done.data == {
        "url": "https://a.example/x",
        "headers": {"Content-Type": "text/x", "X-T": "1"},
        "body": "\ufffd{}",
        "status_code": 201,
    }
    assert outcome(asking(), answered(200, b'{"a": [1]}')).data == {"a": [1]}


@pytest.mark.parametrize(
    ("op", "response", "opcode", "message"),
    [
        (fetching(), answered(404, b"no"), Opcode.STEP_ERROR, "unsuccessful status code: 404"),
        (fetching(), answered(304, b""), Opcode.STEP_ERROR, "unsuccessful status code: 304"),
        (asking(), answered(200, b"<html>"), Opcode.STEP_ERROR, "the answer is not JSON"),
        (fetching(), answered(200, b"x" * 4_194_305), Opcode.STEP_FAILED, "larger than 4194304"),
        (fetching(), answered(200, b"\x01" * 900_000), Opcode.STEP_FAILED, "bytes as JSON"),
    ],
)
def test_other_answers_fail_the_step(
    op: Op, response: http1.Response, opcode: Opcode, message: str
) -> None:
    done = outcome(op, response)

    assert done.op is opcode
    assert done.error is not None and message in str(done.error["message"])


def test_a_redirect_to_another_origin_takes_no_secrets_along() -> None:
    secrets = {"authorization": "x", "cookie": "y", "x-api-key": "z"}
    asked = Outgoing("POST", "https://a.example/x", {"accept": "a", **secrets}, b"body")

    same = redirected(asked, answered(307, b"", location="/y?z=1"))
    other = redirected(asked, answered(308, b"", location="//b.example/"))
    seen = redirected(asked, answered(303, b"", location="http://a.example/x"))

    assert same == Outgoing("POST", "https://a.example/y?z=1", asked.headers, b"body")
    assert other == Outgoing("POST", "https://b.example/", {"accept": "a"}, b"body")
    assert seen == Outgoing("GET", "http://a.example/x", {"accept": "a"}, b"")
    assert redirected(asked, answered(200, b"", location="/y")) is None
    assert redirected(asked, answered(302, b"")) is None


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "0.0.0.0",
        "224.0.0.1", "255.255.255.255", "::1", "::", "fe80::1", "fe80::1%eth0", "fd00::1", "ff02::1",
        "::ffff:127.0.0.1", "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "2002:7f00:1::", "2001:db8::1",
    ],
)  # fmt: skip
def test_an_address_off_the_internet_is_private(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize(
    "address", ["1.1.1.1", "93.184.216.34", "2606:4700::1111", "64:ff9b::101:101", "::ffff:8.8.8.8"]
)
def test_an_address_on_the_internet_is_public(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "::1", "2130706433", "0x7f.1"])
async def test_a_name_for_a_private_address_is_refused(host: str) -> None:
    with pytest.raises(PrivateAddressError, match="not on the public internet"):
        await public(host, 80)


async def test_a_public_address_is_where_the_connection_goes() -> None:
    assert await public("1.1.1.1", 80) == ["1.1.1.1"]
