"""The official Python package runs on the engine: every feature it has, in one app."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import pytest
from tests.official.cases import Cases, Played, chosen
from tests.official.python import attempts, flow, keys, own, server, steps, triggers, waiting
from tests.official.python.world import World, case, world
from tests.support.server import Server

MODULES = (attempts, flow, own, server, steps, triggers, waiting)
"""What has cases and functions; importing them adds these."""


@contextmanager
def playing(
    cases: Cases[World],
    names: list[str],
    opened: Callable[..., Any],
    cluster: Server,
    template: str,
) -> Iterator[Played]:
    """Play cases on a database of their own."""
    database = asyncio.run(cluster.create(template))
    with cases.playing(names, partial(opened, cluster.dsn(database))) as played:
        yield played
    asyncio.run(cluster.drop(database))


@pytest.fixture(scope="module")
def played(cluster: Server, template: str, request: pytest.FixtureRequest) -> Iterator[Played]:
    """The chosen cases, all running."""
    names = chosen(request, test_feature.__name__)
    with playing(case, names, world, cluster, template) as running:
        yield running


@pytest.fixture(scope="module")
def played_with_keys(
    cluster: Server, template: str, request: pytest.FixtureRequest
) -> Iterator[Played]:
    """The chosen cases that need keys, all running."""
    names = chosen(request, test_feature_with_keys.__name__)
    with playing(keys.case, names, keys.keyed_world, cluster, template) as running:
        yield running


@pytest.mark.parametrize("case", case.parameters())
def test_feature(played: Played, case: str) -> None:
    played[case].result()


@pytest.mark.parametrize("case", keys.case.parameters())
def test_feature_with_keys(played_with_keys: Played, case: str) -> None:
    played_with_keys[case].result()
