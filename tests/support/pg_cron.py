"""PostgreSQL with pg_cron from Debian's package, without installing it: a copy of the server's own files."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support import debian

from stepbase.local.binaries import Binaries, find_binaries
from stepbase.local.postgres import Cluster


@contextmanager
def running(database: str = "postgres") -> Iterator[Cluster | None]:
    """Run a server whose `database` may have pg_cron; None where the package cannot be had."""
    with tempfile.TemporaryDirectory(prefix="stepbase-cron-") as folder:
        Path(folder).chmod(0o755)  # the server runs as somebody else
        binaries = _installation(Path(folder))
        if binaries is None:
            yield None
            return
        settings = {"cron.database_name": database, "cron.use_background_workers": "on"}
        with Cluster(
            port=0, durable=False, preload=["pg_cron"], settings=settings, binaries=binaries
        ) as cluster:
            yield cluster


def _installation(folder: Path) -> Binaries | None:
    """Put the server and the package together; PostgreSQL finds its files relative to its program's."""
    own = find_binaries()
    bin_, share = _folders(own.major)
    if own.folder.parts[-4:] != bin_.parts:
        return None  # not Debian's own server
    root = own.folder.parents[3]
    files = debian.fetched(folder, f"postgresql-{own.major}-cron")
    if files is None:
        return None
    target = folder / "usr"
    shutil.copytree(own.folder, target / bin_)
    shutil.copytree(own.folder.parent / "lib", target / bin_.parent / "lib", symlinks=True)
    shutil.copytree(root / share, target / share)
    shutil.copytree(files / "usr", target, dirs_exist_ok=True)
    return Binaries(target / bin_, own.major)


def _folders(major: int) -> tuple[Path, Path]:
    return Path(f"lib/postgresql/{major}/bin"), Path(f"share/postgresql/{major}")
