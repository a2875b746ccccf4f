"""A PostgreSQL server with pg_cron: a copy of the system's, beside the files of Debian's package.

A copy, because an extension's files must lie in the server's own folders, and those belong to the system.
"""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support import debian

from stepbase.local.binaries import find_binaries
from stepbase.local.postgres import Cluster


@contextmanager
def running_pgcron(database: str = "postgres") -> Iterator[Cluster | None]:
    """Run one whose jobs work on `database`; None where Debian's package cannot be had.

    Debian's version (1.4 on bookworm) knows minutes, not seconds.
    """
    with tempfile.TemporaryDirectory(prefix="stepbase-cron-") as folder:
        root = Path(folder)
        root.chmod(0o755)  # the server may run as somebody else
        folder_of_binaries = _with_pgcron(root)
        if folder_of_binaries is None:
            yield None
            return
        cluster = Cluster(
            durable=False,
            preload=["pg_cron"],
            settings={"cron.database_name": database, "cron.use_background_workers": "on"},
            binaries=find_binaries(str(folder_of_binaries)),
        )
        try:
            cluster.start()
            yield cluster
        finally:
            cluster.close()


def _with_pgcron(root: Path) -> Path | None:
    """Return the folder of the copy's binaries."""
    for major in (15, 16, 17, 18):
        own = Path(f"/usr/lib/postgresql/{major}")
        share = Path(f"/usr/share/postgresql/{major}")
        if not (own / "bin" / "postgres").exists() or not share.exists():
            continue
        files = debian.fetched(root, f"postgresql-{major}-cron")
        if files is None:
            return None
        # The server finds its other folders by where its program lies.
        for folder in (own, share):
            copy = files / folder.relative_to("/")
            shutil.copytree(folder, copy, dirs_exist_ok=True)
        return files / own.relative_to("/") / "bin"
    return None
