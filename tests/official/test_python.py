"""The official Python package runs on the engine: every feature it has, in one app."""

import asyncio
from collections.abc import Iterator
from functools import partial

import pytest
from tests.official.cases import Played, chosen
from tests.official.python import attempts, steps, triggers, waiting
from tests.official.python.world import case, world
from tests.support.server import Server

MODULES = (attempts, steps, triggers, waiting)
"""What has cases and functions; importing them adds these."""


@pytest.fixture(scope="module")
def played(cluster: Server, template: str, request: pytest.FixtureRequest) -> Iterator[Played]:
    """The chosen cases, all running."""
    database = asyncio.run(cluster.create(template))
    names = chosen(request, test_feature.__name__)
    with case.playing(names, partial(world, cluster.dsn(database))) as playing:
        yield playing
    asyncio.run(cluster.drop(database))


@pytest.mark.parametrize("case", case.parameters())
def test_feature(played: Played, case: str) -> None:
    played[case].result()
