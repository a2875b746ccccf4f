"""Tests of functions, in memory: a server, a clock that tests move, and fakes for what is outside.

::

    from stepbase.testing import Lab

The functions run through the same serve endpoint and replay as in production, and the engine's own rules
decide what their replies mean; only the database, the network and the time are stood in for.
"""

from stepbase.testing.fakes import RpcRecord
from stepbase.testing.folder import load_app
from stepbase.testing.lab import Lab, SyncLab
from stepbase.testing.replays import NotDeterministicError
from stepbase.testing.run import Attempt, Run

__all__ = ["Attempt", "Lab", "NotDeterministicError", "RpcRecord", "Run", "SyncLab", "load_app"]
