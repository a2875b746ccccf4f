"""`.env` files: read and written by us, and read by the real Supabase CLI, to the same values."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support import supabase_cli
from tests.support.management_api import REF, TOKEN, management_api

from stepbase.deploy import dotenv, settings
from stepbase.deploy.errors import DeployError

_names = st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,20}", fullmatch=True)
_values = st.text(
    st.characters(blacklist_categories=["Cs", "Cc"], whitelist_characters="\n\t")
).filter(dotenv.is_writable)


@given(st.dictionaries(_names, _values))
def test_what_is_written_is_read(variables: dict[str, str]) -> None:
    assert dotenv.parse(dotenv.write(variables), "x") == variables


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("A=b", "b"),
        ("export A = b  # why", "b"),
        ("A='b # c'", "b # c"),
        ('A="b\\nc" # d', "b\nc"),
        ("A=`b'c`", "b'c"),
        ("# A=x\n\n  A=$B\n", "$B"),
        ("A=\nB=1", ""),
        ("A='one\ntwo'\r\n", "one\ntwo"),
    ],
)
def test_forms(text: str, value: str) -> None:
    assert dotenv.parse(text, "x")["A"] == value


def test_a_bad_line_is_named_without_its_value() -> None:
    with pytest.raises(DeployError, match=r"^\.env:2: expected NAME=value") as caught:
        dotenv.parse("A=1\nsb_secret_topsecret\n", ".env")

    assert "topsecret" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("A=1\nB=top#secret\n", "x:2: B has a # in it: put the value in single quotes"),
        ("B='top'secret", "x:1: B: the quote is not closed"),
        ('\n\nB="topsecret\n', "x:3: B: the quote is not closed"),
        ("B=`topsecret", "x:1: B: the quote is not closed"),
    ],
)
def test_a_value_that_readers_disagree_on_is_refused(text: str, message: str) -> None:
    with pytest.raises(DeployError) as caught:
        dotenv.parse(text, "x")

    assert message in str(caught.value) and "secret" not in str(caught.value)


@pytest.mark.parametrize("text", ["A=#b", "A= # b\n", "A=\t#b"])
def test_a_value_may_be_a_comment(text: str) -> None:
    assert dotenv.parse(text, "x") == {"A": ""}


SHARED = [
    ("A=`b\nc`", "A: the Supabase CLI reads this file too"),
    ("A='b\\'\nC=d", "A: the Supabase CLI reads this file too"),
    ('A="b\\\\"\nC=d', "A: the Supabase CLI reads this file too"),
    ("A='b\nc # d=\n\"e'\nC=d", None),
    ("A=`b'c`\nC=d", None),
    ('A="b\\"c"\nC=d', None),
    ("export A = b  # c\n# d\n\nC=\n", None),
    ("A=b\\\nC='$x ${y} $(z)'", None),
]
"""Files that both read, and what we say of those that the CLI does not."""


@pytest.mark.parametrize(("text", "message"), SHARED)
def test_what_we_take_the_real_cli_takes_too(
    tmp_path: Path, text: str, message: str | None
) -> None:
    """It reads the project's .env by itself, whatever it is asked to do."""
    (tmp_path / ".env").write_text(text)
    (tmp_path / "supabase").mkdir()
    (tmp_path / "supabase" / "config.toml").write_text('project_id = "shop"\n')

    with management_api() as api:
        profile = str(api.write_profile(tmp_path))
        done = supabase_cli.run(
            "secrets", "set", "SHOP=1", f"--remote={REF}", "--yes",
            cwd=tmp_path,
            environment={"SUPABASE_PROFILE": profile, "SUPABASE_ACCESS_TOKEN": TOKEN},
        )  # fmt: skip

    if message is None:
        assert done.returncode == 0, done.stdout + done.stderr
        settings.read(tmp_path, "", {})
    else:
        assert "failed to parse environment file: .env" in done.stdout + done.stderr
        with pytest.raises(DeployError, match=message):
            settings.read(tmp_path, "", {})


