"""Look at a store from outside while a load runs: its CPU time, its log, and which pages of which index it writes.

The whole server is looked at, so nothing else may be written to it meanwhile.
"""

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final, Protocol

import msgspec

from bench.mailing import Connection
from bench.paired import Outcome
from bench.processes import tree_seconds

# Full pages that were written since the checkpoint: each is one that was touched for the first time.
_PAGES: Final = """
SELECT relation.relname AS index, count(DISTINCT block.relblocknumber) AS pages
FROM pg_get_wal_block_info($1::text::pg_lsn, $2::text::pg_lsn) AS block
JOIN pg_database AS database ON database.oid = block.reldatabase AND database.datname = current_database()
JOIN pg_class AS relation ON pg_relation_filenode(relation.oid) = block.relfilenode
WHERE relation.relkind = 'i' AND relation.relnamespace = 'public'::regnamespace
GROUP BY relation.relname
"""


class Written(msgspec.Struct, frozen=True, kw_only=True):
    """What one round of a load was, and what it cost the store, for one unit."""

    outcome: Outcome
    cpu_us: float
    #: What the write-ahead log, or the append-only file, grew by.
    log_bytes: float
    #: Different pages of each index that were written; empty where nobody looked.
    pages: dict[str, float] = {}


class Gauge(Protocol):
    """A store that is looked at."""

    async def written(self, run: Callable[[], Awaitable[Outcome]]) -> Written:
        """Return what *run* was and cost."""
        ...


class PostgresGauge:
    """PostgreSQL, looked at through one ledger."""

    def __init__(self, connection: Connection, server: int, *, afresh: bool) -> None:
        self._connection = connection
        self._server = server
        self._afresh = afresh

    @classmethod
    async def of(cls, connection: Connection, *, afresh: bool) -> "PostgresGauge":
        """Return the gauge of the ledger that a superuser's *connection* leads to, in a server on this machine.

        *afresh*: each load begins with a checkpoint, after which every page is once more written whole.
        """
        await connection.execute("CREATE EXTENSION IF NOT EXISTS pg_walinspect")
        return cls(connection, _parent(int(await connection.fetchval("SELECT pg_backend_pid()"))), afresh=afresh)

    async def written(self, run: Callable[[], Awaitable[Outcome]]) -> Written:
        """Return what *run* was and cost."""
        if self._afresh:
            await self._connection.execute("CHECKPOINT")
        begin, used = await self._lsn(), tree_seconds((self._server,))
        outcome = await run()
        used = tree_seconds((self._server,)) - used
        end, units = await self._lsn(), max(1, outcome.units)
        size = await self._connection.fetchval("SELECT $2::text::pg_lsn - $1::text::pg_lsn", begin, end)
        pages = await self._connection.fetch(_PAGES, begin, end) if self._afresh else []
        return Written(
            outcome=outcome,
            cpu_us=used * 1_000_000 / units,
            log_bytes=int(size) / units,
            pages={row["index"]: row["pages"] / units for row in pages},
        )

    async def _lsn(self) -> str:
        # A commit that is on disk, and so all before it: nothing else can be read back.
        await self._connection.execute("SET synchronous_commit = on; SELECT pg_logical_emit_message(true, '', '')")
        return str(await self._connection.fetchval("SELECT pg_current_wal_lsn()::text"))


class ValkeyGauge:
    """Valkey, or Redis, on this machine."""

    def __init__(self, client: Any) -> None:
        self._client = client

    async def written(self, run: Callable[[], Awaitable[Outcome]]) -> Written:
        """Return what *run* was and cost."""
        before = await self._client.info()
        outcome = await run()
        after = await self._client.info()
        # A server that rewrites its file meanwhile has a smaller one.
        size = max(0, after.get("aof_current_size", 0) - before.get("aof_current_size", 0))
        used = sum(after[name] - before[name] for name in ("used_cpu_user", "used_cpu_sys"))
        units = max(1, outcome.units)
        return Written(outcome=outcome, cpu_us=used * 1_000_000 / units, log_bytes=size / units)


def _parent(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text("utf-8", "replace").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("PPid:"))
