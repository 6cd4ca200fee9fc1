"""No answered hit is lost: whatever Redis, the disk or the process does, it is in the stream or in the journal."""

import asyncio
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from redis.asyncio import Redis

from ledger.events import Hit
from ledger.stream import GROUP, STREAM
from tests.conftest import ROOT, Eventually
from tests.tracker_support import Door, door, journaled, make_hits, streamed, tracking
from tracker.buffer import SafeBuffer, open_buffer
from tracker.drain import Drain
from tracker.health import Health
from tracker.journal import Journal
from tracker.keep import BufferUnavailableError
from tracker.segment import frame
from tracker.settings import TrackerSettings
from tracker.stream import StreamBuffer

TICK = 0.05
PATIENT = TrackerSettings(append_wait=5.0)
NOWHERE = "redis://127.0.0.1:1/0"


def ids(hits: Sequence[Hit]) -> set[bytes]:
    """Return the ids of *hits*: what the ledger tells copies by."""
    return {hit.id for hit in hits}


def files(directory: Path) -> list[Path]:
    """Return the files of the journal."""
    return list(directory.iterdir())


async def append_all(buffer: SafeBuffer, hits: Sequence[Hit]) -> None:
    """Append *hits* as so many visitors at once."""
    await asyncio.gather(*(buffer.append(hit) for hit in hits))


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """Return where the journal is."""
    return tmp_path / "journal"


@pytest_asyncio.fixture
async def way(redis_url: str) -> AsyncIterator[Door]:
    """Put a door in front of Redis."""
    async with door(redis_url) as made:
        yield made


async def test_with_redis_up_nothing_touches_the_disk(redis_url: str, directory: Path) -> None:
    """The stream alone keeps the hits of a healthy day."""
    hits = make_hits(300)
    async with open_buffer(redis_url, directory, PATIENT, tick=TICK) as buffer:
        await append_all(buffer, hits)
        assert buffer.health() == Health(ready=True)
        assert journaled(directory) == []
    assert ids(await streamed(redis_url)) == ids(hits)


async def test_with_redis_down_the_journal_keeps_and_then_drains(
    way: Door, redis_url: str, directory: Path, eventually: Eventually
) -> None:
    """Started without Redis it keeps, says that it is degraded, and moves everything when Redis comes."""
    await way.shut()
    hits = make_hits(300)
    async with open_buffer(way.url, directory, PATIENT, tick=TICK) as buffer:
        await append_all(buffer, hits)
        assert ids(journaled(directory)) == ids(hits)
        health = buffer.health()
        assert health.ready
        assert any(said.startswith("redis: ") for said in health.degraded)
        await way.open()
        await eventually(lambda: buffer.health() == Health(ready=True) and not journaled(directory))
        assert ids(await streamed(redis_url)) == ids(hits)


async def test_redis_may_come_and_go_under_load(
    way: Door, redis_url: str, directory: Path, eventually: Eventually
) -> None:
    """Every hit whose append returned is there once by its id, however often Redis went away meanwhile."""
    answered: list[Hit] = []
    async with open_buffer(way.url, directory, PATIENT, tick=TICK) as buffer:
        over = asyncio.Event()

        async def visitor() -> None:
            while not over.is_set():
                (hit,) = make_hits(1)
                await buffer.append(hit)
                answered.append(hit)

        visitors = [asyncio.create_task(visitor()) for _ in range(8)]
        for _ in range(4):
            seen = len(answered)
            await eventually(lambda seen=seen: len(answered) > seen + 50)  # type: ignore[misc] # mypy cannot infer a default
            await way.shut()
            seen = len(answered)
            await eventually(lambda seen=seen: len(answered) > seen + 50)  # type: ignore[misc] # the same
            await way.open()
        over.set()
        await asyncio.gather(*visitors)
        await eventually(lambda: buffer.health() == Health(ready=True))
    assert ids(answered) <= ids(await streamed(redis_url))


