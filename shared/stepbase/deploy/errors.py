"""What stops a deploy; the message says what to do next."""

from stepbase.errors import StepbaseError


class DeployError(StepbaseError):
    """A deploy cannot go on: nothing that was done is undone, and running it again resumes it."""
