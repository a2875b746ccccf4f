"""What a page needs on the site and not as plain markdown, or the other way round (hooks of mkdocs.yml)."""

import posixpath
import re
from typing import Any

_NOTE = re.compile(r"^<!-- test: .* -->\n", re.MULTILINE)
_FENCE = re.compile(r"^(```.*?^```)$", re.MULTILINE | re.DOTALL)
_FILE = re.compile(r"^```(?P<language>\w+) file=(?P<file>\S+)$", re.MULTILINE)
_LINK = re.compile(r"(?<!!)\[(?P<text>[^\]]+)\]\((?P<target>[^)\s:]+)\)")


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Take out what is for tests alone, and links to files that only the repository has."""
    markdown = _FILE.sub(r'```\g<language> title="\g<file>"', _NOTE.sub("", markdown))
    folder = posixpath.join("docs", posixpath.dirname(page.file.src_uri))
    parts = _FENCE.split(markdown)
    parts[::2] = [_LINK.sub(lambda link: _kept(link, folder), each) for each in parts[::2]]
    return "".join(parts)


def on_post_page(output: str, **_: Any) -> str:
    """Name the search, which the theme leaves without one for those who hear the page."""
    search = 'data-md-component="search" role="dialog"'
    return output.replace(search, f'{search} aria-label="Search"')


def _kept(link: re.Match[str], folder: str) -> str:
    """Return a link between pages as it is, one out of docs/ as its text and the file's path."""
    path = posixpath.normpath(posixpath.join(folder, link["target"].partition("#")[0]))
    if path.startswith("docs"):
        return link.group()
    name = link["text"].strip("`")
    if name.startswith("test_"):
        return f'<code class="proof" title="{path}">{name}</code>'
    is_said = link["text"].strip("`") in (path, posixpath.basename(path))
    return f"`{path}`" if is_said else f"{link['text']} (`{path}`)"
