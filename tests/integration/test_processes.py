"""Leases, fingerprints and partitions."""

import asyncio
from datetime import date

import asyncpg
import pytest

from ledger import processes
from ledger.processes import UnknownKeyError, check_keys, fingerprint
from ledger.store import open_ledger


async def test_one_process_holds_a_lease(database_url: str) -> None:
    """Others get it when it is given back, or has run out."""
    async with open_ledger(database_url) as ledger:
        assert await processes.take_lease(ledger, "ams", 1, 30)
        assert not await processes.take_lease(ledger, "ams", 2, 30)
        assert await processes.take_lease(ledger, "ams", 1, 0)
        assert await processes.take_lease(ledger, "ams", 2, 30)
        await processes.give_lease(ledger, "ams", 2)
        assert await processes.take_lease(ledger, "ams", 1, 30)


async def test_a_lapsed_lease_can_be_renewed(database_url: str) -> None:
    """After an outage of PostgreSQL every process is alive again under its own id."""
    async with open_ledger(database_url) as ledger, ledger.session() as session:
        process = await processes.register(ledger, "relay")
        await processes.leave(ledger, process)
        await processes.renew(ledger, process)
        row = await session._connection.fetchrow(
            "SELECT lease_until > now() AS alive FROM process WHERE id = $1", process
        )
        assert row is not None
        assert row["alive"]


async def test_another_identity_key_is_refused(database_url: str) -> None:
    """Message-IDs would change: the process does not start."""
    async with open_ledger(database_url) as ledger:
        await check_keys(ledger, identity=b"one", signing=[b"a"])
        await check_keys(ledger, identity=b"one", signing=[b"a"])
        with pytest.raises(UnknownKeyError, match="OUTRIDER_KEYS__IDENTITY"):
            await check_keys(ledger, identity=b"two", signing=[b"a"])


async def test_signing_keys_rotate_by_overlap(database_url: str) -> None:
    """A new key beside an old one is welcome; a list of strangers is not."""
    async with open_ledger(database_url) as ledger:
        await check_keys(ledger, identity=b"one", signing=[b"a"])
        await check_keys(ledger, identity=b"one", signing=[b"b", b"a"])
        await check_keys(ledger, identity=b"one", signing=[b"b"])
        with pytest.raises(UnknownKeyError, match="OUTRIDER_KEYS__SIGNING"):
            await check_keys(ledger, identity=b"one", signing=[b"c"])


async def test_two_first_starts_agree_on_one_identity(database_url: str) -> None:
    """Of two processes with different keys on an empty ledger one starts."""
    async with open_ledger(database_url) as ledger:
        results = await asyncio.gather(
            *(check_keys(ledger, identity=name, signing=[b"a"]) for name in (b"one", b"two")), return_exceptions=True
        )
        assert [type(result) for result in results].count(UnknownKeyError) == 1


async def test_partitions_are_made_once(database_url: str, pool: "asyncpg.Pool[asyncpg.Record]") -> None:
    """Days for bodies, months for events; rows find them."""
    async with open_ledger(database_url) as ledger:
        await asyncio.gather(*(processes.make_partitions(ledger, date(2026, 12, 30)) for _ in range(4)))
    names = {row[0] for row in await pool.fetch("SELECT relname::text FROM pg_class WHERE relispartition")}
    assert names >= {"body_20261230", "body_20270101", "event_202612", "event_202701", "event_202702"}


def test_a_fingerprint_gives_nothing_away() -> None:
    """Sixteen digits, none of them the key's."""
    assert len(fingerprint(b"secret")) == 16
    assert fingerprint(b"secret") != fingerprint(b"Secret")
