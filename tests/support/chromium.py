"""Debian's Chromium for tests: the one that is installed, or a copy unpacked into `.cache/`."""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Browser, sync_playwright
from tests.support.npm import ROOT

_FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
_FONTS = """<?xml version="1.0"?><!DOCTYPE fontconfig SYSTEM "fonts.dtd">
<fontconfig><dir>{files}/usr/share/fonts</dir><dir>/usr/share/fonts</dir><cachedir>{files}/fonts</cachedir>
</fontconfig>"""


@contextmanager
def browser() -> Iterator[Browser]:
    """Run a headless browser that asks nobody but the pages it is sent to."""
    program, environment = _found()
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(
            executable_path=program, args=list(_FLAGS), env={**os.environ, **environment}
        )
        yield launched
        launched.close()


def _found() -> tuple[str, dict[str, str]]:
    installed = shutil.which("chromium")
    if installed:
        return installed, {}
    files = _unpacked()
    libraries = [files / "usr" / "lib" / "chromium", *files.glob("usr/lib/*-linux-gnu*")]
    libraries += [path for path in files.glob("usr/lib/*-linux-gnu*/*") if path.is_dir()]
    return str(files / "usr" / "lib" / "chromium" / "chromium"), {
        "LD_LIBRARY_PATH": ":".join(map(str, libraries)),
        "FONTCONFIG_FILE": str(files / "fonts.conf"),
    }


def _unpacked() -> Path:
    """Return the root of the unpacked files; fetched once, 130 MB with what this machine lacks."""
    folder = ROOT / ".cache" / "chromium"
    if folder.exists():
        return folder / "files"
    folder.parent.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        script = str(ROOT / "scripts" / "fetch_debian.py")
        fetch = [sys.executable, script, "--with-needs", scratch]
        subprocess.run([*fetch, "chromium", "fonts-dejavu-core"], check=True, capture_output=True)
        files = Path(scratch) / "files"
        (files / "fonts.conf").write_text(_FONTS.format(files=folder / "files"))
        for name in ("lists", "cache"):
            shutil.rmtree(Path(scratch) / name)
        try:
            Path(scratch).rename(folder)
        except OSError:
            assert folder.exists()  # another session was faster
        else:
            Path(scratch).mkdir()  # for the clean-up to remove
    return folder / "files"
