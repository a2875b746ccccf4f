"""A bare virtual environment with what a staged folder's requirements.txt names, and nothing of ours.

Made once for each content, in `.cache/`.
"""

import hashlib
import subprocess
import sys
from pathlib import Path

from tests.support.npm import ROOT


def environment(requirements: Path) -> Path:
    """Return the folder with the environment's programs."""
    digest = hashlib.sha256(requirements.read_bytes()).hexdigest()[:12]
    folder = ROOT / ".cache" / f"bare-{sys.version_info.major}.{sys.version_info.minor}-{digest}"
    ready = folder / "ready"
    if not ready.exists():
        subprocess.run([sys.executable, "-m", "venv", "--clear", folder], check=True)
        pip = str(folder / "bin" / "pip")
        install = [pip, "install", "--quiet", "--no-deps", "-r", str(requirements)]
        subprocess.run(install, check=True, capture_output=True)
        # Without --no-deps pip would have said so: everything needed must be among the pins.
        subprocess.run([pip, "check"], check=True, capture_output=True)
        ready.touch()
    return folder / "bin"
