"""What every upstream promises: a verdict or trouble, the intent marked before content leaves, the exact bytes."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trustme

from relay.capture import CaptureUpstream
from relay.forward import Upstream
from relay.upstream import Letter, SmtpUpstream, Trouble, Verdict, stuffed
from relay.upstream_address import parse
from tests.sink import Sink

CONTENT = b"Subject: x\r\n\r\n.leading dot\r\n..two\r\n\xd0\x9f\r\n"


def letter(content: bytes = CONTENT, *, sender: str = "a@example.com", recipient: str = "b@example.net") -> Letter:
    """Return a letter of these bytes."""
    return Letter(key="a" * 26, sender=sender, recipient=recipient, smtputf8=False, render=lambda: content)


async def _nothing() -> None:
    return


@asynccontextmanager
async def an_upstream(kind: str, directory: Path) -> AsyncIterator[tuple[Upstream, Callable[[], list[bytes]]]]:
    """Yield an upstream and a function that returns what it has taken."""
    if kind == "capture":
        yield CaptureUpstream(directory), lambda: [path.read_bytes() for path in directory.glob("*.eml")]
        return
    async with Sink().listening() as sink:
        upstream = SmtpUpstream(parse(f"smtp://127.0.0.1:{sink.port}"), hostname="relay.example.com")
        yield upstream, lambda: [kept.content for kept in sink.kept]
        await upstream.close()


@pytest.mark.parametrize("kind", ["smtp", "capture"])
async def test_content_arrives_exactly(kind: str, tmp_path: Path) -> None:
    """What was rendered is what arrives, dots and 8-bit octets included."""
    async with an_upstream(kind, tmp_path) as (upstream, taken):
        outcome = await upstream.send(letter(), _nothing)
        assert isinstance(outcome, Verdict)
        assert outcome.accepted
        assert taken() == [CONTENT]


@pytest.mark.parametrize("kind", ["smtp", "capture"])
async def test_the_intent_comes_before_the_content(kind: str, tmp_path: Path) -> None:
    """Nothing can be accepted before the intent is marked."""
    async with an_upstream(kind, tmp_path) as (upstream, taken):
        seen: list[int] = []

        async def mark() -> None:
            seen.append(len(taken()))

        await upstream.send(letter(), mark)
        assert seen == [0]


@pytest.mark.parametrize("kind", ["smtp", "capture"])
async def test_a_failed_mark_sends_nothing(kind: str, tmp_path: Path) -> None:
    """Without the intent on record no message leaves."""
    async with an_upstream(kind, tmp_path) as (upstream, taken):

        async def fail() -> None:
            raise ConnectionError

        try:
            outcome = await upstream.send(letter(), fail)
        except ConnectionError:
            outcome = Trouble(reason="error")
        assert isinstance(outcome, Trouble)
        assert not outcome.doubtful
        assert taken() == []


@pytest.mark.parametrize(
    ("where", "answer", "expected"),
    [
        ("mail", "550 5.7.1 Sender refused", Verdict(code=550, text="5.7.1 Sender refused")),
        ("rcpt", "550 5.1.1 Unknown", Verdict(code=550, text="5.1.1 Unknown")),
        ("dot", "554 5.6.0 Spam", Verdict(code=554, text="5.6.0 Spam")),
        ("rcpt", "450 4.2.0 Greylisted", Trouble(reason="reply", reply="450 4.2.0 Greylisted")),
        ("mail", "530 5.7.0 Authenticate first", Trouble(reason="reply", reply="530 5.7.0 Authenticate first")),
        ("dot", "535 5.7.8 Suspended", Trouble(reason="reply", reply="535 5.7.8 Suspended", doubtful=False)),
        ("dot", "421 4.3.2 Closing", Trouble(reason="reply", reply="421 4.3.2 Closing", doubtful=False)),
    ],
)
async def test_what_is_a_verdict(where: str, answer: str, expected: Verdict | Trouble) -> None:
    """A 5xx about the message is a verdict; one about us, and every 4xx, is trouble."""
    async with Sink().listening() as sink:
        upstream = SmtpUpstream(parse(f"smtp://127.0.0.1:{sink.port}"), hostname="relay.example.com")
        setattr(sink, where, lambda _: answer)
        assert await upstream.send(letter(), _nothing) == expected
        await upstream.close()


async def test_a_dot_without_an_answer_is_a_doubt() -> None:
    """The connection is gone after the final dot: the upstream may have it."""
    async with Sink().listening() as sink:
        upstream = SmtpUpstream(parse(f"smtp://127.0.0.1:{sink.port}"), hostname="relay.example.com")
        sink.dot = lambda _: ""
        outcome = await upstream.send(letter(), _nothing)
        assert isinstance(outcome, Trouble)
        assert outcome.doubtful
        await upstream.close()


async def test_connections_are_used_again() -> None:
    """Ten messages one after another need one connection."""
    async with Sink().listening() as sink:
        upstream = SmtpUpstream(parse(f"smtp://127.0.0.1:{sink.port}"), hostname="relay.example.com")
        for _ in range(10):
            await upstream.send(letter(), _nothing)
        assert (sink.connections, len(sink.kept)) == (1, 10)
        await upstream.close()


async def test_an_idle_connection_that_died_is_replaced() -> None:
    """An upstream that closed while we were idle is no trouble."""
    async with Sink().listening() as sink:
        upstream = SmtpUpstream(parse(f"smtp://127.0.0.1:{sink.port}"), hostname="relay.example.com")
        await upstream.send(letter(), _nothing)
        await sink.close()
        outcome = await upstream.send(letter(), _nothing)
        assert isinstance(outcome, Verdict)
        assert sink.connections == 2
        await upstream.close()


async def test_connections_are_bounded() -> None:
    """At most so many connections at once, and every message still arrives."""
    async with Sink().listening() as sink:
        address = parse(f"smtp://127.0.0.1:{sink.port}")
        upstream = SmtpUpstream(address, hostname="relay.example.com", connections=3)
        await asyncio.gather(*(upstream.send(letter(), _nothing) for _ in range(30)))
        assert len(sink.kept) == 30
        assert sink.connections <= 3
        await upstream.close()


def _contexts() -> tuple[ssl.SSLContext, ssl.SSLContext]:
    authority = trustme.CA()
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(server)
    client = ssl.create_default_context()
    authority.configure_trust(client)
    return server, client


async def test_required_starttls_verifies() -> None:
    """STARTTLS with a certificate we trust delivers; with one we do not, it is trouble and nothing is sent."""
    server, client = _contexts()
    sink = Sink()
    sink.tls = server
    async with sink.listening():
        address = parse(f"smtp://user:secret@127.0.0.1:{sink.port}?starttls=required")
        trusting = SmtpUpstream(address, hostname="relay.example.com", tls=client)
        assert isinstance(await trusting.send(letter(), _nothing), Verdict)
        await trusting.close()
        wary = SmtpUpstream(address, hostname="relay.example.com")
        outcome = await wary.send(letter(), _nothing)
        assert isinstance(outcome, Trouble)
        assert outcome.reason == "tls"
        assert len(sink.kept) == 1


async def test_required_starttls_refuses_clear_text() -> None:
    """An upstream without STARTTLS gets no password and no mail."""
    async with Sink().listening() as sink:
        upstream = SmtpUpstream(
            parse(f"smtp://user:secret@127.0.0.1:{sink.port}?starttls=required"), hostname="relay.example.com"
        )
        outcome = await upstream.send(letter(), _nothing)
        assert isinstance(outcome, Trouble)
        assert not any(command.startswith("AUTH") for command in sink.commands)


async def test_implicit_tls_and_auth() -> None:
    """smtps:// speaks TLS from the first octet and authenticates."""
    server, client = _contexts()
    sink = Sink()
    sink.tls = server
    async with sink.listening(implicit_tls=True):
        address = parse(f"smtps://user:secret@127.0.0.1:{sink.port}")
        upstream = SmtpUpstream(address, hostname="relay.example.com", tls=client)
        assert isinstance(await upstream.send(letter(), _nothing), Verdict)
        assert any(command.startswith("AUTH") for command in sink.commands)
        await upstream.close()


