"""Promise 7, at full size: three days without AMS, and one bad address in twenty thousand.

What waits is in the ledger, so the courier's memory does not know how much it is; it drains in full calls, one at a
time. Of a refused call the one that AMS means is found in few calls, and a mailing that it does not know costs fewer.
"""

import asyncio
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import quantiles

import msgspec
import pytest
import pytest_asyncio
from redis.asyncio import Redis

from courier.ams import open_ams
from courier.deliver import Deliverer
from ledger.events import encode_hit
from ledger.store import Ledger
from ledger.stream import FIELD, STREAM
from sidecar.standin_ams import StandinAms
from tests.conftest import ROOT, Eventually
from tests.courier_process import Orders
from tests.mailings import Connection, ams_settings, hit, make_campaign
from tests.tracker_support import Tracker, tracking
from tracker.buffer import open_buffer
from tracker.open import GIF
from tracker.settings import TrackerSettings

PROGRAM = Path(__file__).resolve().parent.parent / "courier_process.py"
FULL = 20_000
#: Octets by which a courier may grow between a tenth of the backlog and all of it.
FLAT = 24 * 1024 * 1024


@pytest_asyncio.fixture
async def standin() -> AsyncIterator[StandinAms]:
    """Return a stand-in AMS that listens."""
    async with StandinAms(api_key="K-1") as running:
        yield running


async def correlated(look: Connection, messages: int) -> list[bytes]:
    """Correlate messages r0@example.net, r1@example.net… of mailing 42, and return their keys in that order."""
    campaign = await make_campaign(look)
    rows = await look.fetch(
        "INSERT INTO message (key, accepted_at, campaign, generation, size, links, injected, source, sender, recipient,"
        " recipient_index, message_id, body_digest)"
        " SELECT substr(sha256(convert_to('k' || n, 'utf8')), 1, 16), now(), $1, 0, 1000, 2, true, 'default',"
        " 'news@example.com', convert_to('r' || n || '@example.net', 'utf8'),"
        " substr(sha256(convert_to('r' || n, 'utf8')), 1, 16), n || '@example.com', 'd'"
        " FROM generate_series(0, $2 - 1) AS t (n) RETURNING id, key",
        campaign,
        messages,
    )
    return [bytes(row["key"]) for row in sorted(rows, key=lambda row: int(row["id"]))]


async def queued(look: Connection, messages: int) -> None:
    """Let an open of each of so many messages wait for AMS."""
    await correlated(look, messages)
    await look.execute(
        "INSERT INTO outbox (mailing, campaign, message, url) SELECT 42, campaign, id, 'open_trace' FROM message"
        " ORDER BY id"
    )


@contextmanager
def courier(orders: Orders) -> Iterator[int]:
    """Run a courier in a process of its own; yield its process, which ends when it is told to."""
    process = subprocess.Popen([sys.executable, str(PROGRAM)], env={"PYTHONPATH": str(ROOT)}, stdin=subprocess.PIPE)
    assert process.stdin is not None
    with process:
        process.stdin.write(msgspec.json.encode(orders) + b"\n")
        process.stdin.flush()
        yield process.pid
        process.stdin.close()
        assert process.wait(timeout=60) == 0


def resident(pid: int) -> int:
    """Return the octets that a process has in memory."""
    (line,) = (one for one in Path(f"/proc/{pid}/status").read_text().splitlines() if one.startswith("VmRSS:"))
    return int(line.split()[1]) * 1024


async def pixels(tracker: Tracker, times: int) -> float:
    """Ask for the pixel so often, and return how long nine in ten took at most, in seconds."""
    took: list[float] = []
    for _ in range(times):
        started = time.perf_counter()
        assert (await tracker.ask(tracker.pixel)).body == GIF
        took.append(time.perf_counter() - started)
    return quantiles(took, n=10)[-1]


