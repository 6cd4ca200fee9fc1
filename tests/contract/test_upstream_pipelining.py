"""MAIL, RCPT and DATA in one write: the answers mean what they meant, and a no never delivers anything."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
import trustme
import uvloop

from relay import upstream_exchange
from relay.upstream import Outcome, Trouble, Verdict
from relay.upstream_address import parse
from relay.upstream_connection import Connector
from relay.upstream_pool import SmtpUpstream
from tests.contract.test_upstream import CONTENT, _nothing, letter
from tests.sink import Sink


def offering(sink: Sink) -> Sink:
    """Let *sink* offer PIPELINING."""
    sink.extensions.append("PIPELINING")
    return sink


@asynccontextmanager
async def sending(sink: Sink) -> AsyncIterator[Callable[[], "asyncio.Task[Outcome]"]]:
    """Yield what offers a letter to *sink*."""
    async with offering(sink).listening():
        upstream = SmtpUpstream(parse(f"smtp://127.0.0.1:{sink.port}"), hostname="relay.example.com")
        yield lambda: asyncio.create_task(upstream.send(letter(), _nothing))
        await upstream.close()


class Scripted:
    """A server that answers each write, however many commands it holds, with the next of its *answers*."""

    def __init__(self, *answers: bytes) -> None:
        self._answers = list(answers)
        self.writes: list[bytes] = []
        self.port = 0
        self.over = asyncio.Event()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await self._talk(reader, writer)
        except ConnectionError:
            pass
        finally:
            writer.close()
            self.over.set()

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 scripted.example ESMTP\r\n")
        for answer in (b"250-scripted.example\r\n250 PIPELINING\r\n", *self._answers):
            if not (octets := await reader.read(65536)):
                break
            self.writes.append(octets)
            # As small as packets get: a short answer comes in many pieces.
            size = 1 if len(answer) < 1000 else len(answer)
            for at in range(0, len(answer), size):
                writer.write(answer[at : at + size])
                await writer.drain()
                await asyncio.sleep(0)
        self.writes.append(await reader.read(65536))

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[SmtpUpstream]:
        """Listen, and yield an upstream to it."""
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        async with server:
            port = server.sockets[0].getsockname()[1]
            upstream = SmtpUpstream(parse(f"smtp://127.0.0.1:{port}"), hostname="relay.example.com")
            yield upstream
            await upstream.close()
            async with asyncio.timeout(5):
                await self.over.wait()


async def test_three_commands_are_one_write() -> None:
    """And the content follows when they are answered; the answers may come in pieces."""
    server = Scripted(
        b"250 2.1.0 Ok\r\n250-2.1.5 O\r\n250 2.1.5 k\r\n354 Go\r\n", b"250 2.0.0 Ok: queued as ABC1234\r\n"
    )
    async with server.listening() as upstream:
        outcome = await upstream.send(letter(), _nothing)
    assert outcome == Verdict(code=250, text="2.0.0 Ok: queued as ABC1234")
    sender, recipient = letter().sender.encode(), letter().recipient.encode()
    assert server.writes[1] == b"MAIL FROM:<%b>\r\nRCPT TO:<%b>\r\nDATA\r\n" % (sender, recipient)
    assert len(server.writes) == 4


async def test_a_hundred_messages_keep_in_step() -> None:
    """Refused ones among them: every answer belongs to its message, on a few connections."""
    sink = Sink()
    sink.rcpt = lambda who: "550 5.1.1 Unknown" if who.startswith("no") else "250 Ok"
    async with offering(sink).listening():
        upstream = SmtpUpstream(parse(f"smtp://127.0.0.1:{sink.port}"), hostname="relay.example.com", connections=3)
        names = [f"{'no' if number % 3 == 0 else 'yes'}{number}@example.net" for number in range(100)]
        outcomes = await asyncio.gather(*(upstream.send(letter(recipient=name), _nothing) for name in names))
        await upstream.close()
    accepted = [name for name, said in zip(names, outcomes, strict=True) if isinstance(said, Verdict) and said.accepted]
    assert accepted == [name for name in names if name.startswith("yes")]
    assert sorted(one.recipient for one in sink.kept) == sorted(accepted)
    assert all(one.content == CONTENT for one in sink.kept)
    assert sink.connections <= 3


@pytest.mark.parametrize("answer", ["550 5.1.1 Unknown", "450 4.2.0 Greylisted"])
async def test_a_354_for_nobody_is_ended_with_a_lone_dot(answer: str) -> None:
    """RFC 2920 3.1: nothing is delivered, and the connection goes on."""
    sink = Sink()
    sink.careless = True
    sink.rcpt = lambda _: answer
    async with sending(sink) as send:
        said = await send()
        assert isinstance(said, Verdict if answer.startswith("5") else Trouble)
        assert (sink.for_nobody, sink.kept, sink.connections) == (1, [], 1)
        sink.rcpt = lambda _: "250 Ok"
        assert isinstance(await send(), Verdict)
        assert (sink.for_nobody, len(sink.kept), sink.connections) == (1, 1, 1)
        assert sink.commands.count("RSET") == 1


async def test_a_354_with_a_recipient_and_no_sender_is_hung_up_on() -> None:
    """A dot might deliver an empty message there."""
    sink = Sink()
    sink.careless = True
    sink.mail = lambda _: "550 5.7.1 Sender refused"
    async with sending(sink) as send:
        assert await send() == Verdict(code=550, text="5.7.1 Sender refused")
        assert (sink.for_nobody, sink.kept, sink.dotted) == (0, [], [])
        sink.mail = lambda _: "250 Ok"
        assert isinstance(await send(), Verdict)
        assert (len(sink.kept), sink.connections) == (1, 2)


async def test_a_refusal_keeps_the_connection() -> None:
    """Its other answers are heard, and belong to no later message."""
    sink = Sink()
    sink.mail = lambda _: "550 5.7.1 Sender refused"
    async with sending(sink) as send:
        assert await send() == await send() == Verdict(code=550, text="5.7.1 Sender refused")
        sink.mail = lambda _: "250 Ok"
        assert isinstance(await send(), Verdict)
        assert (len(sink.kept), sink.connections) == (1, 1)


@pytest.mark.parametrize("answers", [b"550 5.7.1 No\r\n", b"250 Ok\r\n550 5.1.1 Unknown\r\n"])
async def test_a_verdict_waits_for_nobody_long(answers: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """The answers behind a no never come: it is told all the same, and the connection is cut."""
    monkeypatch.setattr(upstream_exchange, "_END_SECONDS", 0.1)
    server = Scripted(answers)
    async with server.listening() as upstream:
        outcome = await upstream.send(letter(), _nothing)
        assert isinstance(outcome, Verdict)
        assert outcome.code == 550
    assert server.writes[-1] == b""


@pytest.mark.parametrize(
    "answer",
    [b"what?\r\n", b"250 Ok\r\n\xff\xff\xff no\r\n", b"250-" + b"x" * 100_000 + b"\r\n", b"250-a\r\n" * 20_000],
    ids=["no code", "no code later", "one long line", "no end"],
)
async def test_an_answer_that_is_none_is_trouble(answer: bytes) -> None:
    """It costs the connection, no memory, and is no verdict."""
    async with Scripted(answer).listening() as upstream:
        assert await upstream.send(letter(), _nothing) == Trouble(reason="lost", unwell=True)


@pytest.mark.parametrize("loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
@pytest.mark.parametrize("scheme", ["smtp", "smtps", "starttls"])
def test_over_every_kind_of_connection(loop: Callable[[], asyncio.AbstractEventLoop], scheme: str) -> None:
    """Clear and encrypted, on the loop of the tests and on that of the relay."""
    authority = trustme.CA()
    sink, client = offering(Sink()), ssl.create_default_context()
    authority.configure_trust(client)
    if scheme != "smtp":
        sink.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("127.0.0.1").configure_cert(sink.tls)
    sink.rcpt = lambda who: "550 5.1.1 Unknown" if who.startswith("no") else "250 Ok"

    async def main() -> None:
        async with sink.listening(implicit_tls=scheme == "smtps"):
            way = "required" if scheme == "starttls" else "off"
            address = parse(f"{'smtps' if scheme == 'smtps' else 'smtp'}://127.0.0.1:{sink.port}?starttls={way}")
            connector = Connector(address, hostname="relay.example.com", tls=client)
            upstream = SmtpUpstream(address, hostname="relay.example.com", connector=connector)
            large = b"X: y\r\n\r\n" + b"0123456789abcde\r\n" * 40_000
            for recipient, content in (
                ("a@example.net", CONTENT),
                ("no@example.net", CONTENT),
                ("b@example.net", large),
            ):
                assert isinstance(await upstream.send(letter(content, recipient=recipient), _nothing), Verdict)
            await upstream.close()
        assert [(one.recipient, one.content) for one in sink.kept] == [
            ("a@example.net", CONTENT),
            ("b@example.net", large),
        ]
        assert sink.connections == 1

    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(main())