async def test_what_waits_in_the_journal_shows_before_it_is_measured(way: Door, directory: Path) -> None:
    """Redis is trusted again, and nobody has looked at the journal yet: it is not as if nothing waited."""
    async with open_buffer(way.url, directory, PATIENT, tick=60) as buffer:
        await way.shut()
        await append_all(buffer, make_hits(1))
        await way.open()
        await buffer.judge()
        (degraded,) = buffer.health().degraded
        assert degraded.endswith("octets wait for the stream")
        await buffer.sweep()
        assert buffer.health() == Health(ready=True)


async def test_what_is_being_moved_shows_until_it_is_in_the_stream(way: Door, redis_url: str, directory: Path) -> None:
    """At every turn of the loop: a look that has only begun has seen nothing."""
    async with open_buffer(way.url, directory, PATIENT, tick=3600) as buffer:
        await way.shut()
        await append_all(buffer, make_hits(3))
        await way.open()
        await buffer.judge()
        sweeping = asyncio.create_task(buffer.sweep())
        while not sweeping.done():
            assert buffer.health().degraded
            await asyncio.sleep(0)
        assert buffer.health() == Health(ready=True)
        assert len(await streamed(redis_url)) == 3


async def test_a_slow_redis_is_not_waited_for(way: Door, redis_url: str, directory: Path) -> None:
    """A visitor waits append_wait once, the next ones not at all; what Redis took after all is a copy by id."""
    settings = TrackerSettings(append_wait=0.3)
    hits = make_hits(60)
    async with open_buffer(way.url, directory, settings, tick=60) as buffer:
        assert buffer.health() == Health(ready=True)
        await append_all(buffer, hits[:20])
        way.stall()
        started = time.monotonic()
        await append_all(buffer, hits[20:40])
        first = time.monotonic() - started
        assert 0.3 <= first < 2.0
        started = time.monotonic()
        await append_all(buffer, hits[40:])
        assert time.monotonic() - started < 0.3
        assert ids(journaled(directory)) >= ids(hits[20:])
        way.resume()
    assert ids(await streamed(redis_url)) == ids(hits)


@pytest.mark.parametrize(
    ("name", "value", "doubt"),
    [("appendonly", "no", "appendonly is not on"), ("maxmemory-policy", "allkeys-lru", "noeviction")],
)
async def test_a_redis_without_proof_gets_copies_only(
    name: str, value: str, doubt: str, redis: Redis, redis_url: str, directory: Path, eventually: Eventually
) -> None:
    """What it might lose stays in the journal until a courier has acknowledged it."""
    hits = make_hits(30)
    async with open_buffer(redis_url, directory, PATIENT, tick=TICK) as buffer:
        await append_all(buffer, hits[:10])
        await redis.config_set(name, value)
        await eventually(lambda: any(doubt in said for said in buffer.health().degraded))
        assert buffer.health().ready
        await append_all(buffer, hits[10:])
        await eventually(lambda: has(redis_url, hits))
        assert ids(journaled(directory)) >= ids(hits[10:])
        await redis.xgroup_create(STREAM, GROUP, id="0")
        entries: Any = await redis.xreadgroup(GROUP, "a courier", {STREAM: ">"}, count=1000)
        await asyncio.sleep(TICK * 3)  # read is not recorded: the journal must not follow it
        assert ids(journaled(directory)) >= ids(hits[10:])
        await redis.xack(STREAM, GROUP, *[entry for entry, _ in entries[0][1]])
        await eventually(lambda: not journaled(directory))


async def has(redis_url: str, hits: Sequence[Hit]) -> bool:
    """Say whether the stream has all of *hits*."""
    return ids(hits) <= ids(await streamed(redis_url))


