"""Large mail to many: the event loop goes on, memory is bounded, and every octet arrives."""

import asyncio
import gc
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import injector
from injector.tokens import Keyring
from relay import capture, upstream_pool
from relay.capture import CaptureUpstream
from relay.inject import UrlMinter
from relay.rendering import SMALL, Budget, pieces
from relay.upstream import Letter, Trouble, Verdict
from relay.upstream_address import parse
from relay.upstream_pool import SmtpUpstream
from tests.conftest import Eventually
from tests.sink import Sink

MEGABYTE = 1024 * 1024

_TEXT = b'<p>Hello <a href="https://shop.example/%d">offer</a> and many more words of a long letter.</p>\r\n'


async def _nothing() -> None:
    return


def letter(render: Callable[[], bytes], size: int, key: str = "a" * 26) -> Letter:
    """Return a letter of *size* octets."""
    return Letter(
        key=key,
        sender="a@example.com",
        recipient="b@example.net",
        smtputf8=False,
        size=size,
        render=lambda _: render(),
    )


def large_mail(size: int) -> bytes:
    """Return an HTML message with an attachment of about *size* octets."""
    line = b"QUJD" * 19 + b"\r\n"
    return (
        b"From: a@example.com\r\nTo: b@example.net\r\nSubject: x\r\nMIME-Version: 1.0\r\n"
        b'Content-Type: multipart/mixed; boundary="b"\r\n\r\n--b\r\nContent-Type: text/html; charset=utf-8\r\n\r\n'
        b"<html><body>" + b"".join(_TEXT % number for number in range(2000)) + b"</body></html>\r\n"
        b"--b\r\nContent-Type: application/octet-stream\r\nContent-Transfer-Encoding: base64\r\n\r\n"
        + line * (size // len(line))
        + b"--b--\r\n"
    )


@asynccontextmanager
async def swallowing() -> AsyncIterator[tuple[int, list[int]]]:
    """Yield the port of an upstream that keeps nothing, and the octets of every message that it accepted."""
    accepted: list[int] = []

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 sink.example ESMTP\r\n")
        while verb := (await reader.readline())[:4]:
            if verb == b"DATA":
                writer.write(b"354 Go\r\n")
                accepted.append(await _swallow(reader))
            writer.write(b"221 Bye\r\n" if verb == b"QUIT" else b"250 Ok\r\n")
        writer.close()

    server = await asyncio.start_server(talk, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1], accepted


async def _swallow(reader: asyncio.StreamReader) -> int:
    octets, tail = 0, b""
    while not tail.endswith(b"\r\n.\r\n"):
        block = await reader.read(65536)
        assert block
        octets += len(block)
        tail = (tail + block)[-5:]
    return octets


def captured(directory: Path) -> list[bytes]:
    """Return what a capture upstream has kept."""
    return [path.read_bytes() for path in directory.glob("*.eml")]


@asynccontextmanager
async def watched() -> AsyncIterator[list[tuple[float, float]]]:
    """Yield what passed between the ticks of a clock that ticks every ten milliseconds: time, and our thread's work."""
    gaps: list[tuple[float, float]] = []
    # A look at all that the tests before this one have left would count as ours.
    gc.disable()

    async def tick() -> None:
        time_before, work_before = time.monotonic(), time.thread_time()
        while True:
            await asyncio.sleep(0.01)
            now, work = time.monotonic(), time.thread_time()
            gaps.append((now - time_before, work - work_before))
            time_before, work_before = now, work

    ticking = asyncio.create_task(tick())
    try:
        yield gaps
    finally:
        gc.enable()
        ticking.cancel()
        await asyncio.wait({ticking})


@pytest.mark.parametrize("kind", ["smtp", "capture"])
async def test_a_large_mail_to_many_stops_nobody(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Twenty recipients of twenty megabytes: the loop never rests for long, and few are in memory at once."""
    content = large_mail(20 * MEGABYTE)
    plan = injector.plan(injector.parse(content), injector.Options(public_url="https://t.example.com"), campaign=True)
    budget = Budget(64 * MEGABYTE)
    monkeypatch.setattr(upstream_pool, "BUDGET", budget)
    monkeypatch.setattr(capture, "BUDGET", budget)
    free: list[int] = []

    def rendering_of(number: int) -> Callable[[], bytes]:
        minter = UrlMinter(Keyring([b"secret"]), "https://t.example.com", bytes([number]) * 16)

        def render() -> bytes:
            free.append(budget._free)
            rendered = plan.render(minter, injector.HeaderEdits(prepend=(), set_message_id=None, remove=()))
            assert rendered.injected
            return rendered.content

        return render

    # What the loop would be kept from everything else for, if it did one of them itself.
    begun = time.thread_time()
    for _ in pieces(rendering_of(20)()):
        pass
    one_of_them = time.thread_time() - begun
    free.clear()
    async with swallowing() as (port, accepted), watched() as gaps:
        where = (
            SmtpUpstream(parse(f"smtp://127.0.0.1:{port}"), hostname="relay.example.com")
            if kind == "smtp"
            else CaptureUpstream(tmp_path)
        )
        outcomes = await asyncio.gather(
            *(
                where.send(letter(rendering_of(number), len(content), key=f"{number:026d}"), _nothing)
                for number in range(20)
            )
        )
        await where.close()
    assert all(isinstance(outcome, Verdict) and outcome.accepted for outcome in outcomes)
    sizes = accepted if kind == "smtp" else [len(mail) for mail in captured(tmp_path)]
    assert len(sizes) == 20
    assert min(sizes) > len(content)
    # Of the time a busy machine takes its share; the work between two ticks is all ours.
    assert max(gap for gap, _ in gaps) < 2.0
    assert max(work for _, work in gaps) < one_of_them
    # Three of them fit.
    assert min(free) >= 0
    assert max(free) <= 64 * MEGABYTE - len(content)
    assert budget._free == 64 * MEGABYTE


@pytest.mark.parametrize("kind", ["smtp", "capture"])
async def test_every_octet_of_a_large_mail_arrives(kind: str, tmp_path: Path) -> None:
    """Dots at the beginning of lines, wherever a piece ends."""
    content = b".\r\n" + b"\r\n.." * 100_000 + b"\r\n" * 100_000 + b"." * 70_000 + b"\r\n.x" * 100_000
    async with Sink().listening() as sink:
        where = (
            SmtpUpstream(parse(f"smtp://127.0.0.1:{sink.port}"), hostname="relay.example.com")
            if kind == "smtp"
            else CaptureUpstream(tmp_path)
        )
        for _ in range(2):
            outcome = await where.send(letter(lambda: content, len(content)), _nothing)
            assert isinstance(outcome, Verdict)
            assert outcome.accepted
        await where.close()
        kept = [one.content for one in sink.kept] if kind == "smtp" else captured(tmp_path)
        assert sink.connections == (kind == "smtp")
    # It ends without a line end: SMTP gives it one.
    assert set(kept) == {content + b"\r\n" if kind == "smtp" else content}


@given(
    st.lists(st.sampled_from([b"\r", b"\n", b".", b"\r\n.", b"x", b"\r\n", b"y" * 30])).map(b"".join),
    st.integers(min_value=-8, max_value=8),
)
def test_pieces_are_the_whole(around: bytes, shift: int) -> None:
    """Invariant: cut into pieces or not, what follows a 354 is the same."""
    content = b"z" * (65_536 - len(around) // 2 + shift) + around
    whole = b"".join(pieces(content))
    end = b".\r\n" if content.endswith(b"\r\n") else b"\r\n.\r\n"
    assert whole == content.replace(b"\r\n.", b"\r\n..") + end


async def test_a_refusal_before_the_end_counts() -> None:
    """An upstream that answers 552 half-way and reads no more: its words come back, and nothing hangs."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 sink.example ESMTP\r\n")
        while verb := (await reader.readline())[:4]:
            if verb == b"DATA":
                writer.write(b"354 Go\r\n")
                await reader.readexactly(100_000)
                writer.write(b"552 5.3.4 Too big\r\n")
                await writer.drain()
                await gone.wait()
                break
            writer.write(b"250 Ok\r\n")
        writer.close()

    gone = asyncio.Event()
    content = b"x" * 70 + b"\r\n" * (10 * MEGABYTE)
    server = await asyncio.start_server(talk, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        where = SmtpUpstream(parse(f"smtp://127.0.0.1:{port}"), hostname="relay.example.com")
        async with asyncio.timeout(20):
            outcome = await where.send(letter(lambda: content, len(content)), _nothing)
        gone.set()
        await where.close()
    assert outcome == Verdict(code=552, text="5.3.4 Too big")


async def test_an_upstream_that_is_gone_half_way_is_a_doubt() -> None:
    """Its connection breaks while content is written: it may have it, and it is tried again."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 sink.example ESMTP\r\n")
        while verb := (await reader.readline())[:4]:
            writer.write(b"354 Go\r\n" if verb == b"DATA" else b"250 Ok\r\n")
            if verb == b"DATA":
                await reader.readexactly(100_000)
                break
        writer.transport.abort()

    content = b"x\r\n" * (10 * MEGABYTE)
    async with await asyncio.start_server(talk, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        where = SmtpUpstream(parse(f"smtp://127.0.0.1:{port}"), hostname="relay.example.com")
        outcome = await where.send(letter(lambda: content, len(content)), _nothing)
        await where.close()
    assert isinstance(outcome, Trouble)
    assert outcome.doubtful


async def test_a_verdict_does_not_wait_for_a_farewell() -> None:
    """A QUIT that is never answered holds nobody up; the pool ends its connection all the same."""
    quits: list[float] = []

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 sink.example ESMTP\r\n")
        while verb := (await reader.readline())[:4]:
            if verb == b"QUIT":
                quits.append(time.monotonic())
                continue
            writer.write(b"354 Go\r\n" if verb == b"DATA" else b"250 Ok\r\n")
            if verb == b"DATA":
                await _swallow(reader)
                writer.write(b"250 Ok\r\n")
        writer.close()

    async with await asyncio.start_server(talk, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        where = SmtpUpstream(parse(f"smtp://127.0.0.1:{port}"), hostname="relay.example.com", max_messages=1)
        begun = time.monotonic()
        for _ in range(3):
            assert isinstance(await where.send(letter(lambda: b"x\r\n", 0), _nothing), Verdict)
        assert time.monotonic() - begun < 4
        await where.close()
    assert len(quits) == 3


async def test_a_budget_is_first_come_first_served() -> None:
    """The one that is too large for all of it runs alone; who is cancelled leaves nothing taken."""
    budget = Budget(10 * MEGABYTE)
    order: list[int] = []

    async def take(number: int, octets: int) -> None:
        async with budget.share(octets):
            order.append(number)
            await asyncio.sleep(0)

    async with budget.share(6 * MEGABYTE):
        tasks = [asyncio.create_task(take(number, octets * MEGABYTE)) for number, octets in enumerate((5, 50, 1, 1))]
        await asyncio.sleep(0)
        await take(9, SMALL)
        assert order == [9]
        tasks[2].cancel()
    await asyncio.wait(tasks)
    assert order == [9, 0, 1, 3]
    assert budget._free == 10 * MEGABYTE


async def test_a_cancelled_rendering_takes_room_until_it_is_done(eventually: Eventually) -> None:
    """Nobody can stop a thread: what it makes counts until it has made it."""
    budget = Budget(10 * MEGABYTE)
    begun, go_on = threading.Event(), threading.Event()

    def render() -> bytes:
        begun.set()
        assert go_on.wait(20)
        return b""

    async def work() -> None:
        async with budget.share(4 * MEGABYTE) as share:
            await share.render(render)

    task = asyncio.create_task(work())
    await eventually(begun.is_set)
    task.cancel()
    await asyncio.wait({task})
    assert budget._free == 6 * MEGABYTE
    go_on.set()
    await eventually(lambda: budget._free == 10 * MEGABYTE)
