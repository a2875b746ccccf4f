"""Kills what we started when we are gone, however we went.

A shell outside our process group reads our pipe: `+PID SIGNAL` and `-PID` lines while we live, end
of file when we die (even by SIGKILL). It then signals every process still on its list and removes
the folders it was given. Nothing is asked of the children, and a hung one dies too.
"""

import subprocess
from pathlib import Path

# A killed child stays a zombie where process 1 does not collect them: that counts as gone.
_SCRIPT = r"""
alive() {
  kill -0 "$1" 2>/dev/null || return 1
  read -r _ _ state _ 2>/dev/null < "/proc/$1/stat" || return 0
  [ "$state" != Z ]
}
pids=
folders=
while read -r verb what; do
  case $verb in
    +) pids="$pids $what" ;;
    -) kept=; for p in $pids; do [ "${p%%:*}" = "$what" ] || kept="$kept $p"; done; pids=$kept ;;
    folder) folders="$folders
$what" ;;
    done) exit 0 ;;
  esac
done
for p in $pids; do kill -"${p##*:}" "${p%%:*}" 2>/dev/null; done
for p in $pids; do
  n=0
  while alive "${p%%:*}" && [ $n -lt 50 ]; do sleep 0.1; n=$((n + 1)); done
  kill -KILL "${p%%:*}" 2>/dev/null
done
printf '%s\n' "$folders" | while read -r f; do [ -z "$f" ] || rm -rf -- "$f"; done
"""


class Watchdog:
    """One helper process that outlives this one long enough to clean up after it."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None

    def guard(self, pid: int, signal: str = "KILL") -> None:
        """Have `pid` killed by `signal` (a name such as "QUIT") if this process dies."""
        self._send(f"+ {pid}:{signal}")

    def release(self, pid: int) -> None:
        """Forget `pid`; call it as soon as the process was waited for."""
        self._send(f"- {pid}")

    def guard_folder(self, folder: Path) -> None:
        """Have `folder` removed, after the processes, if this process dies."""
        self._send(f"folder {folder}")

    def close(self) -> None:
        """End the helper without touching anything."""
        if self._process is None:
            return
        self._send("done")
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()
        self._process = None

    def _send(self, line: str) -> None:
        if self._process is None:
            self._process = subprocess.Popen(
                ["/bin/sh", "-c", _SCRIPT],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
                text=True,
            )
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()
