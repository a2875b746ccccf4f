"""The console: what an engine knows, as pages that a person can read and act on."""
