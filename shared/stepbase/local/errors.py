"""What can go wrong on the local stack; each message says what to do next.

LocalError
├── PostgresNotFoundError   no server binaries of a supported version
├── PostgresStartError      initdb or the server failed; the message ends with its log
├── MigrationError          a migration file failed; names file and line
├── PortTakenError          something else listens where a piece of the stack should
├── ChildError              a piece of the stack died or did not become ready
├── DatabaseAwayError       the database the stack is to use does not answer
├── ApiAwayError            the Supabase API the stack is to use does not answer, or is another project's
└── HostError               a function folder cannot be served
"""

from stepbase.errors import StepbaseError


class LocalError(StepbaseError):
    """The local stack cannot do what was asked."""


class PostgresNotFoundError(LocalError):
    """No usable PostgreSQL server binaries were found."""


class PostgresStartError(LocalError):
    """PostgreSQL could not be initialised or did not start."""


class MigrationError(LocalError):
    """A migration failed; nothing of its file was kept."""


class PortTakenError(LocalError):
    """The port a piece of the stack should listen on is in use."""


class ChildError(LocalError):
    """A process of the stack died or did not report that it is ready."""


class HostError(LocalError):
    """A function folder cannot be loaded or served."""


class DatabaseAwayError(LocalError):
    """The database the stack is to use does not answer, or refuses us."""


class ApiAwayError(LocalError):
    """The Supabase API the stack is to use does not answer, refuses the key, or has another database."""