@pytest.mark.serial
@pytest.mark.parametrize(
    ("events", "batch"),
    [
        pytest.param(5_000, 1_000, id="5000"),
        pytest.param(500_000, FULL, id="500000", marks=[pytest.mark.soak, pytest.mark.timeout(1800)]),
    ],
)
async def test_three_days_without_ams_cost_disk_alone(
    database_url: str,
    redis_url: str,
    redis: Redis,
    look: Connection,
    standin: StandinAms,
    eventually: Eventually,
    tmp_path: Path,
    events: int,
    batch: int,
) -> None:
    """The backlog is as long as you like: memory is flat, pixels answer as before, and it drains in full calls."""
    keys = await correlated(look, events // 10)
    orders = Orders(
        database_url=database_url,
        redis_url=redis_url,
        ams=ams_settings(url=standin.url, max_batch=batch, timeout=60, interval=0.2),
        batch=1000,
    )
    settings = TrackerSettings(append_wait=1.0)
    # Pixels are asked for on a message that nobody knows: they are parked, and no items of this backlog.
    async with open_buffer(redis_url, tmp_path / "journal", settings) as buffer, tracking(buffer) as tracker:
        before = await pixels(tracker, 50)
        await standin.stop()
        with courier(orders) as process:
            memory: list[int] = []
            for part in range(10):
                await _append(redis, [keys[(part * events // 10 + n) % len(keys)] for n in range(events // 10)])
                wanted = (part + 1) * events // 10

                async def recorded(wanted: int = wanted) -> bool:
                    return bool(await look.fetchval("SELECT count(*) FROM outbox") >= wanted)

                await eventually(recorded, timeout=600)
                # As if hours went by: it tries AMS again with every part.
                await look.execute("UPDATE ams_mailing SET next_at = now()")
                memory.append(resident(process))
            during = await pixels(tracker, 50)
            await look.execute("UPDATE outbox SET created_at = created_at - interval '72 hours'")
            await look.execute("UPDATE ams_mailing SET next_at = now(), failures = 300")
            await asyncio.sleep(1)  # it tries the whole backlog in vain once more
            memory.append(resident(process))
            await standin.start()
            await look.execute("UPDATE ams_mailing SET next_at = now()")
            started = time.monotonic()

            async def drained() -> bool:
                return not await look.fetchval("SELECT EXISTS (SELECT FROM outbox)")

            await eventually(drained, timeout=600)
            seconds = time.monotonic() - started
            memory.append(resident(process))
    sys.stdout.write(
        f"{events} events: {[octets // 2**20 for octets in memory]} MiB, drained in {seconds:.1f} s,"
        f" pixels {before * 1000:.1f} ms, then {during * 1000:.1f} ms\n"
    )
    assert [call.items for call in standin.calls if call.items] == [batch] * (events // batch)
    assert len(standin.received) == events
    assert standin.most_in_flight == 1
    # From the second part on, when it has tried a full call once.
    assert max(memory[1:-1]) - memory[1] < FLAT
    assert during < before * 3 + 0.1


async def _append(redis: Redis, keys: list[bytes]) -> None:
    for start in range(0, len(keys), 5_000):
        pipe = redis.pipeline(transaction=False)
        for key in keys[start : start + 5_000]:
            pipe.xadd(STREAM, {FIELD: encode_hit(hit(key))})
        await pipe.execute()


async def test_one_bad_address_in_twenty_thousand_is_parked_alone(
    ledger: Ledger, look: Connection, standin: StandinAms
) -> None:
    """Within 40 calls, the first refusal and the health question included; the other 19,999 arrive once each."""
    await queued(look, FULL)
    standin.refused_addresses = {"r13579@example.net"}
    settings = ams_settings(url=standin.url, timeout=30)
    async with open_ams(settings) as ams:
        one = Deliverer(ledger, settings, ams, process=1, stopping=asyncio.Event(), jitter=lambda: 0.0)
        for _ in range(2):
            await one.cycle()
    assert len(standin.calls) <= 40
    assert sorted(item.email for item in standin.received) == sorted(
        f"r{n}@example.net" for n in range(FULL) if n != 13579
    )
    rows = await look.fetch(
        "SELECT m.recipient, o.parked_at IS NOT NULL, o.reason FROM outbox o JOIN message m ON m.id = o.message"
    )
    assert [tuple(row) for row in rows] == [(b"r13579@example.net", True, "-32603: Invalid email <address>")]


async def test_an_unknown_mailing_is_held_whole_after_six_calls_at_most(
    ledger: Ledger, look: Connection, standin: StandinAms
) -> None:
    """Nobody of its twenty thousand is parked; when AMS knows it, all of them arrive."""
    await queued(look, FULL)
    standin.mailings = {7}
    settings = ams_settings(url=standin.url, timeout=30)
    async with open_ams(settings) as ams:
        one = Deliverer(ledger, settings, ams, process=1, stopping=asyncio.Event(), jitter=lambda: 0.0)
        while await look.fetchval("SELECT held FROM ams_mailing") is None:
            await one.cycle()
        assert len(standin.calls) <= 6
        assert await look.fetchval("SELECT count(*) FROM outbox WHERE parked_at IS NULL") == FULL
        assert await look.fetchval("SELECT held FROM ams_mailing") == "-32603: Mailing with id=42 not exists"
        standin.mailings = {42}
        await one.cycle()
    assert len(standin.received) == FULL
    assert await look.fetchval("SELECT count(*) FROM outbox") == 0
