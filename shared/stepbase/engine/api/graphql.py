"""`POST /v0/gql`: the GraphQL reads that the official SDKs' test suites make.

Loaded at the first request, with the library it needs. Documents are measured before they are executed (how
deep they go, how many fields they ask for) and while they are (what they find). They are executed one at a
time, beside the engine's loop.
"""

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from graphql import (
    DocumentNode,
    ExecutionResult,
    FieldNode,
    FragmentDefinitionNode,
    FragmentSpreadNode,
    GraphQLError,
    GraphQLResolveInfo,
    SelectionSetNode,
    build_schema,
    default_field_resolver,
    execute,
    parse,
    validate,
)
from graphql.execution import Executor
from graphql.pyutils import Undefined
from starlette.requests import Request
from starlette.responses import Response

from stepbase.engine.api.answers import Json, body_of, error, too_large
from stepbase.engine.api.budget import Budget
from stepbase.engine.api.questions import Questions

MAX_BODY = 1024 * 1024
MAX_TOKENS = 4000
MAX_DEPTH = 15
MAX_FIELDS = 400
MAX_ROOT_FIELDS = 20

_SCHEMA = build_schema((Path(__file__).parent / "schema.graphql").read_text("utf-8"))


async def post_gql(request: Request) -> Response:
    """Answer `{"query", "variables"?, "operationName"?}`.

    200 with `data`, and `errors` for what is not there; 422 for a document that does not fit the schema or
    asks for too much; 400 for a body that is none.
    """
    body = await body_of(request, MAX_BODY)
    if body is None:
        return too_large(MAX_BODY)
    try:
        raw = json.loads(body)
        asked, variables, operation = raw["query"], raw.get("variables"), raw.get("operationName")
        if not isinstance(asked, str) or not isinstance(variables, dict | None):
            raise TypeError
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return error(400, 'expected {"query": "<GraphQL>", "variables"?: {…}}')
    state = request.app.state
    questions = Questions(state.store, state.registry, asyncio.get_running_loop(), Budget())
    async with state.graphql_turn:
        return await asyncio.to_thread(_answer, questions, asked, variables, operation)


class _Executor(Executor[Any]):
    """Begins no more fields of a document that needs too much: nobody gets to see its answer."""

    def execute_field(self, *args: Any, **kwargs: Any) -> Any:
        budget: Budget = self.root_value.budget
        budget.add_field()
        if budget.excess is not None:
            return Undefined
        return super().execute_field(*args, **kwargs)


def _resolve(source: object, info: GraphQLResolveInfo[Any], **given: object) -> object:
    value = default_field_resolver(source, info, **given)
    info.root_value.budget.add_value(value)
    return value


def _answer(
    questions: Questions, asked: str, variables: Mapping[str, Any] | None, operation: object
) -> Response:
    """Answer in a thread: an answer may take a second of computing, and calls cannot wait for that."""
    document, problems = _read(asked)
    if document is None:
        return _refused(problems, "GRAPHQL_PARSE_FAILED")
    if problems:
        return _refused(problems, "GRAPHQL_VALIDATION_FAILED")
    result = asyncio.run(_execute(document, questions, variables, operation))
    excess = questions.budget.excess
    if excess is not None:
        problem = GraphQLError(f"the query needs more than {excess}: ask for fewer things at once")
        return _refused([problem], "GRAPHQL_VALIDATION_FAILED")
    for problem in result.errors or ():
        cause = problem.original_error
        if cause is not None and not isinstance(cause, GraphQLError):
            raise cause
    errors = {"errors": [each.formatted for each in result.errors]} if result.errors else {}
    return Json({**errors, "data": result.data})


def _read(asked: str) -> tuple[DocumentNode | None, list[GraphQLError]]:
    """Parse, check and measure a document; None if it is none."""
    try:
        document = parse(asked, max_tokens=MAX_TOKENS)
    except GraphQLError as problem:
        return None, [problem]
    except RecursionError:
        return None, [GraphQLError("the query is nested too deeply")]
    try:
        return document, validate(_SCHEMA, document, max_errors=10) or _excess(document)
    except RecursionError:
        return document, [GraphQLError("the query is nested too deeply")]


async def _execute(
    document: DocumentNode,
    questions: Questions,
    variables: Mapping[str, Any] | None,
    operation: object,
) -> ExecutionResult:
    made = execute(
        _SCHEMA,
        document,
        root_value=questions,
        variable_values=dict(variables or {}),
        operation_name=operation if isinstance(operation, str) and operation else None,
        field_resolver=_resolve,
        executor_class=_Executor,
    )
    return made if isinstance(made, ExecutionResult) else await made


def _refused(problems: list[GraphQLError], code: str) -> Response:
    errors = [{**each.formatted, "extensions": {"code": code}} for each in problems]
    return Json({"errors": errors, "data": None}, status_code=422)


def _excess(document: DocumentNode) -> list[GraphQLError]:
    """Return what a valid document asks for too much of."""
    measures = _Measures(
        {
            each.name.value: each
            for each in document.definitions
            if isinstance(each, FragmentDefinitionNode)
        }
    )
    problems = []
    for each in document.definitions:
        selected = getattr(each, "selection_set", None)
        if isinstance(each, FragmentDefinitionNode) or selected is None:
            continue
        depth, fields, own = measures.of(selected)
        for what, found, most in (
            ("levels deep", depth, MAX_DEPTH),
            ("fields", fields, MAX_FIELDS),
            ("questions at its root", own, MAX_ROOT_FIELDS),
        ):
            if found > most:
                problems.append(GraphQLError(f"the query has {found} {what}, {most} are allowed"))
    return problems


@dataclass
class _Measures:
    """Depth, all fields, and own fields of selections; each fragment is measured once."""

    fragments: Mapping[str, FragmentDefinitionNode]
    known: dict[str, tuple[int, int, int]] = field(default_factory=dict)

    def of(self, selected: SelectionSetNode | None) -> tuple[int, int, int]:
        depth = fields = own = 0
        for each in selected.selections if selected is not None else ():
            if isinstance(each, FieldNode):
                below, inside, _ = self.of(each.selection_set)
                below, inside, beside = below + 1, inside + 1, 1
            elif isinstance(each, FragmentSpreadNode):
                below, inside, beside = self._fragment(each.name.value)
            else:
                below, inside, beside = self.of(getattr(each, "selection_set", None))
            depth, fields, own = max(depth, below), fields + inside, own + beside
        return depth, fields, own

    def _fragment(self, name: str) -> tuple[int, int, int]:
        if name not in self.known:
            self.known[name] = self.of(self.fragments[name].selection_set)
        return self.known[name]
