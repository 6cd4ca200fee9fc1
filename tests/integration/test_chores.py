"""What is done every few seconds costs little however much was ever sent: by index, in bites, by one process."""

import json
from datetime import UTC, datetime
from typing import Any, TypeAlias

import asyncpg
import pytest
import pytest_asyncio

from ledger.processes import make_partitions, my_turn
from ledger.statements import statements
from ledger.store import open_ledger

Pool: TypeAlias = "asyncpg.Pool[asyncpg.Record]"

SENT = 50_000
QUEUED = 20_000
#: How many bodies one turn looks at.
BITE = 2_000

# Two numbers of our own are all that is spelt into it.
_ROWS = f"""
INSERT INTO message (
    key, accepted_at, generation, size, links, injected, source, sender, recipient, recipient_index, message_id,
    body_digest
)
SELECT
    decode(md5(i::text), 'hex'), now() - make_interval(secs => {SENT + QUEUED} - i), 0, 1000, 1, true, 'relay',
    'news@example.com', 'ann@example.net', decode(md5('r' || i), 'hex'), i || '@example.com', ''
FROM generate_series(1, {SENT + QUEUED}) AS i;

INSERT INTO body (day, envelope, profile, content, stored_at)
SELECT current_date, '', '', repeat('x', 500)::bytea, now() - interval '1 hour' FROM generate_series(1, {QUEUED});

INSERT INTO delivery (message, status, worker, next_at, settled_at, body_day, body)
SELECT
    id,
    CASE WHEN id <= {SENT} THEN 'sent' WHEN id % 100 = 0 THEN 'sending' ELSE 'queued' END::delivery_status,
    CASE WHEN id > {SENT} AND id % 100 = 0 THEN 1 END,
    CASE WHEN id > {SENT} AND id % 100 <> 0 THEN now() + interval '1 hour' END,
    CASE WHEN id <= {SENT} THEN now() END,
    CASE WHEN id > {SENT} THEN current_date END,
    CASE WHEN id > {SENT} THEN id - {SENT} END
FROM message;
"""  # noqa: S608 - as said


@pytest_asyncio.fixture
async def busy(database_url: str, pool: Pool) -> Pool:
    """Return a pool on a ledger that has sent much and has some to send."""
    async with open_ledger(database_url) as ledger:
        assert await make_partitions(ledger, datetime.now(UTC).date())
    await pool.execute(_ROWS)
    for table in ("message", "body", "delivery"):
        await pool.execute(f"VACUUM ANALYZE {table}")
    return pool


async def plan_of(pool: Pool, name: str, *arguments: object) -> list[dict[str, Any]]:
    """Return the nodes of the plan by which a statement ran, with what they really read."""
    async with pool.acquire() as connection:
        run = connection.transaction()
        await run.start()
        text = await connection.fetchval(f"EXPLAIN (ANALYZE, FORMAT JSON) {statements()[name]}", *arguments)
        await run.rollback()
    nodes: list[dict[str, Any]] = []
    waiting = [json.loads(text)[0]["Plan"]]
    while waiting:
        node = waiting.pop()
        nodes.append(node)
        waiting += node.get("Plans", [])
    return nodes


def rows_read(nodes: list[dict[str, Any]], *tables: str) -> int:
    """Return how many rows of *tables*, or of their partitions, were read, kept or not."""
    return sum(
        (node["Actual Rows"] + node.get("Rows Removed by Filter", 0)) * node["Actual Loops"]
        for node in nodes
        if str(node.get("Relation Name", "")).startswith(tables) and "Scan" in node["Node Type"]
    )


async def test_the_queue_is_counted_by_what_waits(busy: Pool) -> None:
    """Fifty thousand messages were sent: not one of them is looked at."""
    row = await busy.fetchrow(statements()["queue_depth"])
    assert row is not None
    assert row["waiting"] == QUEUED
    assert QUEUED - 1 <= row["oldest_seconds"] < QUEUED + 60
    nodes = await plan_of(busy, "queue_depth")
    assert not [node for node in nodes if node["Node Type"] == "Seq Scan"]
    assert rows_read(nodes, "delivery", "message") <= QUEUED + 1


