"""What every hit buffer promises its callers, asked of the stream and of the journal alike."""

import asyncio
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Protocol

import pytest
import pytest_asyncio

from ledger.events import EventType, Hit
from tests.tracker_support import Door, door, journaled, make_hits, streamed
from tracker.journal import Journal
from tracker.keep import BufferUnavailableError, HitBuffer
from tracker.stream import StreamBuffer


class Kept(Protocol):
    """A buffer with its back door."""

    @property
    def buffer(self) -> HitBuffer:
        """The buffer."""
        ...

    async def hits(self) -> list[Hit]:
        """Return what the buffer holds, read by somebody else than the buffer."""
        ...

    async def take_away(self) -> None:
        """Make what stands behind the buffer unreachable."""
        ...

    async def bring_back(self) -> None:
        """Make it reachable again."""
        ...


class InStream:
    """The stream, behind a door."""

    def __init__(self, buffer: StreamBuffer, way: Door, redis_url: str) -> None:
        self.buffer = buffer
        self._way = way
        self._redis_url = redis_url

    async def hits(self) -> list[Hit]:
        return await streamed(self._redis_url)

    async def take_away(self) -> None:
        await self._way.shut()

    async def bring_back(self) -> None:
        await self._way.open()


class InJournal:
    """The journal, in a directory that can be replaced by a file."""

    def __init__(self, buffer: Journal, directory: Path) -> None:
        self.buffer = buffer
        self._directory = directory
        self._elsewhere = directory.with_name("elsewhere")

    async def hits(self) -> list[Hit]:
        return journaled(self._directory)

    async def take_away(self) -> None:
        shutil.move(self._directory, self._elsewhere)
        self._directory.write_bytes(b"not a directory")

    async def bring_back(self) -> None:
        self._directory.unlink()
        shutil.move(self._elsewhere, self._directory)


@pytest_asyncio.fixture(params=["stream", "journal"])
async def kept(request: pytest.FixtureRequest, tmp_path: Path, redis_url: str) -> AsyncIterator[Kept]:
    """Return each kind of buffer, on the real thing."""
    if request.param == "journal":
        journal = Journal(tmp_path / "journal", max_bytes=10_000_000)
        yield InJournal(journal, tmp_path / "journal")
        await journal.close()
        return
    async with door(redis_url) as way:
        stream = StreamBuffer(way.url, wait=5.0)
        yield InStream(stream, way, redis_url)
        await stream.close()


async def test_a_hit_is_kept_when_append_returns(kept: Kept) -> None:
    """Whoever looks after the answer finds the hit, with everything that was in it."""
    hit = make_hits(1)[0]
    await kept.buffer.append(hit)
    assert await kept.hits() == [hit]


@pytest.mark.parametrize(
    "hit",
    [
        Hit(id=bytes(16), type=EventType.OPENED, key=bytes(16), at_ms=0),
        Hit(
            id=b"\r\n*5\r\n$4\r\nXADD.",
            type=EventType.CLICKED,
            key=b"\xff" * 16,
            at_ms=2**62,
            link=2**31 - 1,
            url="https://example.com/?" + "\u65e5" * 1000,
            method="HEAD",
            network="2001:db8::/48",
            user_agent="\U0001f4e7" * 512,
            purpose="prefetch",
        ),
    ],
)
async def test_any_hit_comes_back_unchanged(hit: Hit, kept: Kept) -> None:
    """Neither size nor content matters: not zeros, not what looks like a command."""
    await kept.buffer.append(hit)
    assert await kept.hits() == [hit]


async def test_a_crowd_is_kept_whole(kept: Kept) -> None:
    """Hits that arrive together are written in groups; none is lost, none is doubled."""
    hits = make_hits(2500)
    await asyncio.gather(*(kept.buffer.append(hit) for hit in hits))
    assert sorted(hit.id for hit in await kept.hits()) == sorted(hit.id for hit in hits)


async def test_a_copy_is_kept_as_a_copy(kept: Kept) -> None:
    """A buffer does not judge: the ledger knows a hit by its id."""
    hit = make_hits(1)[0]
    await kept.buffer.append(hit)
    await kept.buffer.append(hit)
    assert await kept.hits() == [hit, hit]


async def test_a_visitor_who_gives_up_harms_nobody(kept: Kept) -> None:
    """A cancelled wait leaves its neighbours in the same group kept."""
    hits = make_hits(40)
    tasks = [asyncio.create_task(kept.buffer.append(hit)) for hit in hits]
    await asyncio.sleep(0)
    for task in tasks[::4]:
        task.cancel()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    stayed = {hit.id for hit, result in zip(hits, results, strict=True) if result is None}
    assert len(stayed) >= 30
    assert stayed <= {hit.id for hit in await kept.hits()}


async def test_an_unreachable_buffer_says_so_and_recovers_by_itself(kept: Kept) -> None:
    """While it is away every append fails with one exception; when it is back the next one is kept."""
    first, lost, second = make_hits(3)
    await kept.buffer.append(first)
    await kept.take_away()
    for _ in range(3):
        with pytest.raises(BufferUnavailableError) as refusal:
            await kept.buffer.append(lost)
        assert lost.url not in str(refusal.value)
    await kept.bring_back()
    await kept.buffer.append(second)
    found = await kept.hits()
    assert first in found
    assert second in found
