"""Old history goes: a bounded batch at a time, with pauses, by whichever engine gets to it."""

import asyncio
import logging

from stepbase.engine.settings import Settings
from stepbase.engine.store import Store
from stepbase.errors import StoreError

_log = logging.getLogger("stepbase.engine.sweeper")

_BATCH = 1000
_PAUSE_SECONDS = 0.02
_EVERY_SECONDS = 600.0


async def sweep_forever(store: Store, settings: Settings) -> None:
    """Delete runs, events, ledger and de-duplication rows past their age, every ten minutes, until cancelled.

    Rows another sweep has locked are skipped, so several engines need no leader for this.
    """
    while True:
        await asyncio.sleep(_EVERY_SECONDS)
        try:
            runs, events = await sweep_once(store, settings)
        except StoreError as error:
            _log.warning("sweep put off", extra={"reason": str(error)[:200]})
            continue
        if runs or events:
            _log.info("swept", extra={"runs": runs, "events": events})


async def sweep_once(store: Store, settings: Settings) -> tuple[int, int]:
    """Delete everything past its age now; return how many runs and events went."""
    all_runs = all_events = 0
    while await store.prune_ledger(settings.keep_results, settings.keep_keys, _BATCH) >= _BATCH:
        await asyncio.sleep(_PAUSE_SECONDS)
    # Reported by Monitor, perhaps before the functions moved here: nobody else ends them.
    while await store.end_silent_runs(settings.keep_silent, _BATCH) >= _BATCH:
        await asyncio.sleep(_PAUSE_SECONDS)
    while True:
        runs, events = await store.sweep(
            settings.keep_runs, settings.keep_failed, settings.keep_events, _BATCH
        )
        all_runs, all_events = all_runs + runs, all_events + events
        if max(runs, events) < _BATCH:
            return all_runs, all_events
        await asyncio.sleep(_PAUSE_SECONDS)
