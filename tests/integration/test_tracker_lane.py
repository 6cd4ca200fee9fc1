"""What a kept connection is answered is what any other is, but for what the connection itself decides."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import pytest_asyncio

from injector.tokens import Keyring, Purpose
from ledger.events import Hit
from tests.conftest import Eventually
from tests.tracker_support import KEY, SECRET, Answer, Kept, Tracker, parse, tracking
from tracker.hit import Facts, Proxies
from tracker.keep import Keeper
from tracker.lane import Asked, Form, Lane

#: Thousands of requests, whose answers no socket buffers all.
_MOST = 100

KINDS = ["pixel", "click", "bad pixel", "bad click"]


@pytest.fixture
def kept() -> Kept:
    """Return the buffer that the tracker writes to."""
    return Kept()


@asynccontextmanager
async def visit(tracker: Tracker) -> AsyncIterator["Visitor"]:
    """Connect, and hang up at the end."""
    reader, writer = await asyncio.open_connection("127.0.0.1", tracker.port)
    try:
        yield Visitor(reader, writer)
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


@pytest_asyncio.fixture(params=["https://track.example.com", "http://track.example.com/below/here"])
async def tracker(request: pytest.FixtureRequest, kept: Kept) -> AsyncIterator[Tracker]:
    """Run a tracker on that buffer, with and without TLS in front of it."""
    async with tracking(kept, public_url=request.param) as running:
        yield running


def path(tracker: Tracker, kind: str) -> str:
    """Return what is asked for."""
    return {
        "pixel": tracker.pixel,
        "click": tracker.click,
        "bad pixel": tracker.pixel + "x",
        "bad click": tracker.click + "x",
    }[kind]


class Visitor:
    """A connection that is kept."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self.writer = writer

    async def ask(self, target: str, *headers: str, method: str = "GET", version: str = "1.1") -> Answer:
        """Send one request and return its answer; the connection stays."""
        lines = [f"{method} {target} HTTP/{version}", "Host: track.example.com", *headers, "", ""]
        self.writer.write("\r\n".join(lines).encode())
        return await self.answer(body=method != "HEAD")

    async def answer(self, *, body: bool = True) -> Answer:
        """Return the next answer."""
        head = await asyncio.wait_for(self._reader.readuntil(b"\r\n\r\n"), 10)
        octets = int(parse(head).headers.get("content-length", "0")) if body else 0
        return parse(head + await self._reader.readexactly(octets))


@pytest.mark.parametrize("kind", KINDS)
async def test_it_is_the_same_on_a_connection_that_ends(kind: str, tracker: Tracker) -> None:
    """Status, every header and the body; only that it ends is said of the other."""
    async with visit(tracker) as visitor:
        stays = [await visitor.ask(path(tracker, kind)) for _ in range(2)]
    status, headers, body = (await tracker.ask(path(tracker, kind))).shown
    assert headers.pop("connection") == "close"
    assert [one.shown for one in stays] == [(status, headers, body)] * 2
    assert all("date" in one.headers for one in stays)


@pytest.mark.parametrize("kind", ["pixel", "click"])
async def test_hits_are_kept_before_their_answers(kind: str, tracker: Tracker, kept: Kept) -> None:
    """Whoever has an answer has left a hit."""
    async with visit(tracker) as visitor:
        for number in range(3):
            await visitor.ask(path(tracker, kind))
            assert len(kept.hits) == number + 1


@pytest.mark.parametrize(
    ("method", "version", "headers"),
    [
        ("HEAD", "1.1", ()),
        ("GET", "1.0", ("Connection: keep-alive",)),
        ("GET", "1.1", ("Expect: 100-continue",)),
        ("GET", "1.1", ("Content-Length: 0",)),
    ],
)
async def test_who_asks_otherwise_is_answered_too(
    method: str, version: str, headers: tuple[str, ...], tracker: Tracker, kept: Kept
) -> None:
    """The way aiohttp goes: each of them keeps its connection, and says so where it has to."""
    async with visit(tracker) as visitor:
        for _ in range(2):
            answer = await visitor.ask(tracker.pixel, *headers, method=method, version=version)
            if answer.status == 100:
                answer = await visitor.answer()
            assert (answer.status, answer.headers["content-length"]) == (200, "43")
            assert answer.headers.get("connection") == ("keep-alive" if version == "1.0" else None)
    assert [hit.method for hit in kept.hits] == [method] * 2


async def test_many_requests_at_once_are_answered_in_their_order(tracker: Tracker, kept: Kept) -> None:
    """Pipelined: pixels and links in turn, and one that is none between them."""
    async with visit(tracker) as visitor:
        asked = [path(tracker, kind) for kind in ("pixel", "click", "bad click", "click", "pixel")]
        requests = (f"GET {one} HTTP/1.1\r\nHost: track.example.com\r\n\r\n" for one in asked)
        visitor.writer.write("".join(requests).encode())
        assert [(await visitor.answer()).status for _ in asked] == [200, 302, 404, 302, 200]
    assert [hit.link for hit in kept.hits] == [-1, 3, 3, -1]


async def test_who_asks_without_reading_waits(kept: Kept) -> None:
    """A visitor who sends for ever and reads nothing does not fill our memory with answers."""
    async with tracking(kept) as tracker, visit(tracker) as visitor:
        request = f"GET {tracker.pixel} HTTP/1.1\r\nHost: track.example.com\r\n\r\n".encode()
        # Until the buffers on the way are full: then nothing of it goes on.
        for sent in range(1, _MOST):
            visitor.writer.write(request * 1_000)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(1):
                    while len(kept.hits) < sent * 1_000:  # noqa: ASYNC110 - the tracker works through them
                        await asyncio.sleep(0.01)
                    continue
            break
        stood = len(kept.hits)
        visitor.writer.transport.abort()
    assert stood < sent * 1_000


