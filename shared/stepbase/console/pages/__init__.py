"""The pages, one module a subject: each handler reads and says what to show; `site.py` shows it."""
