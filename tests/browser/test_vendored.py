"""The scripts that the console carries along are the published ones, byte for byte, with their licences."""

from pathlib import Path

import pytest
from tests.support.npm import ROOT, installed

_STATIC = ROOT / "shared" / "stepbase" / "console" / "static"
_PACKAGES = Path(__file__).parent / "packages"


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ("htmx-2.0.11.min.js", "htmx.org/dist/htmx.min.js"),
        ("htmx-LICENSE.txt", "htmx.org/LICENSE"),
        ("htmx-sse-2.2.4.min.js", "htmx-ext-sse/dist/sse.min.js"),
        ("htmx-sse-LICENSE.txt", "htmx-ext-sse/LICENSE"),
    ],
)
def test_a_vendored_file_is_the_published_one(ours: str, theirs: str) -> None:
    published = installed(_PACKAGES) / "node_modules" / theirs

    assert (_STATIC / ours).read_bytes() == published.read_bytes()
