"""Apps of function folders, for tests."""

from pathlib import Path

from stepbase.local import folders
from stepbase.sdk.app import App


def load_app(folder: str | Path) -> App:
    """Return the app of a function folder, such as ``"functions/currency"``.

    Its `main.py` runs as a module of its own, so that several folders can be tested in one process.

    Raises:
        HostError: If it cannot be imported, or has no `main`.
        TypeError: If its `main` serves no app.
    """
    found = folders.load(Path(folder).resolve()).app
    if not isinstance(found, App):
        raise TypeError(f"{folder}/main.py serves no app: end it with `main = serve(app)`")
    return found
