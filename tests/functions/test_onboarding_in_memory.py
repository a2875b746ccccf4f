"""The app "onboarding" without a database: the welcome, the wait, the bonus of another app."""

from collections.abc import Iterator
from pathlib import Path
from uuid import UUID

import pytest

from rewards.award import Posting
from rewards.events import AwardRequested, UserSignedUp
from rewards.mail import Mail
from stepbase import NonRetriableError
from stepbase.testing import Lab, load_app

_ANN = UUID("6f62ac6b-3ea5-4774-bfa3-ab7aa08b6eca")
_BOB = UUID("0d2b1c7e-0a52-4f5a-9d7c-5f3f8e0f6a11")
_FOLDERS = Path(__file__).parents[2] / "functions"

Sent = list[tuple[Mail, str]]


@pytest.fixture
def sent() -> Sent:
    """The mails that were sent, and their keys."""
    return []


@pytest.fixture
def lab(sent: Sent) -> Iterator[Lab]:
    """Onboarding and currency together; mails, awards and the bonus faked."""

    def send(mail: Mail, key: str) -> str:
        sent.append((mail, key))
        return "id"

    apps = [load_app(_FOLDERS / name) for name in ("onboarding", "currency")]
    with Lab(*apps, always_replay=True) as lab:
        lab.fake_table("customers", None)
        for step in ("welcome-mail", "bonus-mail", "tell-staff"):
            lab.fake_step(step, send)
        lab.fake_rpc("calc_currency_for_source", 30)
        config = {"merchant_id": "m", "rate_bp": 250, "award_delay_hours": 0}
        lab.fake_rpc("get_merchant_config", config)
        lab.fake_rpc("post_wallet_transaction", Posting(outcome="posted", balance=30))
        lab.fake_rpc("post_welcome_bonus", Posting(outcome="posted", balance=150))
        yield lab


def signed_up(email: str | None = "ann@shop.example") -> UserSignedUp:
    return UserSignedUp(id=_ANN, email=email)


def purchase(user: UUID = _ANN, cents: int = 1200) -> AwardRequested:
    return AwardRequested(user_id=user, merchant_id="m", source_id="p", amount=cents)


async def test_a_user_is_welcomed_and_given_a_bonus_after_the_return_period(
    lab: Lab, sent: Sent
) -> None:
    [run] = await lab.send(signed_up())
    assert [mail.subject for mail, _ in sent] == ["Welcome"]
    await lab.advance("20d")

    await lab.send(purchase())
    assert run.status == "sleeping"
    await lab.advance("13d")
    assert run.invoked == []
    await lab.advance("1d")

    assert run.result == Posting(outcome="posted", balance=150)
    [bonus] = run.invoked
    [call] = bonus.rpc_calls
    assert call.args == {"p_user_id": str(_ANN), "p_source_id": "p", "p_amount": 120}
    assert call.key == f"welcome-bonus:{_ANN}"
    assert [mail.subject for mail, _ in sent] == ["Welcome", "Your welcome bonus"]
    assert len({key for _, key in sent}) == 2


async def test_a_purchase_while_the_mail_is_on_its_way_counts(lab: Lab) -> None:
    lab.fail_step("welcome-mail", ConnectionError("no answer"), times=1)
    [run] = await lab.send(signed_up())
    assert run.status == "retrying"

    await lab.send(purchase())
    await lab.advance("1m")

    assert run.status == "sleeping"


async def test_another_users_purchase_is_not_theirs(lab: Lab) -> None:
    [run] = await lab.send(signed_up())

    await lab.send(purchase(_BOB))
    assert run.status == "waiting"
    await lab.advance("30d")

    assert run.result is None


async def test_a_user_without_an_address_gets_the_bonus_and_no_mail(lab: Lab, sent: Sent) -> None:
    [run] = await lab.send(signed_up(None))
    await lab.send(purchase())
    await lab.advance("14d")

    assert run.result is not None
    assert run.rpc_calls[0].args["rows"] == [{"user_id": str(_ANN), "email": None}]
    assert sent == []


async def test_a_bonus_that_was_not_given_is_not_written_about(lab: Lab, sent: Sent) -> None:
    lab.fake_rpc("post_welcome_bonus", {"outcome": "skipped"})
    [run] = await lab.send(signed_up())
    await lab.send(purchase())

    await lab.advance("14d")

    assert run.result == Posting(outcome="skipped")
    assert [mail.subject for mail, _ in sent] == ["Welcome"]


async def test_the_staff_is_told_of_a_welcome_that_failed(lab: Lab, sent: Sent) -> None:
    lab.fake_step("welcome-mail", NonRetriableError("no such address"))

    [run, *_] = await lab.send(signed_up())

    assert run.status == "failed"
    [(mail, _)] = sent
    assert (mail.to, "no such address" in mail.text) == ("staff@shop.example", True)
