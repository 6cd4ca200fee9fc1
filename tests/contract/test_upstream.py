"""What every upstream promises: a verdict or trouble, the intent marked before content leaves, the exact bytes."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from relay import upstream_conversation
from relay.capture import CaptureUpstream
from relay.forward import Upstream
from relay.upstream import Letter, Trouble, Verdict
from relay.upstream_address import parse
from relay.upstream_connection import Connector
from relay.upstream_conversation import EIGHT_BIT, stuffed
from relay.upstream_pool import SmtpUpstream
from tests.sink import Sink

CONTENT = b"Subject: x\r\n\r\n.leading dot\r\n..two\r\n\xd0\x9f\r\n"


def letter(content: bytes = CONTENT, *, sender: str = "a@example.com", recipient: str = "b@example.net") -> Letter:
    """Return a letter of these bytes."""
    return Letter(key="a" * 26, sender=sender, recipient=recipient, smtputf8=False, render=lambda _: content)


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
        ("rcpt", "454 4.7.1 Not yet", Trouble(reason="reply", reply="454 4.7.1 Not yet")),
        ("dot", "451 4.3.0 Later", Trouble(reason="reply", reply="451 4.3.0 Later")),
        ("mail", "451 4.7.1 Later", Trouble(reason="reply", reply="451 4.7.1 Later", unwell=True)),
        ("mail", "530 5.7.0 Login first", Trouble(reason="auth", reply="530 5.7.0 Login first", unwell=True)),
        ("dot", "535 5.7.8 Suspended", Trouble(reason="auth", reply="535 5.7.8 Suspended", unwell=True)),
        ("mail", "421 4.3.2 Closing", Trouble(reason="reply", reply="421 4.3.2 Closing", unwell=True)),
        ("rcpt", "421 4.3.2 Closing", Trouble(reason="reply", reply="421 4.3.2 Closing", unwell=True)),
        ("dot", "421 4.3.2 Closing", Trouble(reason="reply", reply="421 4.3.2 Closing", unwell=True)),
        ("content", "554 5.5.1 No recipients", Trouble(reason="reply", reply="554 5.5.1 No recipients")),
        ("banner", "421 4.3.2 Too many", Trouble(reason="reply", reply="421 4.3.2 Too many", unwell=True)),
        ("banner", "554 5.7.1 Not you", Trouble(reason="reply", reply="554 5.7.1 Not you", unwell=True)),
        ("mail", "", Trouble(reason="lost", unwell=True)),
        ("rcpt", "", Trouble(reason="lost", unwell=True)),
        ("content", "", Trouble(reason="lost", unwell=True)),
        ("banner", "", Trouble(reason="connect", unwell=True)),
        ("dot", "", Trouble(reason="lost", doubtful=True, unwell=True)),
    ],
)
@pytest.mark.parametrize("at_once", [False, True], ids=["one by one", "at once"])
async def test_what_is_a_verdict(where: str, answer: str, expected: Verdict | Trouble, *, at_once: bool) -> None:
    """A 5xx about the message is a verdict; one about us, every 4xx and a lost connection is trouble.

    Only what is the upstream's own trouble is a reason to try another; only a dot without an answer is a doubt.
    """
    async with Sink().listening() as sink:
        upstream = SmtpUpstream(parse(f"smtp://127.0.0.1:{sink.port}"), hostname="relay.example.com")
        sink.extensions += ["PIPELINING"] * at_once
        setattr(sink, where, answer if where in {"banner", "content"} else lambda _: answer)
        assert await upstream.send(letter(), _nothing) == expected
        await upstream.close()


async def test_a_refused_connection_is_trouble() -> None:
    """Nobody listens."""
    async with Sink().listening() as sink:
        port = sink.port
    outcome = await SmtpUpstream(parse(f"smtp://127.0.0.1:{port}"), hostname="relay.example.com").send(
        letter(), _nothing
    )
    assert outcome == Trouble(reason="connect", unwell=True)


@pytest.mark.parametrize("verb", ["CONNECT", "EHLO", "AUTH"])
async def test_silence_ends_at_the_deadline(verb: str) -> None:
    """A connection stands in time, all its steps together, or it is trouble."""
    async with Sink().listening() as sink:
        sink.silent = {verb}
        address = parse(f"smtp://user:secret@127.0.0.1:{sink.port}?starttls=off")
        connector = Connector(address, hostname="relay.example.com", seconds=0.2)
        upstream = SmtpUpstream(address, hostname="relay.example.com", connector=connector)
        assert await upstream.send(letter(), _nothing) == Trouble(reason="timeout", unwell=True)
        await upstream.close()


@pytest.mark.parametrize("verb", ["MAIL", "RCPT", "DATA"])
@pytest.mark.parametrize("at_once", [False, True], ids=["one by one", "at once"])
async def test_a_command_without_an_answer_is_trouble(
    verb: str, monkeypatch: pytest.MonkeyPatch, *, at_once: bool
) -> None:
    """Silence in a conversation; its connection is not used again."""
    monkeypatch.setattr(upstream_conversation, "COMMAND_SECONDS", 0.2)
    async with Sink().listening() as sink:
        upstream = SmtpUpstream(parse(f"smtp://127.0.0.1:{sink.port}"), hostname="relay.example.com")
        sink.extensions += ["PIPELINING"] * at_once
        sink.silent = {verb}
        assert await upstream.send(letter(), _nothing) == Trouble(reason="timeout", unwell=True)
        sink.silent = set()
        assert isinstance(await upstream.send(letter(), _nothing), Verdict)
        assert (sink.connections, len(sink.kept)) == (2, 1)
        await upstream.close()


async def test_silence_after_the_dot_is_a_doubt(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten minutes, here less: then it may have the message, and nobody knows."""
    monkeypatch.setattr(upstream_conversation, "DOT_SECONDS", 0.2)
    async with Sink().listening() as sink:
        sink.gate = asyncio.Event()
        upstream = SmtpUpstream(parse(f"smtp://127.0.0.1:{sink.port}"), hostname="relay.example.com")
        assert await upstream.send(letter(), _nothing) == Trouble(reason="timeout", doubtful=True, unwell=True)
        await upstream.close()