async def test_an_empty_queue_costs_nothing(busy: Pool) -> None:
    """Nothing waits: nothing is read, and there is no oldest."""
    await busy.execute("UPDATE delivery SET status = 'sent' WHERE status IN ('queued', 'sending')")
    await busy.execute("VACUUM ANALYZE delivery")
    row = await busy.fetchrow(statements()["queue_depth"])
    assert row is not None
    assert tuple(row) == (0, None)
    nodes = await plan_of(busy, "queue_depth")
    assert not [node for node in nodes if node["Node Type"] == "Seq Scan"]
    assert rows_read(nodes, "delivery", "message") == 0


async def test_bodies_are_freed_by_index(busy: Pool) -> None:
    """A turn looks at its bite, by the indexes, and at none of what was sent."""
    nodes = await plan_of(busy, "free_bodies")
    read = {node["Relation Name"] for node in nodes if node["Node Type"] == "Seq Scan" and node["Actual Loops"]}
    today = f"body_{await busy.fetchval('SELECT current_date'):%Y%m%d}"
    assert not read & {"delivery", today}
    assert rows_read(nodes, "delivery") <= BITE
    assert rows_read(nodes, "body_2", "body_default") <= BITE


async def test_bodies_are_freed_in_bites_and_round_again(busy: Pool) -> None:
    """A long queue is freed over several turns, oldest first; what is needed stays; what was passed comes again."""
    assert await busy.fetch(statements()["free_bodies"]) == []
    await busy.execute("UPDATE delivery SET status = 'sent', body = NULL, body_day = NULL WHERE body <> 6000")
    bites = [{row["id"] for row in await busy.fetch(statements()["free_bodies"])} for _ in range(12)]
    assert bites[0] == set(range(BITE + 1, 2 * BITE + 1))
    assert max(len(bite) for bite in bites) == BITE
    assert set().union(*bites) == set(range(1, QUEUED + 1)) - {6000}
    assert [row[0] for row in await busy.fetch("SELECT id FROM body")] == [6000]


async def test_a_young_body_is_left_alone(pool: Pool) -> None:
    """It may be on its way to its messages."""
    await pool.execute("INSERT INTO body (day, envelope, profile, content) VALUES (current_date, '', '', '')")
    assert await pool.fetch(statements()["free_bodies"]) == []
    await pool.execute("UPDATE body SET stored_at = now() - interval '61 seconds'")
    assert len(await pool.fetch(statements()["free_bodies"])) == 1


@pytest.mark.parametrize("name", ["take_over_sending", "sweep_accepted"])
async def test_take_over_looks_at_what_is_held(busy: Pool, name: str) -> None:
    """Not at all that was sent."""
    nodes = await plan_of(busy, name)
    assert "delivery" not in {node.get("Relation Name") for node in nodes if node["Node Type"] == "Seq Scan"}
    assert rows_read(nodes, "delivery") <= QUEUED


async def test_a_chore_is_one_process_s(database_url: str, pool: Pool) -> None:
    """Who has it keeps it; it falls to another when it is not asked for in time, and each chore goes by itself."""
    async with open_ledger(database_url) as ledger:
        assert await my_turn(ledger, "sweep", 1, 60)
        assert await my_turn(ledger, "sweep", 1, 60)
        assert not await my_turn(ledger, "sweep", 2, 60)
        assert await my_turn(ledger, "fold", 2, 60)
        await pool.execute("UPDATE lease SET lease_until = now() - interval '1 second'")
        assert await my_turn(ledger, "sweep", 2, 60)
        assert not await my_turn(ledger, "sweep", 1, 60)