async def test_a_redis_that_lost_its_memory_is_told_again(redis: Redis, redis_url: str, directory: Path) -> None:
    """A restart without a durable file empties the stream; the journal still has it and moves it once more."""
    hits = make_hits(20)
    journal, stream = Journal(directory, max_bytes=10_000_000), StreamBuffer(redis_url, wait=5)
    try:
        for hit in hits:
            await journal.append(hit)
        drain = Drain(journal, stream)
        await drain.sweep(run="one process", safe=False)
        assert await has(redis_url, hits)
        await drain.sweep(run="one process", safe=False)
        assert len(await streamed(redis_url)) == len(hits)
        await redis.delete(STREAM)  # evicted, in the same process
        await drain.sweep(run="one process", safe=False)
        assert await has(redis_url, hits)
        await drain.sweep(run="the next process", safe=False)
        assert len(await streamed(redis_url)) == 2 * len(hits)
        assert ids(journaled(directory)) == ids(hits)
        await drain.sweep(run="the next process", safe=True)
        assert journaled(directory) == []
        assert len(await streamed(redis_url)) == 2 * len(hits)
    finally:
        await journal.close()
        await stream.close()


async def test_a_full_redis_is_no_loss(redis: Redis, redis_url: str, directory: Path, eventually: Eventually) -> None:
    """The entry is refused (noeviction); the journal takes it, and moves it when there is room."""
    hits = make_hits(40)
    async with open_buffer(redis_url, directory, PATIENT, tick=TICK) as buffer:
        await append_all(buffer, hits[:20])
        await redis.config_set("maxmemory", "1")
        await append_all(buffer, hits[20:])
        assert ids(journaled(directory)) >= ids(hits[20:])
        await redis.config_set("maxmemory", "0")
        await eventually(lambda: buffer.health() == Health(ready=True))
    assert ids(await streamed(redis_url)) == ids(hits)


async def test_what_can_be_kept_nowhere_is_said_loudly(
    way: Door, redis_url: str, directory: Path, eventually: Eventually
) -> None:
    """Visitors are answered all the same; /readyz is 503 until a hit can be kept again, by itself."""
    directory.write_bytes(b"not a directory")  # noqa: ASYNC240 - the fault itself
    (hit,) = make_hits(1)
    async with open_buffer(way.url, directory, PATIENT, tick=TICK) as buffer, tracking(buffer) as tracker:
        assert (await tracker.ask("/readyz")).status == 200
        await way.shut()
        assert (await tracker.ask(tracker.click)).status == 302
        assert (await tracker.ask("/readyz")).status == 503
        with pytest.raises(BufferUnavailableError):
            await buffer.append(hit)
        directory.unlink()  # noqa: ASYNC240 - its end
        await eventually(lambda: buffer.health().ready)
        await buffer.append(hit)
        assert (await tracker.ask("/readyz")).status == 200
        await way.open()
    assert ids(await streamed(redis_url)) == ids([hit])


async def test_the_journal_is_bounded(directory: Path) -> None:
    """Full means refused and counted, never a full disk; what it holds stays whole."""
    journal = Journal(directory, max_bytes=20_000, segment_bytes=3_000)
    kept: list[Hit] = []
    try:
        for hit in make_hits(1000):
            try:
                await journal.append(hit)
            except BufferUnavailableError:
                break
            kept.append(hit)
        assert 15_000 < await journal.measure() <= 20_000
        assert len(files(directory)) > 5
        assert journaled(directory) == kept
        with pytest.raises(BufferUnavailableError):
            await journal.check()
    finally:
        await journal.close()


async def test_two_workers_share_a_directory(directory: Path, redis_url: str) -> None:
    """Each writes its own files; nobody drains the other's while it lives, and both are drained in the end."""
    hits = make_hits(40)
    async with open_buffer(NOWHERE, directory, PATIENT, tick=TICK) as one:
        await append_all(one, hits[:20])
        async with open_buffer(redis_url, directory, PATIENT, tick=60) as two:
            await two.append(hits[20])
            await two.sweep()
            assert ids(journaled(directory)) == ids(hits[:20])
        await append_all(one, hits[21:])
    assert ids(await streamed(redis_url)) == {hits[20].id}
    async with open_buffer(redis_url, directory, PATIENT, tick=60):
        pass
    assert ids(await streamed(redis_url)) == ids(hits)
    assert files(directory) == []


