"""Reach PostgreSQL: one pool, and the statements of queries.sql by name.

The files beside this one give the statements types: mail (the relay's), engagements and outbox (the courier's),
reports (the console's). They seal and open what names people with the ledger's sealer, so that nobody else carries
keys. The driver's errors are not translated: the loops that call decide what a lost connection means, by the two
tuples below.
"""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import asyncpg

from ledger.sealing import Sealer
from ledger.statements import statements

if TYPE_CHECKING:
    from asyncpg.pool import PoolConnectionProxy

Record = asyncpg.Record

#: What it looks like when PostgreSQL is away or going: the caller waits and tries again.
UNAVAILABLE = (
    OSError,
    TimeoutError,
    asyncpg.PostgresConnectionError,
    asyncpg.InterfaceError,
    asyncpg.OperatorInterventionError,
    asyncpg.InsufficientResourcesError,
    asyncpg.CannotConnectNowError,
    # What the driver says of a connection that was cut in the middle of an answer.
    asyncpg.InternalClientError,
    # A deadlock's victim, and a primary that was just demoted.
    asyncpg.TransactionRollbackError,
    asyncpg.ReadOnlySQLTransactionError,
    # A partition came into being while its row was on the way to the default one: there it is not taken any more.
    asyncpg.CheckViolationError,
)

#: What it looks like when a value cannot be stored: trying again would fail again.
REFUSED_VALUE = (
    asyncpg.DataError,
    asyncpg.NotNullViolationError,
    asyncpg.ForeignKeyViolationError,
    asyncpg.UniqueViolationError,
    asyncpg.ExclusionViolationError,
)


class Session:
    """One connection, alone or inside a transaction."""

    def __init__(self, connection: "PoolConnectionProxy[Record] | asyncpg.Connection[Record]", sealer: Sealer) -> None:
        self._connection = connection
        #: What names people passes through it, on its way in and out.
        self.sealer = sealer

    async def fetch(self, name: str, *arguments: Any) -> list[Record]:
        """Run the statement *name* and return its rows."""
        return await self._connection.fetch(statements()[name], *arguments)

    async def fetchrow(self, name: str, *arguments: Any) -> Record | None:
        """Run the statement *name* and return its first row."""
        return await self._connection.fetchrow(statements()[name], *arguments)

    async def execute(self, name: str, *arguments: Any) -> str:
        """Run the statement *name* and return PostgreSQL's command tag."""
        return await self._connection.execute(statements()[name], *arguments)

    async def copy(self, table: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
        """Insert *rows* by COPY, which is cheaper than a statement with an array for each column.

        A value that its column cannot hold raises what a statement's argument would: one of `REFUSED_VALUE`.
        """
        try:
            await self._connection.copy_records_to_table(table, columns=columns, records=rows)
        except (ValueError, TypeError, OverflowError) as error:
            raise asyncpg.DataError(type(error).__name__) from None


class Ledger:
    """The pool. Open it with `open_ledger`."""

    def __init__(self, pool: "asyncpg.Pool[Record]", sealer: Sealer) -> None:
        self._pool = pool
        #: What names people passes through it, on its way in and out.
        self.sealer = sealer

    @asynccontextmanager
    async def session(self) -> AsyncIterator[Session]:
        """Borrow a connection; each statement commits by itself."""
        async with self._pool.acquire() as connection:
            yield Session(connection, self.sealer)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Session]:
        """Borrow a connection for one transaction: committed at the end, rolled back on any exception."""
        async with self._pool.acquire() as connection, connection.transaction():
            yield Session(connection, self.sealer)

    async def fetch(self, name: str, *arguments: Any) -> list[Record]:
        """Run one statement on a connection of its own and return its rows."""
        async with self.session() as session:
            return await session.fetch(name, *arguments)

    async def fetchrow(self, name: str, *arguments: Any) -> Record | None:
        """Run one statement on a connection of its own and return its first row."""
        async with self.session() as session:
            return await session.fetchrow(name, *arguments)

    async def execute(self, name: str, *arguments: Any) -> str:
        """Run one statement on a connection of its own and return PostgreSQL's command tag."""
        async with self.session() as session:
            return await session.execute(name, *arguments)


async def _leave_as_it_is(_connection: "asyncpg.Connection[Record]") -> None:
    """Spare every statement the second one by which the driver resets a connection that goes back to the pool.

    No statement changes a session beyond its transaction, which the driver has ended by then; what a connection begins
    with is meant for all of them.
    """


async def _go_by_index(connection: "asyncpg.Connection[Record]") -> None:
    await connection.execute(statements()["go_by_index"])


@asynccontextmanager
async def open_ledger(
    database_url: str, *, connections: int = 8, sealer: Sealer | None = None, by_index: bool = False
) -> AsyncIterator[Ledger]:
    """Open a pool on *database_url* that connects when it is first used, and close it at the end.

    Without a *sealer* addresses are kept as they are. *by_index* is for who only ever looks for single rows: no plan
    reads a table through, also not one that was made while there was little in it and nobody had counted.
    """
    pool = asyncpg.create_pool(
        database_url,
        min_size=0,
        max_size=connections,
        timeout=10,
        command_timeout=60,
        server_settings={"application_name": "outrider", "timezone": "UTC"},
        init=_go_by_index if by_index else None,
        reset=_leave_as_it_is,
    )
    await pool
    try:
        yield Ledger(pool, sealer or Sealer())
    finally:
        try:
            await pool.close()
        except UNAVAILABLE:
            pool.terminate()
