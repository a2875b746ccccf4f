"""What this SDK calls itself on the wire. A constant, because reading package metadata is slow."""

from typing import Final

VERSION: Final = "0.1.0"
LANGUAGE: Final = "py"
SDK: Final = f"stepbase-{LANGUAGE}:v{VERSION}"
"""Value of `x-inngest-sdk` and of `user-agent`; servers only ask that it is there."""
