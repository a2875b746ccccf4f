"""Takes secrets out of text that programs print, in the forms in which they come."""

import json
from collections.abc import Iterable, Iterator
from urllib.parse import quote

SHOWN = "•••"
_LEAST = 6
"""Characters of what is taken for a secret: shorter ones would be found in any text."""


class Redactor:
    """Replaces values by dots: as they are, each line of them, and as URLs and JSON write them."""

    def __init__(self, values: Iterable[str]) -> None:
        found = {form for value in values for form in _forms(value) if len(form) >= _LEAST}
        # The longest first: a secret may begin with another one.
        self._forms = sorted(found, key=len, reverse=True)

    def __call__(self, text: str) -> str:
        """Return the text without any of the values."""
        for form in self._forms:
            text = text.replace(form, SHOWN)
        return text


def _forms(value: str) -> Iterator[str]:
    for each in (value, *value.splitlines()):
        bare = each.strip()
        yield from (bare, quote(bare, safe=""), quote(bare), json.dumps(bare)[1:-1])
