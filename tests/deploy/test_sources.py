"""What of a function folder gets into an image: no secret, nothing hidden, nothing from elsewhere."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from stepbase.deploy import sources
from stepbase.deploy.errors import DeployError
from stepbase.deploy.redact import Redactor

TESTS, SHARED = "tests", "shared"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The folder "shop" of a project, with a main.py."""
    found = tmp_path / "project" / "functions" / "shop"
    found.mkdir(parents=True)
    (found / "main.py").write_text("main = 1\n")
    return found


def read(folder: Path) -> sources.Found:
    return sources.read(folder.parents[1], folder)


def put(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("x")


def test_secrets_are_left_out_and_told(folder: Path) -> None:
    secret = (
        ".env",
        ".ENV.production",
        "production.env",
        "keys/Server.PEM",
        "keys/signing.key",
        "id_rsa",
        "service-account-shop.json",
        "credentials.json",
        "client_secret_1.json",
        ".npmrc",
    )
    put(folder, *secret, "environment.py", "keyboard.json", "data/keys.json")

    found = read(folder)

    assert found.files.keys() == {"main.py", "environment.py", "keyboard.json", "data/keys.json"}
    assert found.left_out == tuple(sorted(secret))


def test_what_is_hidden_or_made_by_tools_is_left_out(folder: Path) -> None:
    put(
        folder, ".git/config", ".venv/lib/a.py", "__pycache__/main.pyc", "old.pyc", f"{TESTS}/it.py"
    )
    put(folder, ".DS_Store", "node_modules/a/index.js", "a/.hidden/x", "a/b.txt")

    assert read(folder) == sources.Found({"main.py": b"main = 1\n", "a/b.txt": b"x"}, ())


def test_an_environment_of_python_is_left_out_whatever_its_name(folder: Path) -> None:
    put(folder, "my environment/pyvenv.cfg", "my environment/lib/big.py")

    found = read(folder)

    assert list(found.files) == ["main.py"] and found.left_out == ("my environment/",)


def test_a_link_to_a_file_of_the_project_is_the_file(folder: Path) -> None:
    put(folder.parents[1], f"{SHARED}/rates.json")
    (folder / "rates.json").symlink_to(f"../../{SHARED}/rates.json")

    assert read(folder).files["rates.json"] == b"x"


@pytest.mark.parametrize(
    ("to", "message"),
    [
        ("../../../outside.txt", "outside of the project"),
        ("/etc/hostname", "outside of the project"),
        ("../../.git/config", "a link to what is hidden"),
        ("../../shared", "a link to a folder"),
        ("../../shared/nothing", "a link to nothing"),
        ("round", "a link to nothing"),
    ],
)
def test_another_link_is_refused(folder: Path, to: str, message: str) -> None:
    put(folder.parents[2], "outside.txt")
    put(folder.parents[1], ".git/config", f"{SHARED}/rates.json")
    (folder / "round").symlink_to(to)

    with pytest.raises(DeployError, match=message) as caught:
        read(folder)
    assert "functions/shop/round" in str(caught.value)


def test_a_link_hides_no_secret(folder: Path) -> None:
    put(folder.parents[1], ".env", "prod.pem")
    (folder / "settings.txt").symlink_to("../../.env")
    (folder / "cert").symlink_to("../../prod.pem")

    found = read(folder)

    assert list(found.files) == ["main.py"] and found.left_out == ("cert", "settings.txt")


def test_a_folder_may_itself_be_a_link(folder: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    put(elsewhere, "main.py", "data.json")
    (elsewhere / "again.json").symlink_to("data.json")
    (folder.parent / "linked").symlink_to(elsewhere)

    assert read(folder.parent / "linked").files.keys() == {"main.py", "data.json", "again.json"}


def test_a_large_folder_is_refused_before_it_is_read(folder: Path) -> None:
    with open(folder / "model.bin", "wb") as file:
        file.truncate(64 * 1024**3)  # sparse: nobody could hold it

    with pytest.raises(DeployError, match="shop has more than 100 MiB: put data into Storage"):
        read(folder)


def test_names_may_be_of_any_language_and_must_be_text(folder: Path) -> None:
    put(folder, "größen.json", "価格 1.json")
    assert {"größen.json", "価格 1.json"} <= read(folder).files.keys()
    os.close(os.open(os.fsencode(folder) + b"/bad\xff.txt", os.O_CREAT))

    with pytest.raises(DeployError, match="its name is no UTF-8: rename it") as caught:
        read(folder)
    str(caught.value).encode()


def test_a_pipe_is_no_file(folder: Path) -> None:
    os.mkfifo(folder / "pipe")

    assert list(read(folder).files) == ["main.py"]


def test_a_file_that_cannot_be_read_is_named(folder: Path) -> None:
    """Asked for as somebody who may not."""
    (folder / "closed.txt").touch(0o000)
    for each in (folder, *folder.parents[:3]):
        each.chmod(0o755)
    ask = (
        "import os, pathlib; from stepbase.deploy import sources\n"
        "if os.getuid() == 0: os.setuid(65534)\n"
        f"folder = pathlib.Path({str(folder)!r})\n"
        "try: sources.read(folder.parents[1], folder)\n"
        "except sources.DeployError as error: print(error)\n"
    )

    done = subprocess.run([sys.executable, "-c", ask], capture_output=True, text=True)

    assert "cannot be read: Permission denied" in done.stdout, done.stderr


def test_secrets_are_taken_out_in_every_form() -> None:
    key = '-----BEGIN KEY-----\nline of "it" 1\nline of it 2\n-----END KEY-----\n'
    redacted = Redactor([key, "p@ss/w$rd", "p@ss/w$rd and more", "short"])
    printed = [
        key,
        "line 2: line of it 2",
        "https://u:p%40ss%2Fw%24rd@h",
        "p@ss/w$rd and more",
        'x: "line of \\"it\\" 1"',
        "a shorthand",
    ]

    shown = [redacted(each) for each in printed]

    assert shown[1:] == ["line 2: •••", "https://u:•••@h", "•••", 'x: "•••"', "a shorthand"]
    assert shown[0].strip() == "•••"
