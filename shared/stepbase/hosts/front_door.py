"""Front doors: small Edge Functions that pass requests on to a Python host.

One template for all; `supabase/functions/<name>/index.ts` is what it becomes for a function folder. A front
door adds a hop and a limit of 150 seconds, and gives a URL on the project's own domain, with every call in
the dashboard's Edge logs.
"""

import re
from pathlib import Path
from typing import Final

from stepbase.errors import DefinitionError

_TEMPLATE: Final = Path(__file__).with_name("front_door.ts")
_NAME: Final = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,62}")


def variable(name: str) -> str:
    """Return the variable (a secret of the project) that says where the host of a folder is.

    For example ``STEPBASE_ORIGIN_CURRENCY``: the URL at which the folder's own `/` is reached, without a
    trailing slash.

    Raises:
        DefinitionError: If no Edge Function can have that name.
    """
    if _NAME.fullmatch(name) is None:
        raise DefinitionError(
            f"front door {name!r}: the name of an Edge Function is 1 to 63 letters, digits, - and _, "
            "and begins with a letter"
        )
    return "STEPBASE_ORIGIN_" + re.sub(r"\W", "_", name).upper()


def source(name: str) -> str:
    """Return the text of a folder's `index.ts`; raises as `variable`."""
    template = _TEMPLATE.read_text("utf-8")
    return template.replace("__VARIABLE__", variable(name)).replace("__APP__", name)


def settings(name: str) -> str:
    """Return the block of `supabase/config.toml` that a front door needs; raises as `variable`.

    Supabase would otherwise ask every caller for a user's token, which a server does not have.
    """
    variable(name)
    return f"[functions.{name}]\nverify_jwt = false\n"


def written(name: str, root: Path) -> str | None:
    """Return the text of the Edge Function that has a folder's name, or None if there is none."""
    path = _path(name, root)
    return path.read_text("utf-8") if path.is_file() else None


def is_ours(text: str) -> bool:
    """Say whether an Edge Function is a front door, of whatever version."""
    return "stepbase.hosts.front_door" in text.partition("const ")[0]


def write(name: str, root: Path) -> Path:
    """Write a folder's front door under `root`, the folder with `supabase` in it; returns the file.

    Raises as `variable`.
    """
    text = source(name)
    path = _path(name, root)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, "utf-8")
    return path


def _path(name: str, root: Path) -> Path:
    return root / "supabase" / "functions" / name / "index.ts"
