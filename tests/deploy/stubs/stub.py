"""Stands for gcloud, docker and (where a test wants it quick) supabase: stub.py TOOL ARGUMENT…

Every call is appended to `calls.jsonl` in the folder STUB_STATE; what a call changes is kept there in files,
as the platform would keep it. STUB_KILL, a beginning of a command line, kills whoever called just before
(`-`) or after (`+`) that command has had its effect.
"""

import json
import os
import signal
import sys
from pathlib import Path

STATE = Path(os.environ.get("STUB_STATE", "/nowhere"))
VERSIONS = {("supabase", "--version"): "3.1.0", ("docker", "compose", "version"): "v2.40.0"}
"""What is asked before a deploy, without its variables; nothing is kept of it."""
SECRETIVE = ("INNGEST_", "SUPABASE_", "PGPASSWORD", "DATABASE_URL", "SHOP_")


def keep(name: str, text: str) -> None:
    """Write a file of the platform's state."""
    path = STATE / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def option(name: str, words: list[str]) -> str:
    """Return the value of `--name=value`."""
    return next(word.partition("=")[2] for word in words if word.startswith(f"--{name}="))


def gcloud(words: list[str]) -> int:
    """Secret Manager, and Cloud Run by source."""
    match words:
        case ["secrets", "describe", name, *_]:
            return 0 if (STATE / "secrets" / name).exists() else 1
        case ["secrets", "create", name, *_]:
            keep(f"secrets/{name}/created", "")
        case ["secrets", "versions", "access", "latest", *more]:
            versions = sorted((STATE / "secrets" / option("secret", more)).glob("v*"))
            if not versions:
                return 1
            sys.stdout.write(versions[-1].read_text())
        case ["secrets", "versions", "add", name, *_]:
            count = len(list((STATE / "secrets" / name).glob("v*")))
            keep(f"secrets/{name}/v{count + 1:03}", sys.stdin.read())
        case ["run", "deploy", name, *more]:
            bring(name, Path(option("source", more)))
    return 0


def docker(words: list[str]) -> int:
    """Images by tag, and Compose, whose services start what their images hold."""
    match words:
        case ["build", "--pull", "--tag", tag, source]:
            copy(Path(source), STATE / "images" / tag.replace("/", "_"))
        case ["compose", "--file", file, "up", *_]:
            keep("compose.yaml", Path(file).read_text())
            keep(
                "compose.env",
                json.dumps({k: v for k, v in os.environ.items() if k.startswith(SECRETIVE)}),
            )
            for line in Path(file).read_text().splitlines():
                if line.strip().startswith("image:"):
                    tag = json.loads(line.partition(":")[2])
                    name = tag.rsplit("/", 1)[-1].partition(":")[0]
                    bring(name, STATE / "images" / tag.replace("/", "_"))
    return 0


def supabase(words: list[str]) -> int:
    """Keeps what it is told, by command."""
    match words:
        case ["secrets", "set", *_]:
            keep("project.env", sys.stdin.read())
        case ["compute", "push", name, *_]:
            bring(name, Path("build") / name)
        case ["functions", "deploy", name, *_]:
            copy(Path(f"supabase/functions/{name}"), STATE / "edge" / name)
        case ["notebooks", "push", name, *_]:
            keep(f"notebooks/{name}", Path(f"supabase/notebooks/{name}.json").read_text())
        case ["db", "push", *_]:
            keep("migrations", "\n".join(sorted(os.listdir("supabase/migrations"))))
    return 0


def copy(source: Path, target: Path) -> None:
    """Replace a folder by another's files; shutil alone would take longer to load than this program runs."""
    for path in sorted(target.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    for path in source.rglob("*"):
        if path.is_file():
            (target / path.relative_to(source)).parent.mkdir(parents=True, exist_ok=True)
            (target / path.relative_to(source)).write_bytes(path.read_bytes())


def bring(name: str, source: Path) -> None:
    """Put a staged folder where the platform runs it."""
    copy(source, STATE / "running" / name)


def main() -> int:
    """Note the call, do what it says, and kill its caller if that is wanted."""
    tool, *words = sys.argv[1:]
    if (tool, *words) in VERSIONS:
        print(VERSIONS[(tool, *words)])
        return 0
    if words[1:] == ["--version"]:
        return 0
    if tool == "note":  # before the real program: note the call, and no more
        tool, *words = words
        note(tool, words)
        return 0
    line = " ".join([tool, *words])
    note(tool, words)
    fatal = os.environ.get("STUB_KILL", "")
    is_fatal = bool(fatal) and line.startswith(fatal[1:]) and not (STATE / "killed").exists()
    if is_fatal and fatal[0] == "-":
        return kill()
    code = {"gcloud": gcloud, "docker": docker, "supabase": supabase}[tool](words)
    return kill() if is_fatal else code


def note(tool: str, words: list[str]) -> None:
    """Append a call, with the names of the secrets in its environment."""
    given = sorted(name for name in os.environ if name.startswith(SECRETIVE))
    with open(STATE / "calls.jsonl", "a", encoding="utf-8") as file:
        file.write(json.dumps({"argv": [tool, *words], "given": given}) + "\n")


def kill() -> int:
    """Kill the deploy, once."""
    keep("killed", "")
    os.kill(os.getppid(), signal.SIGKILL)
    return 0


if __name__ == "__main__":
    sys.exit(main())
