"""Which system account Postgres runs as.

PostgreSQL refuses to run as root. Started by root (a container, CI), the server therefore gets an
unprivileged account and only what that account can reach; started by anybody else it runs as them.
Nothing outside this module and `postgres` needs to know.
"""

import os
import pwd
import stat
import tempfile
from dataclasses import dataclass
from pathlib import Path

_CANDIDATES = ("postgres", "nobody")


@dataclass(frozen=True, slots=True)
class Account:
    """A system account; `drop` is True where a child has to be switched to it."""

    name: str
    uid: int
    gid: int
    drop: bool

    def popen_arguments(self) -> dict[str, object]:
        """Return what `subprocess` needs to start a child as this account."""
        if not self.drop:
            return {}
        return {"user": self.uid, "group": self.gid, "extra_groups": []}

    def own(self, path: Path) -> None:
        """Give `path` to this account."""
        if self.drop:
            os.chown(path, self.uid, self.gid)

    def reaches(self, path: Path) -> bool:
        """Say whether this account may read `path` and search every folder above it."""
        if not self.drop:
            return os.access(path, os.R_OK)
        path = path.resolve()
        return self._may(path, 0o4) and all(self._may(parent, 0o1) for parent in path.parents)

    def _may(self, path: Path, bit: int) -> bool:
        try:
            found = path.stat()
        except OSError:
            return False
        if found.st_uid == self.uid:
            bit <<= 6
        elif found.st_gid == self.gid:
            bit <<= 3
        return bool(stat.S_IMODE(found.st_mode) & bit)


def server_account() -> Account:
    """Return the account a Postgres server of ours runs as.

    Raises:
        LookupError: as root on a system with neither a `postgres` nor a `nobody` account.
    """
    if os.geteuid() != 0:
        return Account(str(os.geteuid()), os.geteuid(), os.getegid(), drop=False)
    for name in _CANDIDATES:
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return Account(name, entry.pw_uid, entry.pw_gid, drop=True)
    raise LookupError(
        "PostgreSQL will not run as root and there is neither a `postgres` nor a `nobody` account; "
        "create one (`useradd --system postgres`) or run as an ordinary user"
    )


def scratch_folder(account: Account) -> Path:
    """Create a private folder for `account` under the first temporary directory it can reach."""
    for root in (Path(tempfile.gettempdir()), Path("/tmp"), Path("/var/tmp")):
        if account.reaches(root):
            folder = Path(tempfile.mkdtemp(prefix="stepbase-pg-", dir=root))
            account.own(folder)
            return folder
    raise PermissionError(f"no temporary directory that account {account.name} can reach")
