"""The function host: folders side by side, broken ones, reload."""

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import httpx
import pytest
from tests.support.sdk_calls import call_body

from stepbase.hosts import collector
from stepbase.local import folders, host
from stepbase.local.errors import HostError, PortTakenError
from stepbase.local.serving import listen
from stepbase.log import TextFormatter
from stepbase.supabase import client

MAIN = """
from stepbase import App, serve
from helper import NAME

app = App(NAME)

@app.function("hello", on="x/hello")
async def hello() -> str:
    return NAME

main = serve(app)
"""


def write_folder(root: Path, name: str, main: str = MAIN, **files: str) -> Path:
    folder = root / name
    folder.mkdir(parents=True)
    (folder / "main.py").write_text(main)
    (folder / "helper.py").write_text(f"NAME = {name!r}\n")
    for stem, text in files.items():
        (folder / f"{stem}.py").write_text(text)
    return folder


@pytest.fixture(autouse=True)
def _own_modules(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Give back sys.path and sys.modules as they were; the folders' apps run in dev mode."""
    monkeypatch.setenv("INNGEST_DEV", "1")
    monkeypatch.setattr(sys, "path", list(sys.path))
    known = set(sys.modules)
    yield
    for name in set(sys.modules) - known:
        if name == "helper" or name.startswith(("_function_folder_", "shop")):
            del sys.modules[name]


async def get(application: host.Host, path: str) -> httpx.Response:
    transport = httpx.ASGITransport(application)
    async with httpx.AsyncClient(transport=transport, base_url="http://host") as client:
        return await client.get(path)


async def test_two_folders_with_modules_of_one_name_do_not_clash(tmp_path: Path) -> None:
    write_folder(tmp_path, "first")
    write_folder(tmp_path, "second")

    application = host.load(tmp_path, tolerant=False)

    assert application.names == ["first", "second"]
    for name in application.names:
        answer = await get(application, f"/{name}/api/inngest")
        assert (answer.status_code, answer.json()["function_count"]) == (200, 1)
    loaded = [folders.load(tmp_path / name).target for name in ("first", "second")]
    assert [main.app.id for main in loaded] == ["first", "second"]  # type: ignore[attr-defined]  # a loaded target


async def test_classes_of_a_folder_keep_their_module(tmp_path: Path) -> None:
    main = MAIN + "from dataclasses import dataclass\n\n@dataclass\nclass Thing:\n    x: 'int'\n"
    write_folder(tmp_path, "typed", main)

    folder = folders.load(tmp_path / "typed")

    module = sys.modules["_function_folder_typed"]
    assert folder.target is module.main
    assert module.Thing.__module__ == module.__name__


async def test_what_is_not_there_says_what_is(tmp_path: Path) -> None:
    write_folder(tmp_path, "first")

    application = host.load(tmp_path, tolerant=False)

    for path in ("/", "/nope/api/inngest", "/first", "/first/api/inngest/x"):
        answer = await get(application, path)
        assert answer.status_code == 404
        assert answer.json()["served"] == ["/first/api/inngest"]
    assert (await get(application, "/health")).json() == {"status": "ok"}


async def test_a_broken_folder_answers_why_and_leaves_the_others_alone(tmp_path: Path) -> None:
    write_folder(tmp_path, "broken", "import nothing_of_that_name\n")
    write_folder(tmp_path, "good")

    application = host.load(tmp_path, tolerant=True)

    broken = await get(application, "/broken/api/inngest")
    assert broken.status_code == 503
    assert "nothing_of_that_name" in broken.json()["error"]
    assert (await get(application, "/good/api/inngest")).status_code == 200


PLAIN = """
from flask import abort

def main(request):
    if request.path == "/gone":
        abort(410)
    said = [request.method, request.script_root, request.path, request.args.get("q")]
    return {"said": said, "body": request.get_data(as_text=True)}, 201, {"x-own": "1"}
"""
COROUTINE = """
async def main(request):
    text = (await request.body()).decode()
    return {"said": [request.method, request.url.path, request.query_params.get("q")], "body": text}, 201
"""


async def ask(application: host.Host, method: str, path: str, **more: Any) -> httpx.Response:
    transport = httpx.ASGITransport(application)
    async with httpx.AsyncClient(transport=transport, base_url="http://host") as client:
        return await client.request(method, path, **more)


async def test_a_folder_without_an_app_answers_everything_under_its_name(tmp_path: Path) -> None:
    write_folder(tmp_path, "plain", PLAIN)
    write_folder(tmp_path, "first")

    application = host.load(tmp_path, tolerant=False)

    assert (application.names, application.others) == (["first"], ["plain"])
    for path, inner in (("/plain", "/"), ("/plain/", "/"), ("/plain/a/b%20c", "/a/b c")):
        answer = await ask(application, "POST", f"{path}?q=ä", content="hello")
        assert (answer.status_code, answer.headers["x-own"]) == (201, "1")
        assert answer.json() == {"said": ["POST", "/plain", inner, "ä"], "body": "hello"}
    assert (await ask(application, "GET", "/plain/gone")).status_code == 410
    assert (await ask(application, "GET", "/plainer")).json()["served"] == [
        "/first/api/inngest",
        "/plain/",
    ]


async def test_a_coroutine_function_gets_the_other_kind_of_request(tmp_path: Path) -> None:
    write_folder(tmp_path, "plain", COROUTINE)
    application = host.load(tmp_path, tolerant=False)

    answer = await ask(application, "PUT", "/plain/x?q=1", content="hello")

    assert answer.status_code == 201
    assert answer.json() == {"said": ["PUT", "/plain/x", "1"], "body": "hello"}


@pytest.mark.parametrize(
    ("returned", "status", "body"),
    [("'text'", 200, "text"), ("None", 500, "No response returned"), ("('no', 404)", 404, "no")],
)
async def test_what_a_coroutine_function_returns_is_answered(
    tmp_path: Path, returned: str, status: int, body: str
) -> None:
    write_folder(tmp_path, "plain", f"async def main(request):\n    return {returned}\n")

    answer = await get(host.load(tmp_path, tolerant=False), "/plain/")

    assert (answer.status_code, answer.text) == (status, body)


async def test_what_calls_have_kept_open_is_closed_at_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_folder(tmp_path, "first")
    monkeypatch.setenv("SUPABASE_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("SUPABASE_SECRET_KEY", "sb_secret_test")
    application = host.load(tmp_path, tolerant=False)
    kept = client.async_client()
    said: list[str] = []
    asked = iter(["lifespan.startup", "lifespan.shutdown"])

    async def receive() -> dict[str, str]:
        return {"type": next(asked)}

    async def send(message: Any) -> None:
        said.append(message["type"])

    await application({"type": "lifespan"}, receive, send)

    assert said == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
    assert kept.options.httpx_client is not None and kept.options.httpx_client.is_closed


@pytest.mark.parametrize(
    ("main", "message"),
    [
        ("1 / 0\n", "ZeroDivisionError"),
        ("import sys\nsys.exit(3)\n", "SystemExit"),
        ("def (\n", "SyntaxError"),
        ("app = 1\n", "has no `main`"),
        ("def main(): pass\nmain.app = 1\n", "not a stepbase App"),
        ("main = 7\n", "`main` is 7, not a function"),
    ],
)
def test_a_folder_that_cannot_be_served_is_refused(tmp_path: Path, main: str, message: str) -> None:
    write_folder(tmp_path, "bad", main)

    with pytest.raises(HostError, match=message):
        host.load(tmp_path, tolerant=False)


def test_an_empty_root_is_refused(tmp_path: Path) -> None:
    with pytest.raises(HostError, match=r"main\.py"):
        host.load(tmp_path, tolerant=True)


def test_listen_names_port_and_option() -> None:
    with listen("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(PortTakenError, match=rf"port {port} .* --engine-port"):
            listen("127.0.0.1", port, "--engine-port")


@contextmanager
def running_host(root: Path, *options: str) -> Iterator[tuple[subprocess.Popen[str], IO[str]]]:
    command = "from stepbase.cli.main import main; main()"
    process = subprocess.Popen(
        [sys.executable, "-P", "-c", command, "host", str(root), "--port", "0", *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    with process:
        assert process.stdout is not None
        try:
            yield process, process.stdout
        finally:
            process.kill()


def test_the_collector_is_told_that_the_process_serves_functions(tmp_path: Path) -> None:
    asks = MAIN.replace(
        "return NAME", "import gc; return [gc.get_threshold()[0], gc.get_freeze_count()]"
    )
    write_folder(tmp_path, "told", asks.replace("-> str", "-> list[int]"))
    with running_host(tmp_path) as (_, lines):
        port = json.loads(lines.readline())["port"]
        url = f"http://127.0.0.1:{port}/told/api/inngest?fnId=told-hello&stepId=step"
        threshold, frozen = httpx.post(url, content=call_body()).json()

    assert threshold == collector.YOUNG
    assert frozen > 10_000


def test_a_changed_file_brings_new_code_on_the_same_port(tmp_path: Path) -> None:
    folder = write_folder(tmp_path, "changing")
    with running_host(tmp_path, "--reload") as (process, lines):
        first = json.loads(lines.readline())
        url = f"http://127.0.0.1:{first['port']}/changing/api/inngest"
        assert httpx.get(url).json()["function_count"] == 1

        more = MAIN.replace("main = ", "@app.function('two', on='y')\ndef two(): ...\n\nmain = ")
        (folder / "main.py").write_text(more)
        second = json.loads(lines.readline())
        assert second == first
        assert httpx.get(url).json()["function_count"] == 2

        (folder / "helper.py").write_text("NAME = (\n")
        assert json.loads(lines.readline())["apps"] == []
        assert "SyntaxError" in httpx.get(url).json()["error"]

        (folder / "helper.py").write_text("NAME = 'changing'\n")
        assert json.loads(lines.readline()) == first
        assert process.poll() is None

        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == -signal.SIGTERM


def test_without_reload_a_broken_folder_ends_the_host(tmp_path: Path) -> None:
    write_folder(tmp_path, "broken", "1 / 0\n")

    with running_host(tmp_path) as (process, lines):
        assert lines.read() == ""
        assert process.wait(10) == 1


APP = """
from stepbase import App, serve

app = App("{id}")

@app.function("hello", on="x/hello")
async def hello() -> str:
    return "hello"

"""
FOREIGN = (
    "from stepbase import App, serve\nfrom lent import lent\napp = App('own')\nmain = serve(app)\n"
)

BROKEN = {
    "the app itself": ("main = app\n", "`main` is the app itself: write `main = serve(app)`"),
    "no function": ("main = 'hello'\n", "`main` is 'hello', not a function of a request"),
    "nothing": ("", "has no `main`: end it with `main = serve(app)`"),
    "another app's functions": (
        "other = App('other')\nmain = serve(other)\n",
        '`main` serves the app "other", so the functions of "shop" (hello) would never run',
    ),
    "no app's": ("def main(request): ...\n", '`main` does not say that it serves the app "shop"'),
    "around serve": (
        "inner = serve(app)\ndef main(request):\n    return inner(request)\n",
        "`main.app = app`",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
async def test_a_folder_that_would_serve_nothing_says_what_to_write(
    tmp_path: Path, name: str
) -> None:
    end, says = BROKEN[name]
    write_folder(tmp_path, "shop", APP.format(id="shop") + end)
    write_folder(tmp_path, "good")

    application = host.load(tmp_path, tolerant=True)

    answer = await get(application, "/shop/api/inngest")
    assert (answer.status_code, application.names) == (503, ["good"])
    assert says in answer.json()["error"]


def test_a_main_around_serve_that_names_its_app_is_served(tmp_path: Path) -> None:
    around = "inner = serve(app)\ndef main(request):\n    return inner(request)\nmain.app = app\n"
    write_folder(tmp_path, "shop", APP.format(id="shop") + around)

    application = host.load(tmp_path, tolerant=False)

    assert (application.names, application.others) == (["shop"], [])


async def test_an_app_that_another_module_lends_is_no_mistake(tmp_path: Path) -> None:
    lent = APP.format(id="lent") + "lent = app\n"
    write_folder(tmp_path, "own", FOREIGN, lent=lent)

    assert host.load(tmp_path, tolerant=False).names == ["own"]


async def test_two_folders_with_one_app_id_are_told_apart(tmp_path: Path) -> None:
    for name in ("first", "second"):
        write_folder(tmp_path, name, APP.format(id="shop") + "main = serve(app)\n")

    application = host.load(tmp_path, tolerant=True)

    assert application.names == ["first"]
    said = (await get(application, "/second/api/inngest")).json()["error"]
    assert 'the folder first has an app "shop" too' in said
    with pytest.raises(HostError, match="give one of them another id"):
        host.load(tmp_path, tolerant=False)


async def test_the_log_shows_the_folder_s_own_lines_alone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_folder(tmp_path, "raises", "from helper import nothing_of_that_name\n")
    write_folder(tmp_path, "typo", "def (\n")
    write_folder(tmp_path, "empty", "")

    host.load(tmp_path, tolerant=True)

    empty, raises, typo = caplog.records
    formatter = TextFormatter()
    assert formatter.format(raises).count("File ") == 1
    assert 'raises/main.py", line 1' in formatter.format(raises)
    assert 'typo/main.py", line 1' in formatter.format(typo)
    assert "folders.py" not in formatter.format(typo) + formatter.format(empty)
    assert "reason=" in formatter.format(empty)


def test_what_lies_in_shared_can_be_imported_by_every_folder(tmp_path: Path) -> None:
    """As where it is deployed: in a project that is not a clone nothing else puts it on the path."""
    (tmp_path / "shared" / "shop").mkdir(parents=True)
    (tmp_path / "shared" / "shop" / "names.py").write_text("NAME = 'first'\n")
    for name in ("one", "other"):
        write_folder(tmp_path / "functions", name, MAIN.replace("helper", "shop.names"))

    loaded = [folders.load(tmp_path / "functions" / name) for name in ("one", "other")]

    assert [getattr(each.app, "id", None) for each in loaded] == ["first", "first"]
