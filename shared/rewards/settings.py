"""What the functions are told by their environment; the only module of the domain that reads it.

`./deploy.sh` sets these as secrets of the project, `stepbase dev` passes on what the shell has.
"""

import os
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Settings:
    """Where mails and messages go.

    Attributes:
        mail_from: Who mails are from.
        staff_address: Who of the shop is written to.
        resend_key: The key of Resend, a mail provider; without one, mails are logged only.
        staff_webhook: A chat's address for messages to the staff (`{"text": …}`); without one there are none.
        has_model: Whether there is a key for a language model (`OPENAI_API_KEY`, which `step.ai` reads).
    """

    mail_from: str
    staff_address: str
    resend_key: str | None = field(repr=False)
    staff_webhook: str | None = field(repr=False)
    has_model: bool


def settings() -> Settings:
    """Return the settings as they are now."""
    return Settings(
        mail_from=os.environ.get("MAIL_FROM", "Shop <shop@shop.example>"),
        staff_address=os.environ.get("STAFF_ADDRESS", "staff@shop.example"),
        resend_key=os.environ.get("RESEND_API_KEY") or None,
        staff_webhook=os.environ.get("STAFF_WEBHOOK_URL") or None,
        has_model=bool(os.environ.get("OPENAI_API_KEY")),
    )
