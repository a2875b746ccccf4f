"""The official TypeScript package runs on the engine: every feature it has, in one app."""

import asyncio
from collections.abc import Iterator
from functools import partial

import pytest
from tests.official.cases import Played, chosen
from tests.official.typescript import flow, others, requests, steps, triggers, waits
from tests.official.typescript.world import case, world
from tests.support.server import Server

MODULES = (flow, others, requests, steps, triggers, waits)
"""What has cases; importing them adds these."""


@pytest.fixture(scope="module")
def played(cluster: Server, template: str, request: pytest.FixtureRequest) -> Iterator[Played]:
    """The chosen cases, all running."""
    databases = [asyncio.run(cluster.create(template)) for _ in range(2)]
    names = chosen(request, test_feature.__name__)
    shared = partial(world, *(cluster.dsn(database) for database in databases))
    with case.playing(names, shared) as playing:
        yield playing
    for database in databases:
        asyncio.run(cluster.drop(database))


@pytest.mark.parametrize("case", case.parameters())
def test_feature(played: Played, case: str) -> None:
    played[case].result()
