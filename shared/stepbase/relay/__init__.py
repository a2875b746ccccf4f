"""Carries events from the outbox to an event API elsewhere (Inngest's, or another engine's).

`answer` and `pace` decide, `outbox` is the only SQL, `api` the only HTTP, `delivery` sends what is
leased, `relay` leases it, `process` is the whole with its signals.
"""
