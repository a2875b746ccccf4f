"""What can go wrong when files are made; each message says what to do next."""

from stepbase.errors import StepbaseError


class ScaffoldError(StepbaseError):
    """What was asked for cannot be made, or not without overwriting something; nothing was written."""
