"""Where an app is served, and how it talks to its server."""

from dataclasses import dataclass

from stepbase.config import InngestConfig
from stepbase.sdk.app import App


@dataclass(frozen=True, slots=True)
class Site:
    """An app in its surroundings.

    Attributes:
        framework: Name of the host, for the server's display.
        settings: Keys, origins and mode.
        origin: Public origin of the serve URL, or None if it is not configured.
        path: Public path of the serve URL, or None.
    """

    app: App
    framework: str
    settings: InngestConfig
    origin: str | None
    path: str | None
