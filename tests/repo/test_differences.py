"""Every difference on purpose from the official SDKs is named in docs/protocol.md, and no other."""

from tests.interop.differences import DIFFERENCES
from tests.repo.tree import ROOT


def test_the_protocol_page_names_each_difference_of_the_sdks() -> None:
    text = (ROOT / "docs" / "protocol.md").read_text()
    section = text.split("## Differences")[1].split("Of this project's app and server:")[0]
    named = [line.split("|")[1].strip() for line in section.splitlines() if line.startswith("| ")]

    shown = [name for name in named if name]

    assert len(shown) == len(set(shown))
    assert set(shown) == {each.name for each in DIFFERENCES}
