"""Unpacks Debian's plpgsql_check for a PostgreSQL: fetch_plpgsql_check.py MAJOR FOLDER."""

import subprocess
import sys
from pathlib import Path

major, folder = sys.argv[1], Path(sys.argv[2]).absolute()
package = f"postgresql-{major}-plpgsql-check"
# Lists of its own: nobody has to be root, and an image may have come without any.
apt = ["apt-get", "-qq", "-o", f"Dir::State={folder}/state", "-o", f"Dir::Cache={folder}/cache"]
for name in ("state/lists/partial", "cache/archives/partial"):
    (folder / name).mkdir(parents=True, exist_ok=True)
subprocess.run([*apt, "update"], check=True)
subprocess.run([*apt, "download", package], check=True, cwd=folder)
[archive] = folder.glob(f"{package}_*.deb")
subprocess.run(["dpkg-deb", "--extract", archive, folder / "files"], check=True)
