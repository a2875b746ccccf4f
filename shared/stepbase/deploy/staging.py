"""The staged folder `build/<name>/`: all that an image is made of, and nothing that changes by itself.

The same sources give the same bytes: files are sorted, times and owners are left out, versions come from the
lock. Its digest names the image and is what a deployed app answers with, so that a deploy can tell that what
it reached is what it brought.
"""

import hashlib
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import stepbase
from stepbase.deploy import lock, sources
from stepbase.deploy.errors import DeployError
from stepbase.deploy.lock import Lock
from stepbase.deploy.sources import Found

BUILD = "build"

# CPython 3.13 on Debian, by digest: a tag may be pushed again, a digest never changes.
BASE_IMAGE = (
    "python:3.13-slim@sha256:7c61056e61ac89e852de05f3dc6fa51a6dd2181797bceed46aa725dd7cb2cd3b"
)
PORT = 8080

ENGINE = "engine"
ENGINE_LINE = [
    *("python", "-m", "stepbase.cli", "engine"),
    *("--host", "0.0.0.0", "--port", str(PORT), "--log-json"),
]

_FUNCTION_SIDE = frozenset({"hosts", "middleware", "protocol", "sdk", "supabase"})
"""The packages of stepbase that functions import; the engine and the tools stay at home."""

_OURS = "stepbase"
_MADE_HERE = frozenset({"requirements.txt", "Dockerfile"})

_DOCKERFILE = """\
# Made by `stepbase deploy` from {source}; change that instead.
FROM {base}
WORKDIR /app
ENV PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
COPY requirements.txt ./
RUN pip install --no-cache-dir --disable-pip-version-check --root-user-action=ignore --no-deps \\
      --requirement requirements.txt
COPY . ./
# Nothing in the image belongs to the user it runs as, so bytecode is made now.
RUN python -m compileall -q . && useradd --uid 10001 --no-create-home --shell /usr/sbin/nologin app
USER 10001
ENV PORT={port}{surroundings}
EXPOSE {port}
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=30s --timeout=3s --start-period=10s CMD \\
  ["python", "-c", "import os,urllib.request as u;u.urlopen(f'http://127.0.0.1:{{os.environ[\\"PORT\\"]}}/health')"]
CMD {start}
"""


@dataclass(frozen=True, slots=True)
class Staged:
    """A staged folder that is not written yet.

    Attributes:
        folder: Where it goes, from the project's root.
        files: Their contents by path, from that folder.
        digest: Of everything that runs in it: 12 hex digits.
        left_out: Files of the sources that stay at home and might be missed.
    """

    folder: str
    files: Mapping[str, bytes]
    digest: str
    left_out: tuple[str, ...] = ()

    @classmethod
    def of(cls, folder: str, files: Mapping[str, bytes]) -> "Staged":
        """Return a folder of these files, with the digest that they have."""
        return cls(folder, files, _digest(files))

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(map(len, self.files.values()))


def start_line(*, has_app: bool) -> list[str]:
    """Return what the image runs: functions-framework, on an event loop where an app is served."""
    line = ["functions-framework", "--target=main", "--source=main.py", "--signature-type=http"]
    return [*line, "--asgi"] if has_app else line


def stage(
    root: Path,
    path: Path,
    pins: Lock,
    *,
    surroundings: Mapping[str, str],
    has_app: bool,
    base: str = BASE_IMAGE,
) -> Staged:
    """Put together the staged folder of a function folder.

    Args:
        surroundings: Variables of the image: where the app is served. Never secrets.
        has_app: Whether the folder serves an app.

    Raises:
        DeployError: If its requirements are not all pinned, it brings a package of ours of its own, or
            has files that no image can have.
    """
    wanted = lock.requirements(_requirements(path), f"functions/{path.name}/requirements.txt")
    problems = lock.unpinned(wanted, pins)
    if problems:
        raise DeployError(f"functions/{path.name}: {'; '.join(problems)}: stepbase deploy --lock")
    own = sources.read(root, path)
    files = {name: each for name, each in own.files.items() if name not in _MADE_HERE}
    left_out = [*own.left_out, *({"Dockerfile"} & own.files.keys())]
    for name, source in packages(root).items():
        if any(there.split("/")[0] in (name, f"{name}.py") for there in files):
            raise DeployError(f"functions/{path.name} has a {name!r} of its own: rename it")
        package = _package(name, root, source)
        files.update(package.files)
        left_out += package.left_out
    files["requirements.txt"] = lock.pins_for(wanted, pins).encode()
    start = start_line(has_app=has_app)
    made = _image(path.name, f"functions/{path.name}", files, surroundings, start, base)
    return replace(made, left_out=tuple(sorted(left_out)))


