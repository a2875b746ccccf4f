"""The module that `stepbase gen rpc` writes: its text, and that ruff, mypy and Python take it."""

import ast
import os
import random
import re
import string
import subprocess
import sys
from dataclasses import replace

import pytest
from tests.repo.tree import ROOT

from stepbase.scaffold.rpc_catalogue import Catalogue, Column, Parameter, SqlFunction, SqlType
from stepbase.scaffold.rpc_module import make_module
from stepbase.scaffold.rpc_settings import RpcSettings
from stepbase.scaffold.rpc_types import GenerateError

_INT = SqlType(1, "pg_catalog", "int4", "integer", "base")
_TYPES = {
    1: _INT,
    2: SqlType(2, "pg_catalog", "record", "record", "pseudo"),
    3: SqlType(3, "pg_catalog", "timestamptz", "timestamp with time zone", "base"),
    4: SqlType(4, "public", "kind", "kind", "enum", labels=("one", "another", "a third")),
    5: SqlType(5, "pg_catalog", "_int4", "integer[]", "array", of=1),
}


def text_of(catalogue: Catalogue, settings: RpcSettings) -> str:
    return make_module(catalogue, settings, {}).text


def block(text: str, name: str) -> str:
    """Return the text of one function or class."""
    [found] = re.findall(
        rf"^(?:def|class) {name}\b.*?(?=\n\n\n|\Z)", text, re.MULTILINE | re.DOTALL
    )
    return str(found).rstrip()


def function(name: str, *parameters: Parameter, **fields: object) -> SqlFunction:
    made = SqlFunction("public", name, f"public.{name}()", parameters, 1)
    return replace(made, **fields)  # type: ignore[arg-type]  # fields by name


def test_a_call_has_the_parameters_the_result_and_the_comment(
    catalogue: Catalogue, settings: RpcSettings
) -> None:
    text = text_of(catalogue, settings)

    assert (
        block(text, "split")
        == '''\
def split(*, p_text: str) -> RpcCall[SplitResult]:
    """Say "yes" """
    return RpcCall("shapes.split", {"p_text": p_text}, SplitResult)'''
    )
    assert (
        block(text, "nothing")
        == '''\
def nothing() -> RpcCall[None]:
    """Call the SQL function `shapes.nothing`."""
    return RpcCall("shapes.nothing", {}, None)'''
    )


def test_what_has_a_default_is_left_out_when_it_is_not_given(
    catalogue: Catalogue, settings: RpcSettings
) -> None:
    text = block(text_of(catalogue, settings), "defaults")

    assert text.splitlines()[0] == (
        "def defaults(*, a: int, b: str | None = None, c: int | None = None) -> RpcCall[str]:"
    )
    assert text.endswith("""
    args: dict[str, Any] = {"a": a}
    if b is not None:
        args["b"] = b
    if c is not None:
        args["c"] = c
    return RpcCall("shapes.defaults", args, str)""")


def test_a_comment_becomes_the_docstring_whatever_is_in_it(
    catalogue: Catalogue, settings: RpcSettings
) -> None:
    text = block(text_of(catalogue, settings), "defaults")

    [parsed] = ast.parse(text).body
    assert isinstance(parsed, ast.FunctionDef)
    assert (ast.get_docstring(parsed) or "").splitlines() == [
        "Join what is given.",
        "",
        "Left out, b is 'd', and \"c\" is null: a backslash \\ and ''' may stand here, and a line that is",
        "too long for a module of ninety-odd columns is broken.",
        "  * an item",
    ]


def test_names_that_python_keeps_for_itself_get_an_underscore(
    catalogue: Catalogue, settings: RpcSettings
) -> None:
    text = text_of(catalogue, settings)

    assert block(text, "class_").startswith(
        "def class_(*, from_: int, two_words: str, int_: int, RpcCall_: int) -> RpcCall[int]:"
    )
    assert '{"from": from_, "two words": two_words, "int": int_, "RpcCall": RpcCall_}' in text
    assert "args__: dict[str, Any]" in block(text, "args")
    assert block(text, "shapes_list").startswith(
        "def shapes_list(*, p: int) -> RpcCall[list[int]]:"
    )


def test_overloads_are_told_apart_by_their_arguments(
    catalogue: Catalogue, settings: RpcSettings
) -> None:
    text = text_of(catalogue, settings)

    assert block(text, "find__p_id").startswith("def find__p_id(*, p_id: int)")
    assert "p_name: str, p_fuzzy: bool | None = None" in block(text, "find__p_name")
    assert 'RpcCall("shapes.find", {}, str)' in block(text, "find")


def test_namesakes_of_two_schemas_are_told_apart_by_the_schema(
    catalogue: Catalogue, settings: RpcSettings
) -> None:
    text = text_of(catalogue, settings)

    assert 'RpcCall("more.twin", {}, int)' in block(text, "twin")
    assert 'RpcCall("shapes.twin", {}, int)' in block(text, "shapes_twin")


