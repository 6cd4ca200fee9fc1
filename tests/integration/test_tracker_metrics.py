"""What an operator watches: every hit is counted once, where it was kept, and a loss is loud."""

import asyncio
import threading
from pathlib import Path

import pytest
from aiohttp import web
from prometheus_client import REGISTRY

from injector.tokens import Keyring, Purpose
from tests.tracker_support import Kept, door, journaled, make_hits, tracking
from tracker.app import make_app
from tracker.buffer import open_buffer
from tracker.journal import Journal
from tracker.keep import BufferUnavailableError
from tracker.listener import serve
from tracker.settings import TrackerSettings

PATIENT = TrackerSettings(append_wait=5.0)


class Counted:
    """How far a metric has moved since this was made."""

    def __init__(self, name: str, **labels: str) -> None:
        self._name = name
        self._labels = labels
        self._before = self._value()

    @property
    def more(self) -> float:
        """The difference."""
        return self._value() - self._before

    def _value(self) -> float:
        return REGISTRY.get_sample_value(self._name, self._labels) or 0.0


async def test_hits_are_counted_where_they_were_kept(redis_url: str, tmp_path: Path) -> None:
    """Stream and journal have a counter each, per type; groups have a latency, the journal its size."""
    in_stream = Counted("outrider_hits_total", type="clicked", kept="stream")
    in_journal = Counted("outrider_hits_total", type="opened", kept="journal")
    groups = Counted("outrider_stream_append_seconds_count")
    fsyncs = Counted("outrider_journal_append_seconds_count")
    async with (
        door(redis_url) as way,
        open_buffer(way.url, tmp_path / "journal", PATIENT, tick=60) as buffer,
        tracking(buffer) as tracker,
    ):
        for _ in range(3):
            await tracker.ask(tracker.click)
        await way.shut()
        await tracker.ask(tracker.pixel)
        await tracker.ask(tracker.pixel)
        octets = REGISTRY.get_sample_value("outrider_journal_bytes") or 0.0
        assert octets == sum(path.stat().st_size for path in (tmp_path / "journal").glob("*.hits")) > 0
    assert (in_stream.more, in_journal.more) == (3, 2)
    assert groups.more >= 3
    assert fsyncs.more == 2


async def test_losses_and_refusals_are_counted() -> None:
    """A hit that was answered and not kept, and a token that is none of ours, leave a number each."""
    kept = Kept()
    lost = {
        name: Counted("outrider_hits_unrecorded_total", type=name) for name in ("opened", "clicked", "unsubscribed")
    }
    refused = {purpose: Counted("outrider_tokens_refused_total", purpose=purpose) for purpose in Purpose}
    malformed = Counted("outrider_bad_requests_total")
    async with tracking(kept) as tracker:
        kept.broken = True
        await tracker.ask(tracker.pixel)
        await tracker.ask(tracker.click)
        await tracker.ask(tracker.leave, "POST", body=b"List-Unsubscribe=One-Click")
        for path in ("/track/o/x", "/track/c/x", "/unsubscribe/x"):
            await tracker.ask(path)
        await tracker.say(b"nonsense\r\n\r\n")
    assert {name: counted.more for name, counted in lost.items()} == dict.fromkeys(lost, 1)
    assert {purpose: counted.more for purpose, counted in refused.items()} == dict.fromkeys(Purpose, 1)
    assert malformed.more == 1


async def test_a_disk_that_hangs_holds_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A visitor waits for the disk for a bounded time, the memory for waiting hits is bounded, and it recovers."""
    turning = threading.Event()
    monkeypatch.setattr("tracker.segment._flush", lambda _: turning.wait(30))
    monkeypatch.setattr("tracker.journal.DISK_SECONDS", 0.2)
    monkeypatch.setattr("tracker.journal._MAX_WAITING_BYTES", 5_000)
    journal = Journal(tmp_path, max_bytes=10_000_000)
    hits = make_hits(200)
    try:
        async with asyncio.timeout(10):
            results = await asyncio.gather(*(journal.append(hit) for hit in hits), return_exceptions=True)
        assert {type(result) for result in results} == {BufferUnavailableError}
        refused_at_once = sum("too slow" in str(result) for result in results)
        assert 0 < refused_at_once < 200
        turning.set()
        (late,) = make_hits(1)
        while True:
            try:
                await journal.append(late)
                break
            except BufferUnavailableError:
                await asyncio.sleep(0.05)
        assert late in journaled(tmp_path)
    finally:
        turning.set()
        await journal.close()


def _app(keyring: Keyring, kept: Kept) -> web.Application:
    return make_app(
        keyring=keyring,
        buffer=kept,
        settings=PATIENT,
        public_url="https://track.example.com",
        health=kept.health,
    )


async def test_workers_share_a_port_and_strangers_do_not() -> None:
    """SO_REUSEPORT lets several processes answer on one port; without it a taken port is an error at once."""
    kept = Kept()
    async with tracking(kept) as tracker:
        with pytest.raises(OSError, match="address already in use"):
            await serve(_app(tracker.keyring, kept), "127.0.0.1", tracker.port)
    first = await serve(_app(tracker.keyring, kept), "127.0.0.1", 0, reuse_port=True)
    port = first.addresses[0][1]
    second = await serve(_app(tracker.keyring, kept), "127.0.0.1", port, reuse_port=True)
    try:
        assert second.addresses == first.addresses
    finally:
        await first.cleanup()
        await second.cleanup()
