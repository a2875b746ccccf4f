"""Files of Debian packages, for tests that use a program or library that this machine may not have."""

import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def fetched(folder: Path, *packages: str) -> Path | None:
    """Unpack packages in `folder`; return the root of their files, or None where they cannot be had."""
    if not (shutil.which("apt-get") and shutil.which("dpkg-deb")):
        return None
    script = ROOT / "scripts" / "fetch_debian.py"
    done = subprocess.run([sys.executable, script, folder, *packages], capture_output=True)
    return folder / "files" if done.returncode == 0 else None
