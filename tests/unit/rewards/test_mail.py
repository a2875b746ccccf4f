"""Mails: who sends them, and that a provider can tell a repetition."""

import logging
from collections.abc import Iterator

import httpx
import pytest
from tests.support.fake_api import FakeApi, fake_api

from rewards.mail import LogMailer, Mail, ResendMailer, mailer, reminder_mail, send_mail
from rewards.settings import settings

_MAIL = Mail("ann@shop.example", "Hello", "A text.")


@pytest.fixture
def provider() -> Iterator[FakeApi]:
    """A stand-in for Resend."""
    with fake_api(lambda _: (200, {"id": "mail-1"})) as api:
        yield api


async def test_a_mail_goes_to_the_provider_with_its_key(provider: FakeApi) -> None:
    sender = ResendMailer("re_key", "Shop <shop@shop.example>", provider.url)

    assert await sender.send(_MAIL, "key-1") == "mail-1"

    [request] = provider.received
    assert (request.method, request.path) == ("POST", "/emails")
    assert request.headers["authorization"] == "Bearer re_key"
    assert request.headers["idempotency-key"] == "key-1"
    assert request.body == {
        "from": "Shop <shop@shop.example>",
        "to": ["ann@shop.example"],
        "subject": "Hello",
        "text": "A text.",
    }


async def test_a_refusal_is_an_error_so_that_the_step_is_tried_again(provider: FakeApi) -> None:
    provider.answer = lambda _: (500, {})

    with pytest.raises(httpx.HTTPStatusError):
        await ResendMailer("re_key", "shop", provider.url).send(_MAIL, "key-1")


async def test_without_a_key_mails_are_logged_without_address_and_text(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RESEND_API_KEY", raising=False)
    caplog.set_level(logging.INFO, "rewards")

    assert await send_mail(_MAIL, "key-1") == "logged-key-1"

    [record] = caplog.records
    assert record.getMessage() == "mail not sent: no provider is set"
    assert "ann" not in str(record.__dict__) and "A text" not in str(record.__dict__)


def test_the_environment_chooses_the_provider(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RESEND_API_KEY", "")
    assert isinstance(mailer(settings()), LogMailer)
    monkeypatch.setenv("RESEND_API_KEY", "re_key")
    assert isinstance(mailer(settings()), ResendMailer)


def test_settings_do_not_show_their_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RESEND_API_KEY", "re_key")
    monkeypatch.setenv("STAFF_WEBHOOK_URL", "https://chat.example/secret")

    assert "re_key" not in repr(settings()) and "secret" not in repr(settings())


def test_a_reminder_says_what_is_open() -> None:
    assert reminder_mail("a", "p-1", 123456).text.startswith("1,234.56 are still open.")