async def test_a_drain_that_was_interrupted_is_repeated_whole(directory: Path, redis_url: str) -> None:
    """Killed after the stream took a file and before the file was gone: the copies have the same ids."""
    hits = make_hits(1200)
    async with open_buffer(NOWHERE, directory, PATIENT, tick=60) as buffer:
        await append_all(buffer, hits)
    saved = {path: path.read_bytes() for path in files(directory)}
    async with open_buffer(redis_url, directory, PATIENT, tick=60):
        pass
    assert files(directory) == []
    for path, content in saved.items():
        path.write_bytes(content + frame(b"torn off here")[:-3])
    async with open_buffer(redis_url, directory, PATIENT, tick=60):
        pass
    found = await streamed(redis_url)
    assert (len(found), ids(found)) == (2 * len(hits), ids(hits))
    assert files(directory) == []


_WRITER = """
import asyncio, sys
from pathlib import Path
from typing import Any
from tests.tracker_support import make_hits
from tracker.buffer import open_buffer
from tracker.settings import TrackerSettings

async def visitor(buffer):
    while True:
        hit = make_hits(1)[0]
        await buffer.append(hit)
        print("hit", hit.id.hex(), flush=True)

async def main():
    async with open_buffer(sys.argv[1], Path(sys.argv[2]), TrackerSettings(append_wait=5), tick=0.05) as buffer:
        await asyncio.gather(*(visitor(buffer) for _ in range(6)))

asyncio.run(main())
"""


@pytest.mark.parametrize("outage", [False, True])
async def test_kill_nine_loses_no_answered_hit(
    outage: bool,  # noqa: FBT001 - pytest passes it by name
    way: Door,
    redis_url: str,
    directory: Path,
    eventually: Eventually,
) -> None:
    """Killed in the middle of writing, and of draining: what was answered is in the ledger's way all the same."""
    if outage:
        await way.shut()
    writer = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        _WRITER,
        way.url,
        str(directory),
        stdout=asyncio.subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    assert writer.stdout is not None
    said: list[bytes] = []
    try:
        while len(said) < 300:
            said.append(await asyncio.wait_for(writer.stdout.readline(), 30))
            if outage and len(said) == 200:
                await way.open()
    finally:
        writer.send_signal(signal.SIGKILL)
    said += (await writer.stdout.read()).splitlines(keepends=True)
    await writer.wait()
    answered = {line[4:-1].decode() for line in said if line.startswith(b"hit ") and line.endswith(b"\n")}
    assert len(answered) >= 250
    if not outage:
        assert journaled(directory) == []
    async with open_buffer(redis_url, directory, PATIENT, tick=TICK) as buffer:
        await eventually(lambda: buffer.health() == Health(ready=True))
    found = {hit.id.hex() for hit in await streamed(redis_url)}
    assert answered <= found


async def test_fsync_errors_end_a_file_for_good(directory: Path, tmp_path: Path) -> None:
    """A disk that refuses a write refuses the hit; what was fsynced before stays, and nothing is appended behind."""
    script = """
import asyncio, resource, sys
from pathlib import Path
from typing import Any
from tests.tracker_support import make_hits
from tracker.journal import Journal
from tracker.keep import BufferUnavailableError

async def main():
    journal = Journal(Path(sys.argv[1]), max_bytes=10_000_000)
    kept, refused = 0, 0
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))
    for hit in make_hits(40):
        try:
            await journal.append(hit)
            kept += 1
        except BufferUnavailableError:
            refused += 1
    print(kept, refused)
    await journal.close()

asyncio.run(main())
"""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        script,
        str(directory),
        stdout=asyncio.subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        cwd=tmp_path,
    )
    output, _ = await process.communicate()
    kept, refused = map(int, output.split())
    assert process.returncode == 0
    assert kept + refused == 40
    # A file takes 1000 octets: its first refusal ends it, and the next hit starts another.
    assert 2 <= refused < kept
    assert len(journaled(directory)) == kept
    assert len(files(directory)) in {refused, refused + 1}
