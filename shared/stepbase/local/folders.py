"""Loads function folders, `functions/<name>/main.py`, side by side into one process.

functions-framework gives a folder a process of its own, with the folder on `sys.path` and its
`main.py` as the module `main`. Here every `main.py` gets a name of its own, and a module that two
folders both have (`helpers.py`, say) is loaded once for each. What lies in `shared/`, beside `functions/`,
can be imported by all of them: deploying copies it beside each `main.py`.
"""

import importlib.util
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from stepbase.local.errors import HostError
from stepbase.sdk.app import App

_TARGET = "main"
_SHARED = "shared"


@dataclass(frozen=True, slots=True)
class Folder:
    """A loaded function folder; `target` is what functions-framework would be given."""

    name: str
    target: object

    @property
    def app(self) -> object | None:
        """The stepbase app behind `main = serve(app)`, or None."""
        return getattr(self.target, "app", None)


def find(root: Path) -> list[Path]:
    """Return the function folders under `root`, by name."""
    return sorted(path.parent for path in root.glob("*/main.py"))


def load(path: Path) -> Folder:
    """Run a folder's `main.py` and return what it defines.

    Raises:
        HostError: it cannot be imported, its `main` can serve nothing, or leaves out functions of the file.
    """
    _put_aside_namesakes(path)
    if str(path) in sys.path:
        sys.path.remove(str(path))
    sys.path.insert(0, str(path))
    shared = path.parent.parent / _SHARED
    if shared.is_dir() and str(shared) not in sys.path:
        sys.path.insert(1, str(shared))
    module = _import(path)
    target = getattr(module, _TARGET, None)
    if target is None:
        raise HostError(
            f"{path / 'main.py'} has no `{_TARGET}`: end it with `{_TARGET} = serve(app)`"
        )
    folder = Folder(path.name, target)
    _check(folder, module, path / "main.py")
    return folder


def _check(folder: Folder, module: ModuleType, file: Path) -> None:
    """Refuse what would start, and then serve nothing or not everything."""
    if isinstance(folder.target, App):
        raise HostError(f"{file}: `{_TARGET}` is the app itself: write `{_TARGET} = serve(app)`")
    if not callable(folder.target) and not hasattr(folder.target, "asgi"):
        raise HostError(
            f"{file}: `{_TARGET}` is {folder.target!r:.60}, not a function of a request: "
            f"end the file with `{_TARGET} = serve(app)`"
        )
    for app in vars(module).values():
        if isinstance(app, App) and app is not folder.app and (own := _own(app, module)):
            raise HostError(f"{file}: {_left_out(app, own, folder.app)}")


def _own(app: App, module: ModuleType) -> str:
    """Return the functions of an app that are written in this module; it may import others'."""
    functions = app.functions.values()
    return ", ".join(each.id for each in functions if each.handler.__module__ == module.__name__)


def _left_out(app: App, functions: str, served: object) -> str:
    if not isinstance(served, App):
        return (
            f'`{_TARGET}` does not say that it serves the app "{app.id}", which would never be synced: end '
            f"the file with `{_TARGET} = serve(app)`, or, where a `{_TARGET}` of your own calls what "
            f"serve(app) returned, with `{_TARGET}.app = app`"
        )
    return (
        f'`{_TARGET}` serves the app "{served.id}", so the functions of "{app.id}" ({functions}) would '
        "never run. A folder has one app: give them to that one, or a folder of their own"
    )


def _import(path: Path) -> ModuleType:
    name = f"_function_folder_{path.name}"
    spec = importlib.util.spec_from_file_location(name, path / "main.py")
    assert spec is not None and spec.loader is not None, "a .py file always has a loader"
    module = importlib.util.module_from_spec(spec)
    # Classes look their module up by name when their annotations are resolved.
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        raise HostError(
            f"{path / 'main.py'} cannot be loaded: {type(error).__name__}: {error}"
        ) from error
    return module


def _put_aside_namesakes(path: Path) -> None:
    """Forget modules of other folders that this one has too; those who imported them keep them."""
    for name in _modules_in(path):
        known = sys.modules.get(name)
        origin = getattr(known, "__file__", None)
        if origin is not None and path not in Path(origin).parents:
            other = Path(origin).parent
            if (other / "main.py").exists() or (other.parent / "main.py").exists():
                for loaded in [n for n in sys.modules if n == name or n.startswith(f"{name}.")]:
                    del sys.modules[loaded]


def _modules_in(path: Path) -> Sequence[str]:
    files = [p.stem for p in path.glob("*.py")]
    packages = [p.parent.name for p in path.glob("*/__init__.py")]
    return [name for name in (*files, *packages) if name != "main"]
