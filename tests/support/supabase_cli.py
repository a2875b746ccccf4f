"""The real Supabase CLI, from npm as `tests/deploy/supabase_cli/package-lock.json` pins it.

On other platforms than Linux on x64: the `supabase` on the PATH.
"""

import functools
import platform
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

from tests.support.npm import ROOT, installed

_SOURCE = ROOT / "tests" / "deploy" / "supabase_cli"


@functools.cache
def program() -> Path:
    """Return the program; its folder may be put on a PATH."""
    if (platform.system(), platform.machine()) == ("Linux", "x86_64"):
        modules = installed(_SOURCE) / "node_modules"
        return modules / "@supabase" / "cli-linux-x64" / "bin" / "supabase"
    found = shutil.which("supabase")
    assert found, "install the Supabase CLI: https://supabase.com/docs/guides/local-development/cli"
    return Path(found)


def run(
    *arguments: str, cwd: Path, environment: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run the CLI to its end, cut off from the user's own settings; both streams are kept.

    Args:
        arguments: What follows `supabase`.
        cwd: Where `supabase/config.toml` is; its `.home` folder becomes the CLI's home.
        environment: Further variables.
    """
    home = cwd / ".home"
    home.mkdir(exist_ok=True)
    fixed = {
        "HOME": str(home),
        "PATH": "/usr/bin:/bin",
        "DO_NOT_TRACK": "1",
        "SUPABASE_TELEMETRY_DISABLED": "1",
        "NO_COLOR": "1",
    }
    return subprocess.run(
        [program(), *arguments],
        cwd=cwd,
        env={**fixed, **(environment or {})},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=100,
    )
