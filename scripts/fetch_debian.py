"""Unpacks Debian packages without installing them: fetch_debian.py [--with-needs] FOLDER PACKAGE…

With --with-needs also whatever they need that this machine has not.
"""

import subprocess
import sys
from pathlib import Path

with_needs = "--with-needs" in sys.argv
name, *packages = [each for each in sys.argv[1:] if each != "--with-needs"]
folder = Path(name).absolute()
# Lists of its own: nobody has to be root, and an image may have come without any.
lists, cache = folder / "lists", folder / "cache"
apt = ["apt-get", "-qq", "-o", f"Dir::State::Lists={lists}", "-o", f"Dir::Cache={cache}"]
for path in (lists / "partial", cache / "archives" / "partial"):
    path.mkdir(parents=True, exist_ok=True)
subprocess.run([*apt, "update"], check=True)
if with_needs:
    simulate = [*apt, "install", "--simulate", "--no-install-recommends", *packages]
    said = subprocess.run(simulate, check=True, stdout=subprocess.PIPE, text=True).stdout
    missing = [line.split()[1] for line in said.splitlines() if line.startswith("Inst ")]
    packages = sorted({*packages, *missing})
subprocess.run([*apt, "download", *packages], check=True, cwd=folder)
for archive in folder.glob("*.deb"):
    subprocess.run(["dpkg-deb", "--extract", archive, folder / "files"], check=True)
    archive.unlink()