async def test_a_message_larger_than_the_upstream_takes_is_not_sent() -> None:
    """Its SIZE says so: a verdict, and not a word of the message."""
    async with Sink().listening() as sink:
        sink.extensions = ["SIZE 1000"]
        upstream = SmtpUpstream(parse(f"smtp://127.0.0.1:{sink.port}"), hostname="relay.example.com")
        outcome = await upstream.send(letter(b"x" * 1001), _nothing)
        assert isinstance(outcome, Verdict)
        assert (outcome.code, outcome.text[:5]) == (552, "5.3.4")
        assert [command[:4] for command in sink.commands] == ["EHLO"]
        assert isinstance(await upstream.send(letter(b"x" * 1000), _nothing), Verdict)
        await upstream.close()


@pytest.mark.parametrize("size", ["SIZE", "SIZE 0", "SIZE x"])
async def test_a_size_without_a_limit_is_none(size: str) -> None:
    """RFC 1870 3."""
    async with Sink().listening() as sink:
        sink.extensions = [size]
        upstream = SmtpUpstream(parse(f"smtp://127.0.0.1:{sink.port}"), hostname="relay.example.com")
        assert isinstance(await upstream.send(letter(), _nothing), Verdict)
        assert any("SIZE=" in command for command in sink.commands)
        await upstream.close()


async def test_eight_bit_content_passes_as_it_is_where_it_is_not_offered() -> None:
    """Most servers that do not offer 8BITMIME take it all the same: no BODY parameter, the same octets, and counted."""
    async with Sink().listening() as sink:
        sink.extensions = []
        upstream = SmtpUpstream(parse(f"smtp://127.0.0.1:{sink.port}"), hostname="relay.example.com")
        before = EIGHT_BIT._value.get()
        assert isinstance(await upstream.send(letter(), _nothing), Verdict)
        assert [kept.content for kept in sink.kept] == [CONTENT]
        assert not any("BODY" in command for command in sink.commands)
        assert EIGHT_BIT._value.get() - before == 1
        await upstream.close()


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
        ("smtp://example.com?rate=fast", "expected a rate"),
        ("smtp://user:secret@example.com?starttls=off", "clear text to this machine only"),
        ("smtp://m\u00e4il:secret@example.com", "expected ASCII"),
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
