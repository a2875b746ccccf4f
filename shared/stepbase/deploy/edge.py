"""What Supabase's Edge Functions accept when they are deployed, and fail with afterwards."""

from collections.abc import Iterable
from pathlib import Path

from stepbase.deploy.problem import Problem
from stepbase.deploy.projectfile import FILE, ProjectFile

FOLDER = "supabase/functions"
MOST_BYTES = 5 * 1024 * 1024  # bundled by the API; the answer to more is a bare 500
MOST_FUNCTIONS = 100  # of a free project
_SCRIPTS = (".ts", ".js", ".mts", ".mjs", ".tsx", ".jsx")


def front_doors(root: Path) -> frozenset[str]:
    """Return the Edge Functions there are, by name."""
    return frozenset(path.parent.name for path in root.glob(f"{FOLDER}/*/index.ts"))


def problems(root: Path, file: ProjectFile, wanted: Iterable[str]) -> list[Problem]:
    """Return what is wrong with the front doors of the folders `wanted`, and with every declared function."""
    found = []
    for name, block in file.functions.items():
        entrypoint = str(block.get("entrypoint", "index.ts"))
        if not entrypoint.endswith(_SCRIPTS):
            found.append(
                Problem(
                    f"{FILE}, [functions.{name}]",
                    f"entrypoint {entrypoint!r}: Edge Functions run TypeScript; Supabase accepts the "
                    "upload and cannot run it",
                    "deploy the folder to Compute, Cloud Run or Docker; --front-door puts an Edge Function "
                    "before it",
                )
            )
    there = front_doors(root)
    if len(there) > MOST_FUNCTIONS:
        found.append(
            Problem(
                FOLDER,
                f"{len(there)} Edge Functions; a free project has {MOST_FUNCTIONS}",
                "a larger plan, or fewer front doors",
                is_fatal=False,
            )
        )
    for name in wanted:
        found += _door_problems(root, file, name, is_there=name in there)
    return found


def _door_problems(
    root: Path, file: ProjectFile, name: str, *, is_there: bool
) -> Iterable[Problem]:
    if not is_there:
        yield Problem(
            f"{FOLDER}/{name}", "there is no index.ts", "stepbase deploy --write-config writes it"
        )
        return
    if file.functions.get(name, {}).get("verify_jwt", True) is not False:
        yield Problem(
            f"{FILE}, [functions.{name}]",
            "verify_jwt is not false: Supabase would ask the server of runs for a user's token",
            "stepbase deploy --write-config adds verify_jwt = false; the signature is checked in Python",
        )
    folders = [root / FOLDER / name, root / FOLDER / "_shared"]
    size = sum(
        each.stat().st_size for folder in folders for each in folder.rglob("*") if each.is_file()
    )
    if size > MOST_BYTES:
        yield Problem(
            f"{FOLDER}/{name}",
            f"{size / 1024**2:.1f} MiB; bundled by the API, an Edge Function may have "
            f"{MOST_BYTES // 1024**2} MiB",
            "take out what is no code",
        )