def test_the_real_cli_takes_a_token_from_the_file(tmp_path: Path) -> None:
    """Which is why one environment's deploy must name its own."""
    other = "sbp_" + "b" * 40
    (tmp_path / ".env").write_text(f"SUPABASE_ACCESS_TOKEN={other}\n")
    (tmp_path / "supabase").mkdir()
    (tmp_path / "supabase" / "config.toml").write_text('project_id = "shop"\n')
    sent = []
    with management_api() as api:
        profile = str(api.write_profile(tmp_path))
        api.on_request = lambda request: sent.append(request.headers.get("authorization"))
        for named in ({}, {"SUPABASE_ACCESS_TOKEN": TOKEN}):
            supabase_cli.run(
                "secrets", "set", "SHOP=1", f"--remote={REF}", "--yes",
                cwd=tmp_path,
                environment={"SUPABASE_PROFILE": profile, **named},
            )  # fmt: skip

    assert set(sent) == {f"Bearer {other}", f"Bearer {TOKEN}"}


def test_a_file_of_windows_is_read(tmp_path: Path) -> None:
    text = "\ufeffKEY=a$b\r\nPEM='-----BEGIN\r\nabc\r\n-----END'\r\nLAST=c"
    (tmp_path / ".env").write_bytes(text.encode())

    found = settings.read(tmp_path, "", {})

    assert found.variables == {"KEY": "a$b", "PEM": "-----BEGIN\nabc\n-----END", "LAST": "c"}


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / ".env").write_bytes(b"A=\xff\xfe")
    (tmp_path / ".env.folder").mkdir()

    with pytest.raises(DeployError, match="save it as UTF-8"):
        settings.read(tmp_path, "", {})
    with pytest.raises(DeployError, match=r"\.env\.folder cannot be read"):
        settings.read(tmp_path, "folder", {})


def test_the_shell_goes_first_and_that_is_known(tmp_path: Path) -> None:
    (tmp_path / ".env.staging").write_text("DATABASE_URL=staging\nSHOP=1\nEMPTY=\n")

    found = settings.read(
        tmp_path, "staging", {"DATABASE_URL": "production", "SHOP": "1", "EMPTY": "x"}
    )

    assert found.variables["DATABASE_URL"] == "production"
    assert found.overridden == {"DATABASE_URL"}


def test_the_real_cli_reads_what_we_write(tmp_path: Path) -> None:
    values = {
        "PLAIN": "abc",
        "DOLLAR": "a$b ${c}",
        "HASH": "a # b",
        "BACKSLASH": r"a\nb\\",
        "DOUBLE": 'say "x"',
        "SINGLE": "it's",
        "LINES": "-----BEGIN\nabc\n-----END",
        "LINES_SINGLE": "it's\ntwo lines",
        "SPACES": "  a  ",
        "EQUALS": "a=b==",
    }
    file = tmp_path / "secrets.env"
    file.write_text(dotenv.write(values))
    (tmp_path / "supabase").mkdir()
    (tmp_path / "supabase" / "config.toml").write_text('project_id = "shop"\n')
    with management_api() as api:
        profile = str(api.write_profile(tmp_path))
        done = supabase_cli.run(
            "secrets", "set", f"--env-file={file}", f"--remote={REF}", "--yes",
            cwd=tmp_path,
            environment={"SUPABASE_PROFILE": profile, "SUPABASE_ACCESS_TOKEN": TOKEN},
        )  # fmt: skip

        assert done.returncode == 0, done.stderr
        assert api.secrets == values


