"""The bench of growth with next to no load: what is filled in is a whole ledger, and every axis loses nothing."""

import os
from contextlib import AsyncExitStack

import asyncpg
import pytest

from bench import axes, growth
from bench.filled import broken_indexes, fill
from bench.servers import stores
from bench.stage import Stage
from ledger.ids import key_text
from ledger.mail import MailLedger
from ledger.store import open_ledger
from sidecar.embedded import Servers

own_postgres = pytest.mark.skipif(
    "OUTRIDER_TEST_DATABASE_URL" in os.environ,
    reason="it looks at a PostgreSQL on this machine, and into its catalogue, as the superuser of an embedded one",
)


@pytest.fixture
def given(servers: Servers, redis_url: str) -> Servers:
    """Return the test's own servers."""
    return Servers(database_url=servers.database_url, redis_url=redis_url)


@own_postgres
async def test_a_filled_ledger_is_a_whole_one(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every message has its delivery, two aliases and a campaign; every index has every row, and is as it was."""
    monkeypatch.setattr("bench.filled._ROWS", 100)
    connection = await asyncpg.connect(database_url)
    try:
        shape = "SELECT indexrelid::regclass::text, pg_get_indexdef(indexrelid) FROM pg_index ORDER BY 1"
        before = await connection.fetch(shape)
        await fill(connection, 250)
        assert await broken_indexes(connection) == []
        assert await connection.fetch(shape) == before
        counts = await connection.fetchrow(
            "SELECT count(*), count(DISTINCT key), count(DISTINCT substr(key, 1, 1)) > 100, min(length(key)), "
            "(SELECT count(*) FROM delivery WHERE status = 'sent' AND message BETWEEN 1 AND 250), "
            "(SELECT count(DISTINCT digest) FROM alias WHERE message BETWEEN 1 AND 250) "
            "FROM message JOIN campaign ON campaign.id = campaign"
        )
        assert counts is not None
        assert tuple(counts) == (250, 250, True, 16, 250, 500)
        # By its index: the plan may use no other way.
        await connection.execute("SET enable_seqscan = off")
        assert await connection.fetchval("SELECT count(*) FROM alias WHERE digest > '\\x00'::bytea") == 500
        key = key_text(await connection.fetchval("SELECT key FROM message WHERE id = 137"))
    finally:
        await connection.close()
    async with open_ledger(database_url) as ledger:
        found = await MailLedger(ledger, 1).find([key])
    assert [(known.id, known.status) for known in found.values()] == [(137, "sent")]


@own_postgres
@pytest.mark.timeout(120)
async def test_the_ledgers_axes_lose_nothing(given: Servers) -> None:
    """A relay on an empty ledger and one on a filled ledger, in turn; what PostgreSQL wrote is seen."""
    stage = Stage(rounds=1, scale=0.004, servers=given)
    async with stores(given) as place, AsyncExitStack() as stack:
        for axis in await axes.ledgers(stage, place, stack, sizes=(0, 100_000)):
            empty, filled = (await growth.measured(axis, rounds=1))[0]
            assert (empty.flaw, filled.flaw) == (None, None)
            assert (empty.at, filled.at) == (0, 400)
            assert filled.log_bytes > 500
            assert filled.pages["message_pkey"] > 0


@pytest.mark.timeout(60)
async def test_hits_are_all_kept(given: Servers) -> None:
    """Alone and in groups."""
    async with stores(given) as place, AsyncExitStack() as stack:
        [axis] = await axes.hits(Stage(scale=0.002, servers=given), place, stack)
        found, _ = await growth.measured(axis, rounds=1)
    assert [(row.at, row.units, row.flaw) for row in found] == [
        (1, 6, None),
        (10, 40, None),
        (100, 100, None),
        (1_000, 100, None),
    ]


@own_postgres
@pytest.mark.soak
@pytest.mark.timeout(600)
async def test_every_axis_is_measured(given: Servers) -> None:
    """Nothing is lost, doubled or wrong on any of them."""
    found = await growth.bench(Stage(rounds=1, scale=0.004, servers=given))
    assert {row.name: row.flaw for row in found.rows if row.flaw is not None} == {}
    assert len(found.rows) == 4 * 3 + 4 + 4 + 5 + 4 + 4 + 4
