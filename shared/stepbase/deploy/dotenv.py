"""Reads and writes `.env` files, in the form that the Supabase CLI reads too.

`NAME=value`, one a line, `#` begins a comment. In single quotes and backticks everything stands for
itself, in double quotes `\\n` is a line break. Nothing is substituted: a `$` is a `$`. Where readers of
such files disagree (a `#` inside of a value, a quote that is not closed) the line is refused.
"""

import re
from collections.abc import Mapping

from stepbase.deploy.errors import DeployError

_LINE = re.compile(
    r"""
    \s*(?:export\s+)?(?P<name>[A-Za-z_][A-Za-z0-9_]*)\s*=[ \t]*
    (?:'(?P<single>[^']*)'|"(?P<double>(?:\\.|[^"\\])*)"|`(?P<back>[^`]*)`|(?P<bare>[^#\r\n]*))
    [ \t]*(?:\#[^\r\n]*)?(?:\r?\n|\Z)
    """,
    re.VERBOSE | re.DOTALL,
)
_LF = "\n"
_SKIPPED = re.compile(r"[ \t]*(?:#[^\n]*)?(?:\r?\n|\Z)")


def parse(text: str, where: str, *, is_shared: bool = False) -> dict[str, str]:
    """Return the variables of a file; `where` names it in errors.

    Args:
        is_shared: Whether the Supabase CLI reads the file by itself, as it does with every `.env` where it
            runs: by rules of its own, and it ends if the file does not follow them.

    Raises:
        DeployError: If a line is none of the form; the message names the line, never its value.
    """
    found: dict[str, str] = {}
    at = 0
    while at < len(text):
        match = _LINE.match(text, at)
        skipped = _SKIPPED.match(text, at)
        if skipped is not None and skipped.end() > at:
            at = skipped.end()
            continue
        if match is None:
            line = text.count("\n", 0, at) + 1
            raise DeployError(f"{where}:{line}: expected NAME=value, a comment or an empty line")
        at_line = f"{where}:{text.count(_LF, 0, match.start('name')) + 1}: {match['name']}"
        found[match["name"]] = _value(match, at_line)
        if is_shared:
            _check_for_cli(match, at_line)
        at = match.end()
    return found


def _value(match: re.Match[str], where: str) -> str:
    double = match["double"]
    if double is not None:
        return str(double.replace("\\n", "\n").replace("\\r", "\r"))
    for quoted in (match["single"], match["back"]):
        if quoted is not None:
            return str(quoted)
    bare = str(match["bare"])
    if bare[:1] in ("'", '"', "`"):
        raise DeployError(f"{where}: the quote is not closed, or something follows it")
    if bare.strip() and not bare[-1:].isspace() and match.string[match.end("bare") :][:1] == "#":
        raise DeployError(f"{where} has a # in it: put the value in single quotes")
    return bare.strip()


def _check_for_cli(match: re.Match[str], where: str) -> None:
    """Raise if the CLI would take a quote for not closed: it knows no backticks, and backslashes escape."""
    then = "the Supabase CLI reads this file too, and would end at it: "
    if _LF in (match["back"] or ""):
        raise DeployError(
            f"{where}: {then}put lines into single quotes, or write the value as base64"
        )
    if (match["single"] or match["double"] or "").endswith("\\"):
        raise DeployError(
            f"{where}: {then}leave the quotes out of a value that ends with a backslash"
        )


def is_writable(value: str) -> bool:
    """Say whether a value can be written so that it is read back as it is."""
    return "\r" not in value and any(quote not in value for quote in "'`")


def write(variables: Mapping[str, str]) -> str:
    """Return a file with these variables, by name; every value must be writable."""
    lines = []
    for name, value in sorted(variables.items()):
        quote = "'" if "'" not in value else "`"
        lines.append(f"{name}={quote}{value}{quote}\n")
    return "".join(lines)
