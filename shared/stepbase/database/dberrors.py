"""What the database driver raises, as an error of ours."""

import asyncpg

from stepbase.errors import StoreError

# Connection trouble, too many connections, shutdown, crash recovery, deadlock, read-only.
_TRANSIENT_CLASSES = ("08", "53", "57", "58", "40", "25")

POOLER_ERRORS = (asyncpg.DuplicatePreparedStatementError, asyncpg.InvalidSQLStatementNameError)
"""What only happens on a connection that several sessions serve."""

NO_SESSION = (
    "do not last on this connection: stepbase needs a direct connection or the session pooler "
    "(port 5432), not the transaction pooler (6543)"
)


class translated:  # reads as a statement: `with translated():`
    """Turns the driver's errors into StoreError."""

    def __enter__(self) -> None:
        """Start."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _trace: object
    ) -> None:
        """Raise StoreError in place of what the driver raised."""
        if isinstance(error, POOLER_ERRORS):
            raise StoreError(
                f"prepared statements {NO_SESSION}", sqlstate=error.sqlstate, is_transient=False
            ) from error
        if isinstance(error, asyncpg.PostgresError):
            sqlstate = error.sqlstate or ""
            raise StoreError(
                f"{type(error).__name__}: {error}",
                sqlstate=sqlstate,
                is_transient=sqlstate[:2] in _TRANSIENT_CLASSES,
            ) from error
        # The driver calls it internal when a connection is cut off just as it is taken into use.
        if isinstance(
            error,
            OSError | asyncpg.InterfaceError | asyncpg.InternalClientError | TimeoutError,
        ):
            raise StoreError(
                f"the database cannot be reached: {type(error).__name__}: {error}",
                sqlstate=None,
                is_transient=True,
            ) from error
