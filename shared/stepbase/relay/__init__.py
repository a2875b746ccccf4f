"""Carries events from the outbox to an event API elsewhere."""