def test_an_environment_takes_nothing_from_another(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("INNGEST_SIGNING_KEY=production\nSHOP=1\n")
    (tmp_path / ".env.staging").write_text("SHOP=2\n")

    found = settings.read(
        tmp_path, "staging", {"INNGEST_EVENT_KEY": "shell", "EDITOR": "vi", "SHOP": "3"}
    )

    assert dict(found.variables) == {"SHOP": "3", "INNGEST_EVENT_KEY": "shell"}
    assert found.functions_get == {"SHOP": "3", "INNGEST_EVENT_KEY": "shell"}
    assert "shell" not in repr(found)


@pytest.mark.parametrize(
    ("variables", "ref"),
    [
        ({"SUPABASE_PROJECT_REF": "a" * 20}, "a" * 20),
        ({"SUPABASE_URL": f"https://{'b' * 20}.supabase.co"}, "b" * 20),
        ({"SUPABASE_URL": "https://db.example.com"}, "c" * 20),
    ],
)
def test_the_project_is_found(tmp_path: Path, variables: dict[str, str], ref: str) -> None:
    (tmp_path / "supabase" / ".temp").mkdir(parents=True)
    (tmp_path / "supabase" / ".temp" / "project-ref").write_text("c" * 20 + "\n")

    assert settings.read(tmp_path, "", variables).project_ref == ref


def test_only_the_default_file_is_read_by_the_cli(tmp_path: Path) -> None:
    for name in (".env", ".env.staging"):
        (tmp_path / name).write_text("SHOP_KEY=`one\ntwo`\nSHOP_DISK='C:\\'\n")

    found = settings.read(tmp_path, "staging", {})

    assert dict(found.variables) == {"SHOP_KEY": "one\ntwo", "SHOP_DISK": "C:\\"}
    with pytest.raises(DeployError, match="the Supabase CLI reads this file too"):
        settings.read(tmp_path, "", {})


def test_an_environment_does_not_get_the_linked_project(tmp_path: Path) -> None:
    """`supabase link` leaves one project, which need not be that of each environment."""
    (tmp_path / "supabase" / ".temp").mkdir(parents=True)
    (tmp_path / "supabase" / ".temp" / "project-ref").write_text("c" * 20 + "\n")

    assert settings.read(tmp_path, "staging", {}).project_ref is None
    named = {"SUPABASE_PROJECT_REF": "a" * 20}
    assert settings.read(tmp_path, "staging", named).project_ref == "a" * 20


def test_the_password_is_taken_out_of_the_url(tmp_path: Path) -> None:
    found = settings.read(
        tmp_path, "", {"DATABASE_URL": "postgresql://u:p%40s%2Fs@h:5432/d?sslmode=require"}
    )
    assert found.database == ("postgresql://u@h:5432/d?sslmode=require", "p@s/s")

    apart = settings.read(
        tmp_path, "", {"DATABASE_URL": "postgresql://u@h/d", "SUPABASE_DB_PASSWORD": "pw"}
    )
    assert apart.database == ("postgresql://u@h/d", "pw")


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://u:top#secret@h:5432/d",
        "postgresql://u:top/secret@h:5432/d",
        "postgresql://u:1/secret@h:5432/d",
        "postgresql://u:1?secret@h:5432/d",
        "postgresql://u:[secret@h:5432/d",
        "postgresql://u:secret@h:port/d",
        "postgresql://u:\u2100secret@h/d",
        "host=h user=u password=secret",
        "mysql://u:secret@h/d",
    ],
)
def test_a_url_whose_password_cannot_be_found_is_not_given_on(tmp_path: Path, url: str) -> None:
    assert settings.read(tmp_path, "", {"DATABASE_URL": url}).database is None


def test_a_password_among_the_options_is_taken_out(tmp_path: Path) -> None:
    url = "postgresql://u@h/d?sslmode=require&password=p%40s&application_name=a%20b"

    found = settings.read(tmp_path, "", {"DATABASE_URL": url})

    assert found.database == (
        "postgresql://u@h/d?sslmode=require&application_name=a%20b",
        "p@s",
    )


@pytest.mark.parametrize("name", ["../x", "Prod", "a b", "staging-", "a" * 32])
def test_names_of_environments_are_checked(tmp_path: Path, name: str) -> None:
    with pytest.raises(DeployError, match="--env"):
        settings.read(tmp_path, name, {})
