"""Leases, fingerprints and partitions."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import TypeAlias
from urllib.parse import parse_qs, urlsplit

import asyncpg
import pytest
from structlog.testing import capture_logs

from courier.record import Recorder
from ledger import processes
from ledger.processes import UnknownKeyError, check_keys, fingerprint
from ledger.store import UNAVAILABLE, open_ledger
from sidecar.wiring import presence
from tests.conftest import Eventually
from tests.mailings import READER, ams_settings, connected, entries, hit, make_campaign, seed
from tests.running import short_directory

Pool: TypeAlias = "asyncpg.Pool[asyncpg.Record]"


@asynccontextmanager
async def reading(pool: Pool, *tables: str) -> AsyncIterator[None]:
    """Read *tables* for the time of the block, as a dump or a long report does."""
    async with pool.acquire() as connection, connection.transaction():
        await connection.execute(f"LOCK TABLE {', '.join(tables)} IN ACCESS SHARE MODE")
        yield


async def partitions(pool: Pool) -> set[str]:
    """Return the names of all partitions."""
    return {
        row[0] for row in await pool.fetch("SELECT relname::text FROM pg_class WHERE relispartition AND relkind = 'r'")
    }


async def lease_until(pool: Pool, process: int) -> datetime:
    """Return when a process's lease runs out."""
    until = await pool.fetchval("SELECT lease_until FROM process WHERE id = $1", process)
    assert isinstance(until, datetime)
    return until


async def test_one_process_holds_a_lease(database_url: str) -> None:
    """Others get it when it is given back, or has run out."""
    async with open_ledger(database_url) as ledger:
        assert await processes.take_lease(ledger, "ams", 1, 30)
        assert not await processes.take_lease(ledger, "ams", 2, 30)
        assert await processes.take_lease(ledger, "ams", 1, 0)
        assert await processes.take_lease(ledger, "ams", 2, 30)
        await processes.give_lease(ledger, "ams", 2)
        assert await processes.take_lease(ledger, "ams", 1, 30)


async def test_a_lapsed_lease_can_be_renewed(database_url: str, pool: Pool) -> None:
    """After an outage of PostgreSQL every process is alive again under its own id."""
    async with open_ledger(database_url) as ledger:
        process = await processes.register(ledger, "relay")
        await processes.leave(ledger, process)
        await processes.renew(ledger, process, "relay")
    assert await lease_until(pool, process) > datetime.now(UTC)


async def test_a_forgotten_process_comes_back_under_its_id(database_url: str, pool: Pool) -> None:
    """What it holds is known to be held, and nobody else is ever given its id."""
    async with open_ledger(database_url) as ledger:
        process = await processes.register(ledger, "relay")
        await pool.execute("UPDATE process SET lease_until = now() - interval '2 days'")
        await processes.forget_the_past(ledger)
        assert await pool.fetchval("SELECT count(*) FROM process") == 0
        await processes.renew(ledger, process, "relay")
        assert await pool.fetchval("SELECT role FROM process WHERE id = $1", process) == "relay"
        assert await lease_until(pool, process) > datetime.now(UTC)
        assert await processes.register(ledger, "relay") != process


async def test_a_process_that_leaves_holds_nothing(
    database_url: str, pool: Pool, monkeypatch: pytest.MonkeyPatch, eventually: Eventually
) -> None:
    """No renewal comes after the farewell, and its chores are anybody's at once."""
    monkeypatch.setattr(presence, "_RENEW_SECONDS", 0.001)
    async with open_ledger(database_url) as ledger:
        for _ in range(10):
            async with presence.present(ledger, "relay") as process:
                await eventually(_later(pool, process, await lease_until(pool, process)))
                assert await processes.my_turn(ledger, "sweep", process, 60)
                assert not await processes.my_turn(ledger, "sweep", process + 1000, 60)
            assert await lease_until(pool, process) <= datetime.now(UTC)


def _later(pool: Pool, process: int, than: datetime) -> Callable[[], Awaitable[bool]]:
    async def asked() -> bool:
        return await lease_until(pool, process) > than

    return asked


async def test_the_lease_is_renewed_whatever_else_waits(
    database_url: str, pool: Pool, monkeypatch: pytest.MonkeyPatch, eventually: Eventually
) -> None:
    """A reader stands before the partitions, and every other connection is stuck: the process stays alive."""
    monkeypatch.setattr(presence, "_RENEW_SECONDS", 0.1)
    async with reading(pool, "body", "body_default"), open_ledger(database_url, connections=2) as ledger:
        async with presence.present(ledger, "relay") as process, ledger.session():
            waiting = asyncio.create_task(ledger.fetchrow("stored_bytes"))
            for _ in range(3):
                await eventually(_later(pool, process, await lease_until(pool, process)))
        await waiting


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


