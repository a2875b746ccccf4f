"""Mails: what they say, and who sends them.

A provider is whatever has a `send` that takes an idempotency key. A step may run twice (`step.run` is
at least once by nature), and the provider is who can tell that a mail has been sent already.
"""

import logging
from dataclasses import dataclass
from typing import Protocol

from rewards.reports import cents
from rewards.settings import Settings, settings

_log = logging.getLogger(__name__)
_RESEND = "https://api.resend.com"
_SECONDS = 20.0


@dataclass(frozen=True, slots=True)
class Mail:
    """A mail in plain text."""

    to: str
    subject: str
    text: str


class Mailer(Protocol):
    """A mail provider."""

    async def send(self, mail: Mail, key: str) -> str:
        """Send a mail, once for each key; return the provider's id of it."""
        ...


class LogMailer:
    """Sends nothing: says in the log that it would have. For development, and until there is a provider."""

    async def send(self, mail: Mail, key: str) -> str:
        """Log the subject; addresses and texts are nobody's business in a log."""
        _log.info("mail not sent: no provider is set", extra={"subject": mail.subject, "key": key})
        return f"logged-{key}"


class ResendMailer:
    """Sends by Resend, which keeps a key for a day."""

    def __init__(self, key: str, sender: str, url: str = _RESEND) -> None:
        self._key = key
        self._sender = sender
        self._url = url

    async def send(self, mail: Mail, key: str) -> str:
        """Post the mail.

        Raises:
            httpx.HTTPError: If there was no answer, or it was a refusal; the step is tried again.
        """
        import httpx

        headers = {"Authorization": f"Bearer {self._key}", "Idempotency-Key": key}
        fields = {
            "from": self._sender,
            "to": [mail.to],
            "subject": mail.subject,
            "text": mail.text,
        }
        async with httpx.AsyncClient(timeout=_SECONDS) as client:
            answer = await client.post(f"{self._url}/emails", headers=headers, json=fields)
        answer.raise_for_status()
        return str(answer.json()["id"])


def mailer(chosen: Settings) -> Mailer:
    """Return the provider that the settings name."""
    if chosen.resend_key is None:
        return LogMailer()
    return ResendMailer(chosen.resend_key, chosen.mail_from)


async def send_mail(mail: Mail, key: str) -> str:
    """Send a mail by the provider of the environment; what steps run, with `step.idempotency_key`."""
    return await mailer(settings()).send(mail, key)


def welcome_mail(to: str) -> Mail:
    """Return the mail to one who has signed up."""
    return Mail(to, "Welcome", "Your first purchase earns you a bonus. We look forward to it.")


def bonus_mail(to: str, points: int) -> Mail:
    """Return the mail to one who has been given the welcome bonus."""
    return Mail(to, "Your welcome bonus", f"{points:,} points are in your wallet. Thank you.")


def reminder_mail(to: str, source_id: str, amount: int) -> Mail:
    """Return the mail to one whose order is not paid."""
    text = f"{cents(amount)} are still open. We keep your order for another six days."
    return Mail(to, f"Your order {source_id}", text)
