"""Templates to HTML: whole pages, or the block that is alive."""

import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib import resources

import jinja2
from markupsafe import Markup, escape

from stepbase.console import words
from stepbase.console.page import Page


class Renderer:
    """The templates, with the filters that they use."""

    def __init__(self) -> None:
        self._templates = jinja2.Environment(
            loader=jinja2.PackageLoader("stepbase.console"),
            autoescape=True,
            undefined=jinja2.StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._templates.filters.update(
            machine=_machine,
            human=_human,
            duration=words.duration,
            error=words.error,
            pretty=words.pretty,
            size=words.size,
            unquoted=_unquoted,
            short=words.short,
            span=words.between,
            waits=words.waits,
            coloured=coloured,
            json=lambda value: json.dumps(value, default=str, ensure_ascii=False),
        )
        # A global, because a block that is rendered alone sees nothing of what stands outside it.
        self._templates.globals["m"] = self._templates.get_template("macros.html").module

    def page(self, page: Page, surroundings: Mapping[str, object]) -> str:
        """Return the whole page."""
        template = self._templates.get_template(page.template)
        return template.render({**surroundings, **page.shown, "title": page.title})

    def live(self, page: Page, surroundings: Mapping[str, object]) -> str:
        """Return the block `live` alone."""
        template = self._templates.get_template(page.template)
        shown = {**surroundings, **page.shown, "title": page.title}
        context = template.new_context(shown)
        return "".join(template.blocks["live"](context))


def _unquoted(text: str) -> str:
    """Return a JSON text as people read it: a string without its quotes."""
    value = json.loads(text)
    return value if isinstance(value, str) and value else text


def _machine(instant: datetime) -> str:
    return instant.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _human(instant: datetime) -> str:
    return f"{instant.astimezone(UTC):%d %b %H:%M:%S}"


_TOKEN = re.compile(
    r'("(?:[^"\\]|\\.)*")(\s*:)?|\b(true|false|null|-?\d[\d.eE+-]*)\b|[^"\w-]+|.', re.DOTALL
)


def coloured(text: str) -> Markup:
    """Mark what is a key, a string or another value in JSON text; of other text nothing."""
    if not text.lstrip().startswith(("{", "[", '"')):
        return escape(text)
    made = []
    for match in _TOKEN.finditer(text):
        string, colon, word = match.groups()
        if string is not None and colon is not None:
            made.append(f'<span class="j-key">{escape(string)}</span>{colon}')
        elif string is not None:
            made.append(f'<span class="j-text">{escape(string)}</span>')
        elif word is not None:
            made.append(f'<span class="j-word">{escape(word)}</span>')
        else:
            made.append(escape(match.group()))
    return Markup("".join(made))


def static(name: str) -> bytes | None:
    """Return a file of `static`, or None if there is none of that name."""
    if "/" in name or name.startswith("."):
        return None
    file = resources.files("stepbase.console").joinpath("static", name)
    return file.read_bytes() if file.is_file() else None
