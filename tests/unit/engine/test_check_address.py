"""What an engine refuses to start with."""

import pytest

from stepbase.engine.server import check_address
from stepbase.engine.settings import Settings


@pytest.mark.parametrize("key", ["not hex", "abc", "signkey-prod-xyz", "signkey-prod-abc"])
def test_a_signing_key_that_is_not_hex_is_refused_without_being_shown(key: str) -> None:
    with pytest.raises(ValueError, match="must be an even number of hex digits") as caught:
        check_address(Settings(database_url="", signing_keys=("ab12", key)))

    assert key not in str(caught.value)


def test_keys_in_either_form_are_accepted() -> None:
    check_address(Settings(database_url="", signing_keys=("ab12", "signkey-prod-ab12")))