def test_overloads_that_no_call_tells_apart_are_refused(settings: RpcSettings) -> None:
    same = [
        function("f", Parameter("a", 1), signature="public.f(integer)"),
        function(
            "f", Parameter("a", 1), Parameter("b", 1, True), signature="public.f(integer,integer)"
        ),
    ]

    with pytest.raises(GenerateError, match=r"public.f\(integer\) and .* exclude = \[\"f\"\]"):
        make_module(Catalogue(tuple(same), _TYPES), settings, {})


def test_what_no_step_can_call_is_left_out_with_the_reason(
    catalogue: Catalogue, settings: RpcSettings
) -> None:
    made = make_module(catalogue, settings, {})

    assert made.left_out == {
        'shapes."a.dot"()': "a dot in its name would end the name of a schema",
        "shapes.several(integer[])": "it is variadic",
        "shapes.unnamed(integer)": "a parameter has no name",
        "shapes.polymorphic(anyelement)": "p is of the pseudo-type anyelement",
        "shapes.shapeless()": "it returns a record without named columns; write `returns table (…)`",
    }
    for name in ("several", "unnamed", "polymorphic", "shapeless", "of_a_trigger", "a_procedure"):
        assert f"def {name}(" not in made.text


def test_functions_can_be_excluded_and_their_results_given(
    catalogue: Catalogue, settings: RpcSettings
) -> None:
    mine = replace(
        settings,
        exclude=("echo *", "more.*"),
        returns={
            "split": "my.models:Split",
            "shapes.prices": "my.models:Price",
            "list": "set[int]",
        },
    )

    text = make_module(catalogue, mine, {"my": True}).text

    assert "echo" not in text and "more" not in text
    assert "\n\nfrom my.models import Price, Split\n" in text
    assert "RpcCall[Split]" in block(text, "split")
    assert "RpcCall[list[Price]]" in block(text, "prices")
    assert "RpcCall[set[int]]" in block(text, "shapes_list")
    assert "class PricesRow" not in text


def test_a_result_given_for_a_function_that_is_not_there_is_refused(
    catalogue: Catalogue, settings: RpcSettings
) -> None:
    with pytest.raises(GenerateError, match="names splitt: there is no such SQL function .* split"):
        make_module(catalogue, replace(settings, returns={"splitt": "int"}), {})


def test_an_empty_database_gives_a_module(settings: RpcSettings) -> None:
    text = text_of(Catalogue((), {}), settings)

    compile(text, "calls.py", "exec")


def ruff(text: str, width: int) -> str:
    """Return what ruff's formatter makes of a module."""
    config = f"line-length = {width}"
    done = subprocess.run(
        [sys.executable, "-m", "ruff", "format", "--isolated", "--config", config, "-"],
        input=text, capture_output=True, text=True, timeout=20,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("width", [72, 88, 100, 120])
def test_formatting_it_changes_nothing(
    catalogue: Catalogue, settings: RpcSettings, width: int
) -> None:
    text = text_of(catalogue, replace(settings, width=width))

    assert ruff(text, width) == text


_COMMENTS = [
    None, "a b", "  x\n\n y  ", '"', "a\\", "\n\n", "x " * 80, "a\n  b ", '"""', "a" * 120, '\\"', "%",
]  # fmt: skip


def any_functions(chance: random.Random) -> tuple[SqlFunction, ...]:
    """Return some functions with parameters, results and comments of chance."""

    def name() -> str:
        middle = chance.choices(string.ascii_lowercase + "_", k=chance.randint(1, 40))
        return f"a{''.join(middle)}z"

    made = []
    for _ in range(8):
        needed = chance.randint(0, 6)
        parameters = [
            Parameter(name(), chance.choice([1, 3, 4, 5]), position >= needed)
            for position in range(chance.randint(0, 6))
        ]
        columns = tuple(Column(name(), 1) for _ in range(chance.randint(0, 3)))
        made.append(
            function(
                name(),
                *parameters,
                returns=2 if columns else chance.choice([1, 3, 5]),
                returns_set=chance.random() < 0.5,
                columns=columns,
                comment=chance.choice(_COMMENTS),
            )
        )
    return tuple(made)


@pytest.mark.parametrize("seed", range(20))
def test_whatever_functions_there_are_formatting_changes_nothing(
    seed: int, settings: RpcSettings
) -> None:
    chance = random.Random(seed)
    width = chance.randint(80, 110)

    text = text_of(Catalogue(any_functions(chance), _TYPES), replace(settings, width=width))

    assert ruff(text, width) == text


def test_linters_and_type_checkers_find_nothing(
    catalogue: Catalogue, settings: RpcSettings
) -> None:
    settings.output.write_text(text_of(catalogue, settings))
    checks = [
        ["ruff", "check", "--isolated", "--line-length=100", "--select=E,F,I,B,UP,RUF,C90"],
        ["mypy", "--strict", "--config-file=", f"--cache-dir={ROOT / '.mypy_cache' / 'generated'}"],
    ]

    for check in checks:
        done = subprocess.run(
            [sys.executable, "-m", *check, str(settings.output)],
            cwd=ROOT, capture_output=True, text=True, timeout=100,
            env={**os.environ, "MYPYPATH": str(ROOT / "shared")},
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
