"""Unpacks Debian packages without installing them: fetch_debian.py FOLDER PACKAGE…"""

import subprocess
import sys
from pathlib import Path

folder, packages = Path(sys.argv[1]).absolute(), sys.argv[2:]
# Lists of its own: nobody has to be root, and an image may have come without any.
apt = ["apt-get", "-qq", "-o", f"Dir::State={folder}/state", "-o", f"Dir::Cache={folder}/cache"]
for name in ("state/lists/partial", "cache/archives/partial"):
    (folder / name).mkdir(parents=True, exist_ok=True)
subprocess.run([*apt, "update"], check=True)
subprocess.run([*apt, "download", *packages], check=True, cwd=folder)
for archive in folder.glob("*.deb"):
    subprocess.run(["dpkg-deb", "--extract", archive, folder / "files"], check=True)