async def test_a_refused_password_is_trouble() -> None:
    """An expired password must not refuse a single message."""
    sink = Sink()
    sink.auth = "535 5.7.8 Bad credentials"
    async with sink.listening():
        address = parse(f"smtp://user:secret@127.0.0.1:{sink.port}?starttls=off")
        outcome = await SmtpUpstream(address, hostname="relay.example.com").send(letter(), _nothing)
        assert isinstance(outcome, Trouble)
        assert outcome.reason == "auth"


async def test_an_address_that_the_upstream_cannot_take_is_refused() -> None:
    """SMTPUTF8 cannot be downgraded: 5.6.7, and nothing is sent."""
    sink = Sink()
    sink.extensions = ["SIZE 1000000"]
    async with sink.listening():
        upstream = SmtpUpstream(parse(f"smtp://127.0.0.1:{sink.port}"), hostname="relay.example.com")
        outcome = await upstream.send(letter(recipient="почта@example.net"), _nothing)
        assert isinstance(outcome, Verdict)
        assert (outcome.code, outcome.text[:5]) == (553, "5.6.7")
        await upstream.close()


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("http://example.com", "expected smtp://"),
        ("smtp://", "expected smtp://"),
        ("smtp://example.com:99999", "port"),
        ("smtp://user@example.com", "password"),
        ("smtp://example.com?starttls=maybe", "starttls is"),
        ("smtp://example.com?tls=yes", "unknown option 'tls'"),
    ],
)
def test_a_wrong_upstream_is_named(url: str, problem: str) -> None:
    """Each mistake gets its own words."""
    with pytest.raises(ValueError, match=problem):
        parse(url)


def test_credentials_never_show_in_a_name() -> None:
    """The name that stands in logs and in the ledger holds no secret."""
    assert parse("smtps://user:s%40cret@example.com").name == "example.com:465"
    assert parse("smtps://user:s%40cret@example.com").password == "s@cret"


@pytest.mark.parametrize(
    ("content", "wire"),
    [
        (b"", b".\r\n"),
        (b".", b"..\r\n.\r\n"),
        (b"a\r\n.\r\nb", b"a\r\n..\r\nb\r\n.\r\n"),
        (b"a\r\n", b"a\r\n.\r\n"),
    ],
)
def test_dots_are_stuffed(content: bytes, wire: bytes) -> None:
    """RFC 5321 4.5.2."""
    assert stuffed(content) == wire
