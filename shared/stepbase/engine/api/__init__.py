"""The engine's HTTP API: events in, syncs, and what one may ask about runs."""