async def test_partitions_are_made_once(database_url: str, pool: Pool) -> None:
    """Days for bodies, months for events, ahead; rows find them."""
    async with open_ledger(database_url) as ledger:
        assert True in await asyncio.gather(*(processes.make_partitions(ledger, date(2026, 12, 30)) for _ in range(4)))
        assert await processes.make_partitions(ledger, date(2026, 12, 30))
    made = await partitions(pool)
    assert made == {
        *(f"body_{date(2026, 12, 30) + timedelta(days=day):%Y%m%d}" for day in range(8)),
        *("event_202612", "event_202701", "event_202702", "event_202703"),
        *("body_default", "event_default"),
    }
    await pool.execute("INSERT INTO body (day, envelope, profile, content) VALUES ('2026-12-31', '', '', '')")
    await pool.execute(
        "INSERT INTO event (message, occurred_at, recorded_at, type, source, dedupe)"
        " VALUES (1, now(), '2027-02-28T23:59:59Z', 'opened', 'tracker', '')"
    )
    assert await pool.fetchval("SELECT tableoid::regclass::text FROM body") == "body_20261231"
    assert await pool.fetchval("SELECT tableoid::regclass::text FROM event") == "event_202702"
    assert (
        await pool.fetchval(
            "SELECT attstorage FROM pg_attribute WHERE attrelid = 'body_20261231'::regclass AND attname = 'content'"
        )
        == b"e"
    )


async def test_a_partition_waits_for_a_reader_and_nobody_waits_for_it(database_url: str, pool: Pool) -> None:
    """A dump runs over midnight: mail is stored all the while, and the day's partition comes afterwards."""
    async with open_ledger(database_url) as ledger:
        assert await processes.make_partitions(ledger, date(2026, 12, 30))
        before = await partitions(pool)
        async with reading(pool, "body", "body_default", "event", "event_default"):
            making = asyncio.create_task(processes.make_partitions(ledger, date(2026, 12, 31)))
            begun = time.monotonic()
            while not making.done():
                await pool.execute(
                    "INSERT INTO body (day, envelope, profile, content) VALUES ('2026-12-31', '', '', '')", timeout=0.8
                )
                await asyncio.sleep(0.02)
            assert not await making
            assert time.monotonic() - begun < 10
            assert await partitions(pool) == before
        assert await processes.make_partitions(ledger, date(2026, 12, 31))
        assert await partitions(pool) - before == {"body_20270107"}


async def test_rows_that_came_before_their_partition_stay(database_url: str, pool: Pool) -> None:
    """The day of a late start is served by the default partition; the other days get theirs."""
    await pool.execute("INSERT INTO body (day, envelope, profile, content) VALUES ('2026-12-30', '', '', '')")
    async with open_ledger(database_url) as ledger:
        assert await processes.make_partitions(ledger, date(2026, 12, 30))
    made = await partitions(pool)
    assert "body_20261230" not in made
    assert "body_20261231" in made
    assert await pool.fetchval("SELECT count(*) FROM body_default") == 1


async def test_spent_days_are_dropped_when_nobody_reads_them(database_url: str, pool: Pool) -> None:
    """A day whose bodies are all freed goes; one with a body stays; a reader puts it off."""
    async with open_ledger(database_url) as ledger:
        assert await processes.make_partitions(ledger, date(2026, 12, 1))
        await pool.execute("INSERT INTO body (day, envelope, profile, content) VALUES ('2026-12-02', '', '', '')")
        async with reading(pool, "body_20261201"):
            assert not await processes.make_partitions(ledger, date(2026, 12, 5))
            made = await partitions(pool)
            assert made >= {"body_20261201", "body_20261212"}
        assert await processes.make_partitions(ledger, date(2026, 12, 5))
    days = {name for name in await partitions(pool) if name < "body_20261205"}
    assert days == {"body_20261202", "body_20261204"}


def test_a_fingerprint_gives_nothing_away() -> None:
    """Sixteen digits, none of them the key's."""
    assert len(fingerprint(b"secret")) == 16
    assert fingerprint(b"secret") != fingerprint(b"Secret")


async def test_a_role_waits_for_its_ledger(
    database_url: str, monkeypatch: pytest.MonkeyPatch, eventually: Eventually
) -> None:
    """PostgreSQL is away when the role comes back after a crash: it enters as soon as there is something to enter."""
    monkeypatch.setattr(presence, "_REGISTER_AGAIN_SECONDS", 0.02)
    real = Path(parse_qs(urlsplit(database_url).query)["host"][0])
    with short_directory() as directory, capture_logs() as logs:
        # Where PostgreSQL's socket will be.
        place = directory / "pg"
        async with open_ledger(database_url.replace(str(real), str(place))) as ledger:

            async def be() -> int:
                async with presence.present(ledger, "relay") as process:
                    return process

            entering = asyncio.create_task(be())
            await eventually(lambda: len(logs) > 2)
            assert {entry["event"] for entry in logs} == {"ledger_unavailable"}
            place.symlink_to(real)
            assert await asyncio.wait_for(entering, 10) > 0


async def test_a_partition_that_comes_into_being_costs_no_event(
    database_url: str, pool: Pool, eventually: Eventually
) -> None:
    """The first start makes them while hits are recorded: a row that was on its way elsewhere is written once more."""
    async with open_ledger(database_url) as ledger, connected(database_url) as look:
        (ann,) = await seed(look, await make_campaign(look), "ann@example.net")
        recorder = Recorder(ledger, READER, ams=ams_settings())
        opened = entries([hit(ann)])
        async with pool.acquire() as maker, maker.transaction():
            assert await maker.fetchval("SELECT make_partitions(current_date)")
            recording = asyncio.create_task(recorder.record(opened))
            await eventually(lambda: look.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted"))
        with contextlib.suppress(*UNAVAILABLE):
            await recording
        await recorder.record(opened)
        assert await look.fetchval("SELECT count(*) FROM event") == 1
        assert await look.fetchval("SELECT count(*) FROM parked_event") == 0
