"""CEL in the lab: evaluated by the engine's library, which is loaded when an expression needs it."""

from collections.abc import Mapping

_MISSING = (
    "the expression {source!r} needs the engine's CEL library: "
    "pip install 'stepbase[testing]' where the tests run"
)


def holds(source: str, roots: Mapping[str, object]) -> bool:
    """Evaluate an expression; what gives no boolean is false.

    Raises:
        ModuleNotFoundError: If the library is not installed; the message says what to install.
    """
    if source.strip() == "true":
        return True
    try:
        from stepbase.engine import expr
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(_MISSING.format(source=source)) from error
    return expr.holds(source, roots)


def check(source: str) -> None:
    """Compile an expression.

    Raises:
        ProtocolError: If it is not valid.
    """
    try:
        from stepbase.engine import expr
    except ModuleNotFoundError:
        return  # what has to be evaluated later will say so
    expr.compile_expression(source)
