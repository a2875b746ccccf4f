"""Each SQL type as the annotation of an argument and as what a result is read into."""

import pytest

from stepbase.scaffold.rpc_catalogue import Catalogue, SqlFunction
from stepbase.scaffold.rpc_types import GenerateError, Types, python_name

SAME = {
    "bool": "bool",
    "int2": "int",
    "int4": "int",
    "int8": "int",
    "oid": "int",
    "float4": "float",
    "float8": "float",
    "numeric": "Decimal",
    "numeric(10,2)": "Decimal",
    "text": "str",
    "varchar(9)": "str",
    "char": "str",
    "name": "str",
    "uuid": "UUID",
    "date": "date",
    "time": "time",
    "timetz": "time",
    "timestamp": "datetime",
    "timestamptz": "datetime",
    "json": "Any",
    "jsonb": "Any",
    "bytea": "str",
    "inet": "str",
    "int4range": "str",
    "point": "str",
    "money": "str",
    "bit": "str",
    "xml": "str",
    "tsvector": "str",
    "text[]": "list[str]",
    "numeric[]": "list[Decimal]",
    "uuid[]": "list[UUID]",
    "jsonb[]": "list[Any]",
    "shapes.mood": "Mood",
    "shapes.mood[]": "list[Mood]",
    "shapes.amount": "Amount",
    "shapes.amount[]": "list[Amount]",
    "shapes.positive": "int",
    "shapes.positive[]": "list[int]",
}


def find(catalogue: Catalogue, name: str) -> SqlFunction:
    [found] = [each for each in catalogue.functions if each.name == name]
    return found


@pytest.mark.parametrize(("sql", "python"), SAME.items())
def test_a_type_is_the_same_on_its_way_in_and_out(
    catalogue: Catalogue, sql: str, python: str
) -> None:
    echo, types = find(catalogue, f"echo {sql.replace('.', ' ')}"), Types(catalogue.types)

    assert types.argument(echo.parameters[0].type) == python
    assert types.value(echo.returns) == python


def test_an_interval_goes_in_as_a_timedelta_and_comes_out_as_text(catalogue: Catalogue) -> None:
    """A month has no length, so what PostgreSQL writes is not always a timedelta."""
    types = Types(catalogue.types)
    one, several = find(catalogue, "echo interval"), find(catalogue, "echo interval[]")

    assert types.argument(one.parameters[0].type) == "timedelta"
    assert types.argument(several.parameters[0].type) == "list[timedelta]"
    assert (types.value(one.returns), types.value(several.returns)) == ("str", "list[str]")


def test_what_annotations_need_is_remembered(catalogue: Catalogue) -> None:
    types = Types(catalogue.types)
    for name in ("echo uuid", "echo numeric", "echo shapes mood", "echo shapes amount"):
        types.value(find(catalogue, name).returns)

    assert types.imports == {
        "decimal": {"Decimal"},
        "pydantic": {"BaseModel"},
        "typing": {"Literal"},
        "uuid": {"UUID"},
    }
    assert types.enums == {"Mood": ("glad", "sad", 'it\'s "so-so"')}
    assert [field.annotation for field in types.models["Amount"].fields] == ["int", "str"]


@pytest.mark.parametrize(
    ("name", "row"),
    [
        ("nothing", "None"),
        ("many_numbers", "int"),
        ("one_item", "ItemsRow"),
        ("all_items", "ItemsRow"),
        ("prices", "PricesRow"),
        ("one_column", "OneColumnRow"),
        ("split", "SplitResult"),
        ("grow", "GrowResult"),
    ],
)
def test_a_result_with_names_is_a_model(catalogue: Catalogue, name: str, row: str) -> None:
    function = next(f for f in catalogue.functions if (f.schema, f.name) == ("shapes", name))

    assert Types(catalogue.types).row(function) == row


def test_only_a_tables_not_null_is_believed(catalogue: Catalogue) -> None:
    types = Types(catalogue.types)
    types.row(find(catalogue, "all_items"))
    types.row(find(catalogue, "prices"))

    items = {field.name: field.is_required for field in types.models["ItemsRow"].fields}
    assert items == {"id": True, "name": True, "price": False, "tags": True, "feeling": False}
    assert not any(field.is_required for field in types.models["PricesRow"].fields)


def test_columns_that_cannot_be_names_get_an_alias(catalogue: Catalogue) -> None:
    types = Types(catalogue.types)
    types.row(find(catalogue, "all_odd"))

    names = {field.column: field.name for field in types.models["OddRow"].fields}
    assert names == {
        "class": "class_",
        "two words": "two_words",
        "_private": "column_private",
        "json": "json_",
        "model_name": "column_model_name",
    }


@pytest.mark.parametrize(
    ("given", "taken", "name"),
    [
        ("p_id", set(), "p_id"),
        ("from", set(), "from_"),
        ("two words", set(), "two_words"),
        ("2nd", set(), "_2nd"),
        ("", set(), "_"),
        ("int", {"int", "int_"}, "int__"),
        ("größe", set(), "größe"),
    ],
)
def test_names_are_such_as_python_allows(given: str, taken: set[str], name: str) -> None:
    assert python_name(given, taken.__contains__) == name


def test_a_type_of_pyproject_is_imported(catalogue: Catalogue) -> None:
    types = Types(catalogue.types)

    assert (
        types.expression("dict[str, rewards.award:Posting] | None") == "dict[str, Posting] | None"
    )
    assert types.imports == {"rewards.award": {"Posting"}}


def test_two_types_of_one_name_are_told_apart(catalogue: Catalogue) -> None:
    types = Types(catalogue.types)

    assert types._own("Thing", "a.thing") == "Thing"
    assert types._own("Thing", "b.thing") == "BThing"
    assert types._own("Thing", "a.thing") == "Thing"
    assert types._own("List", "a.list") == "List"
    assert types._own("Any", "a.any") == "AnyType"
    with pytest.raises(
        GenerateError, match=r"b.other and b.thing would both become the class BThing"
    ):
        types._own("Thing", "b.other")