def stage_engine(root: Path, pins: Lock, *, base: str = BASE_IMAGE) -> Staged:
    """Put together the staged folder of an engine, which is all of stepbase and no folder.

    Raises:
        DeployError: If what it needs is not all pinned.
    """
    wanted = lock.engine_requirements(root)
    problems = lock.unpinned(wanted, pins)
    if problems:
        raise DeployError(f"the engine: {'; '.join(problems)}: stepbase deploy --lock")
    source = Path(stepbase.__file__).parent
    files = dict(_package(_OURS, root, source, is_whole=True).files)
    files["requirements.txt"] = lock.pins_for(wanted, pins).encode()
    return _image(ENGINE, "stepbase", files, {}, ENGINE_LINE, base)


def _image(
    name: str,
    source: str,
    files: dict[str, bytes],
    surroundings: Mapping[str, str],
    start: list[str],
    base: str,
) -> Staged:
    """Add the Dockerfile, which knows the digest of everything else."""
    digest = _digest({**files, "": repr((base, sorted(surroundings.items()), start)).encode()})
    told = {**surroundings, "STEPBASE_DEPLOYMENT": digest}
    files["Dockerfile"] = _DOCKERFILE.format(
        source=source,
        base=base,
        port=PORT,
        surroundings="".join(f" \\\n    {key}={value}" for key, value in sorted(told.items())),
        start="[" + ", ".join(f'"{word}"' for word in start) + "]",
    ).encode()
    return Staged(f"{BUILD}/{name}", dict(sorted(files.items())), digest)


def packages(root: Path) -> dict[str, Path]:
    """Return the packages that go into every image: stepbase's function side, and those under `shared/`."""
    found = {"stepbase": Path(stepbase.__file__).parent}
    for folder in sorted(root.glob("shared/*")):
        # Whether or not there is an __init__.py: locally it is imported without one, too.
        if folder.name.isidentifier() and any(folder.rglob("*.py")):
            found.setdefault(folder.name, folder)
    return found


def write(root: Path, staged: Staged) -> None:
    """Make the folder on disk hold exactly these files; one that was there is replaced.

    Modes and times do not depend on who writes it: an image keeps them, and its user must be able to read.

    Raises:
        DeployError: If it cannot be written.
    """
    target = root / staged.folder
    fresh = target.with_name(f".{target.name}.fresh")
    try:
        _remove(fresh)
        folders = {fresh}
        for name, content in staged.files.items():
            file = fresh / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content)
            file.chmod(0o644)
            os.utime(file, (0, 0))
            folders.update(fresh / each for each in Path(name).parents)
        for folder in sorted(folders, reverse=True):  # the inner ones first
            folder.chmod(0o755)
            os.utime(folder, (0, 0))
        _remove(target)
        fresh.rename(target)
    except OSError as error:
        raise DeployError(f"{staged.folder} cannot be written: {error}") from error


def _remove(path: Path) -> None:
    if path.is_symlink() or path.is_file():
        path.unlink()
    elif path.exists():
        shutil.rmtree(path)


def _requirements(path: Path) -> str:
    file = path / "requirements.txt"
    if not file.is_file():
        raise DeployError(f"functions/{path.name} has no requirements.txt: name what it imports")
    return file.read_text("utf-8")


def _package(name: str, root: Path, source: Path, *, is_whole: bool = False) -> Found:
    """Return a package's files; of stepbase only the function side, if not the whole is asked for."""
    found = sources.read(root, source)
    kept = {}
    for inside, content in found.files.items():
        first, _, rest = inside.partition("/")
        is_at_home = inside.endswith(".ts") or (rest and first not in _FUNCTION_SIDE)
        if name != _OURS or is_whole or not is_at_home:
            kept[f"{name}/{inside}"] = content
    return Found(kept, tuple(f"{name}/{each}" for each in found.left_out))


def _digest(files: Mapping[str, bytes]) -> str:
    whole = hashlib.sha256()
    for name, content in sorted(files.items()):
        whole.update(f"{name}\0{len(content)}\0".encode() + content)
    return whole.hexdigest()[:12]
