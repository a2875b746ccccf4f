"""Fixtures for pytest: `lab` and `sync_lab`, around the app that a fixture `app` of yours returns.

::

    # conftest.py, the topmost
    pytest_plugins = ["stepbase.testing.fixtures"]

They are asked for by name instead of being there in every pytest session of an environment that has
stepbase installed: `lab` is a short name, and loading this would slow down everybody's start.
"""

from collections.abc import Iterator

import pytest

from stepbase.sdk.app import App
from stepbase.testing.lab import Lab, SyncLab


@pytest.fixture
def lab(app: App) -> Iterator[Lab]:
    """A lab for async tests; the fixture itself is plain, so it needs no plugin for async ones."""
    with Lab(app) as lab:
        yield lab


@pytest.fixture
def sync_lab(app: App) -> Iterator[SyncLab]:
    """A lab for plain tests."""
    with SyncLab(app) as lab:
        yield lab