async def test_what_is_being_answered_is_answered_when_the_tracker_stops(kept: Kept) -> None:
    """The second request of a connection, whose hit is being kept: it ends with its answer, and then the connection."""
    keeping, go_on = asyncio.Event(), asyncio.Event()
    keep = kept.append

    async def slowly(hit: Hit) -> None:
        keeping.set()
        await go_on.wait()
        await keep(hit)

    async with tracking(kept) as tracker, visit(tracker) as visitor:
        assert (await visitor.ask(tracker.pixel)).status == 200
        kept.append = slowly  # type: ignore[method-assign]  # the buffer becomes slow
        answer = asyncio.create_task(visitor.ask(tracker.pixel))
        await keeping.wait()
        stopped = asyncio.create_task(tracker.runner.cleanup())
        await asyncio.sleep(0.05)
        assert not answer.done()
        assert not stopped.done()
        go_on.set()
        assert (await answer).status == 200
        await stopped
    assert len(kept.hits) == 2


async def test_who_hangs_up_is_a_hit_all_the_same(kept: Kept, eventually: Eventually) -> None:
    """Nobody is there for the answer; the tracker goes on, for others too."""
    async with tracking(kept) as tracker:
        async with visit(tracker) as gone:
            await gone.ask(tracker.pixel)
            gone.writer.write(f"GET {tracker.click} HTTP/1.1\r\nHost: track.example.com\r\n\r\n".encode())
            await gone.writer.drain()
            gone.writer.transport.abort()
        await eventually(lambda: len(kept.hits) == 2)
        async with visit(tracker) as visitor:
            assert (await visitor.ask(tracker.pixel)).status == 200


async def test_an_error_of_ours_is_the_same_short_500(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whichever way the request went."""

    async def broken(hit: Hit) -> None:
        raise RuntimeError(hit.url)

    monkeypatch.setattr(kept, "append", broken)
    async with tracking(kept) as tracker, visit(tracker) as visitor:
        stays = [(await visitor.ask(tracker.click)).shown for _ in range(2)]
        status, headers, body = (await tracker.ask(tracker.click)).shown
    assert headers.pop("connection") == "close"
    assert stays == [(status, headers, body)] * 2
    assert (status, body) == (500, b"500 Internal Server Error\n")


@pytest.mark.parametrize(
    "header",
    [
        "Content-Length: 0",
        "Transfer-Encoding: chunked",
        "Connection: close",
        "Connection: keep-alive, close",
        "Expect: 100-continue",
        "Upgrade: websocket",
        "Host: another.example.com",
        "Accept-Language : de",
        " folded: 1",
        "X-Unheard-Of: 1",
        "User-Agent: caf\u00e9",
        "User-Agent: a\0b",
    ],
)
def test_only_what_is_beyond_doubt_goes_the_short_way(header: str) -> None:
    """Anything that could mean more than a request for a pixel is for aiohttp to read."""
    keyring = Keyring([SECRET])
    keeper = Keeper(keyring=keyring, buffer=Kept(), proxies=Proxies(()))
    lane = Lane(keeper, bases=("", "/below"), pixel=Form(200, {}), click=Form(302, {}), failed=Form(500, {}))
    token = keyring.mint(Purpose.OPEN, KEY)
    lines = ["Host: track.example.com", "User-Agent: Mozilla/5.0", "X-Forwarded-For: 192.0.2.1"]

    def read(*more: str, start: str = f"GET /track/o/{token} HTTP/1.1") -> Asked | None:
        return lane.read("\r\n".join([start, *lines, *more, "", ""]).encode(), "127.0.0.1")

    plain = read()
    assert plain is not None
    assert plain.claim.key == KEY
    assert plain.facts == Facts(method="GET", peer="127.0.0.1", forwarded=("192.0.2.1",), user_agent="Mozilla/5.0")
    assert read(start=f"GET /below/track/o/{token} HTTP/1.1") is not None
    assert read(header) is None


@pytest.mark.parametrize(
    "start",
    [
        "HEAD /track/o/{} HTTP/1.1",
        "GET /track/o/{} HTTP/1.0",
        "GET /track/o/{}?x=1 HTTP/1.1",
        "GET /track/o/{}%20 HTTP/1.1",
        "GET /track/c/{} HTTP/1.1",
        "GET /track/o/{}x HTTP/1.1",
        "GET  /track/o/{} HTTP/1.1",
        "GET http://x.example.com/track/o/{} HTTP/1.1",
        "POST /track/o/{} HTTP/1.1",
        "\r\nGET /track/o/{} HTTP/1.1",
    ],
)
def test_other_targets_go_the_long_way(start: str) -> None:
    """Also half a request, and more than one."""
    keyring = Keyring([SECRET])
    keeper = Keeper(keyring=keyring, buffer=Kept(), proxies=Proxies(()))
    lane = Lane(keeper, bases=("",), pixel=Form(200, {}), click=Form(302, {}), failed=Form(500, {}))
    token = keyring.mint(Purpose.OPEN, KEY)
    whole = f"GET /track/o/{token} HTTP/1.1\r\nHost: x\r\n\r\n".encode()
    assert lane.read(whole, "") is not None
    assert lane.read(whole[:-1], "") is None
    assert lane.read(whole * 2, "") is None
    assert lane.read(f"{start.format(token)}\r\nHost: x\r\n\r\n".encode(), "") is None
