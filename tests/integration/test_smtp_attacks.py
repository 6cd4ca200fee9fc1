"""The SMTP attack table, row by row, where no other test holds it yet: over real sockets, down to the upstream.

One message stays one message, nothing is injected, and what leaves is clean. The rows are those of RFC 5321's servers
that were attacked: what each sends is in its test.
"""

import re
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TypeAlias

import asyncpg
import msgspec
import pytest

from relay.server import Listener, RelayServer, ServerSettings, serve
from tests.conftest import Eventually
from tests.mailer import DEADLINE, HOSTNAME, KEY, MESSAGE, Mailer, RecordingAcceptor, connected, running
from tests.relaying import Relay, relaying
from tests.sink import Kept, Sink

ACCEPTED = f"250 2.0.0 Ok: queued as {KEY}\r\n".encode()
Pool: TypeAlias = "asyncpg.Pool[asyncpg.Record]"


class Whole(msgspec.Struct, frozen=True, kw_only=True):
    """A server before its pipeline and an upstream."""

    server: RelayServer
    relay: Relay
    sink: Sink

    async def deliver(self, content: bytes) -> tuple[bytes, list[Kept]]:
        """Submit *content* to one recipient; return the reply and what the upstream took for it."""
        before = len(self.sink.kept)
        async with connected(self.server) as mailer:
            await mailer.hello()
            reply = await mailer.deliver(content)
        return reply, self.sink.kept[before:]


@asynccontextmanager
async def whole(database_url: str) -> AsyncIterator[Whole]:
    """Wire a server to a pipeline, and that to an upstream."""
    async with (
        Sink().listening() as sink,
        relaying(database_url, f"smtp://127.0.0.1:{sink.port}?starttls=off") as relay,
    ):
        server = await serve(relay.pipeline, ServerSettings(hostname=HOSTNAME), listeners=[Listener()])
        try:
            yield Whole(server=server, relay=relay, sink=sink)
        finally:
            await server.drain(seconds=DEADLINE)


def fields(content: bytes) -> list[bytes]:
    """Return a message's header fields, each with its continuation lines; fail where a line belongs to none."""
    header = content.partition(b"\r\n\r\n")[0]
    found: list[bytes] = []
    for line in header.split(b"\r\n"):
        if line[:1] in {b" ", b"\t"}:
            assert found, "a continuation line continues nothing"
            found[-1] += b"\r\n" + line
        else:
            found.append(line)
    return found


@pytest.mark.parametrize(
    "said",
    [
        b"XCLIENT ADDR=203.0.113.9 LOGIN=root",
        b"XFORWARD ADDR=203.0.113.9 PROTO=ESMTP",
        b"PROXY TCP4 203.0.113.9 192.0.2.1 40000 25",
        b"\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c" + socket.inet_aton("203.0.113.9") + bytes(8),
    ],
    ids=["XCLIENT", "XFORWARD", "PROXY v1", "PROXY v2"],
)
async def test_row_05_who_a_stranger_claims_to_be_leaves_no_trace(database_url: str, said: bytes) -> None:
    """It is refused, the session goes on, and its own address stands in the Received line."""
    async with whole(database_url) as one, connected(one.server) as mailer:
        await mailer.hello()
        await mailer.send(said + b"\r\n")
        while (reply := await mailer.say(b"NOOP")).startswith(b"50"):
            pass
        # What the lines of a binary header were answered is read by now, but for what NOOP was.
        assert not reply.startswith(b"221")
        answers = [await mailer.say(b"NOOP") for _ in range(4)]
        assert not any(answer.startswith(b"221") for answer in answers)
        await mailer.send(b"MAIL FROM:<a@b.example>\r\nRCPT TO:<c@d.example>\r\nDATA\r\n" + MESSAGE + b".\r\nQUIT\r\n")
        assert any(b"queued as" in reply for reply in await mailer.rest())
        (kept,) = one.sink.kept
        assert kept.content.startswith(b"Received: from client.example ([127.0.0.1])\r\n")
        assert b"203.0.113.9" not in kept.content


@pytest.mark.parametrize("size", [b"10 LAST", b"99999999999999999999 LAST", b"-1", b"x", b""])
@pytest.mark.parametrize("after", ["EHLO", "RCPT", "DATA"])
async def test_row_06_a_chunk_is_never_commands(size: bytes, after: str) -> None:
    """Nobody offered BDAT: wherever it comes, of whatever size, the session ends before its chunk is read."""
    acceptor = RecordingAcceptor()
    chunk = b"RSET\r\nMAIL FROM:<evil@example.net>\r\nRCPT TO:<v@example.org>\r\nDATA\r\nforged\r\n.\r\n"
    async with running(acceptor) as server, connected(server) as mailer:
        assert b"CHUNKING" not in await _hello(mailer)
        if after != "EHLO":
            await mailer.say(b"MAIL FROM:<a@b.example>")
            await mailer.say(b"RCPT TO:<c@d.example>")
        if after == "DATA":
            await mailer.say(b"DATA")
        await mailer.send(b"BDAT " + size + b"\r\n" + chunk)
        if after == "DATA":
            # Within a content it is a line like any other.
            assert await mailer.reply() == ACCEPTED
            assert acceptor.submissions[0].content.startswith(b"BDAT ")
            return
        assert await mailer.rest() == [b"502 5.5.1 Command not implemented\r\n"]
    assert acceptor.submissions == []


async def _hello(mailer: Mailer) -> bytes:
    await mailer.reply()
    return await mailer.say(b"EHLO client.example")


@pytest.mark.parametrize(
    ("size", "reply"),
    [
        (b"-1", b"501 5.5.4 "),
        (b"abc", b"501 5.5.4 "),
        (b"1e9", b"501 5.5.4 "),
        (b"0x10", b"501 5.5.4 "),
        ("١٢٣".encode(), b"501 5.5.4 "),
        (b"9" * 400, b"501 5.5.4 "),
        (b"26214401", b"552 5.3.4 "),
        (b"99999999999999999999", b"552 5.3.4 "),
        (b"26214400", b"250 2.1.0 "),
    ],
)
async def test_row_08_a_size_is_ascii_digits_within_the_limit(size: bytes, reply: bytes) -> None:
    """What is none begins no transaction, and the next MAIL does."""
    async with running(RecordingAcceptor()) as server, connected(server) as mailer:
        await mailer.hello()
        said = await mailer.say(b"MAIL FROM:<a@b.example> SIZE=" + size)
        assert said.startswith(reply)
        again = await mailer.say(b"MAIL FROM:<a@b.example>")
        assert again == (b"503 5.5.1 Nested MAIL command\r\n" if said[:1] == b"2" else b"250 2.1.0 Ok\r\n")


async def test_row_11_mail_that_comes_back_again_and_again_is_a_loop(database_url: str) -> None:
    """A relay whose upstream is itself: the fifth time it is refused, and the refusal goes all the way back."""
    async with Sink().listening() as sink:
        port = sink.port
    async with relaying(database_url, f"smtp://127.0.0.1:{port}?starttls=off") as relay:
        server = await serve(relay.pipeline, ServerSettings(hostname=HOSTNAME), listeners=[Listener(port=port)])
        try:
            async with connected(server) as mailer:
                await mailer.hello()
                assert await mailer.deliver() == b"554 5.4.6 Too many hops: mail is looping\r\n"
            assert await relay.statuses() == ["failed"] * 4
        finally:
            await server.drain(seconds=DEADLINE)


async def test_row_11_a_few_hops_of_our_own_are_no_loop(database_url: str) -> None:
    """Three, from a list server for example; the fourth is one too many, and another relay's are not ours."""
    date = "Sun, 22 Nov 2026 10:00:00 +0000"
    hop = f"Received: from x ([192.0.2.1])\r\n\tby {HOSTNAME} with ESMTPS id {KEY};\r\n\t{date}\r\n"
    async with whole(database_url) as one:
        other = hop.replace(HOSTNAME, "other.example.com")
        reply, kept = await one.deliver((hop * 3 + other * 20).encode() + MESSAGE)
        assert (reply[:4], len(kept)) == (b"250 ", 1)
        reply, kept = await one.deliver((hop * 4).encode() + MESSAGE)
        assert (reply, kept) == (b"554 5.4.6 Too many hops: mail is looping\r\n", [])


HEADERS = {
    "two ids": b"Message-ID: <one@x.example>\r\nSubject: x\r\nMESSAGE-ID: <two@x.example>\r\n\r\nbody\r\n",
    "a folded id": b"Message-ID:\r\n <one@x.example>\r\nSubject: x\r\n\r\nbody\r\n",
    "an id folded within": b"Message-ID: <one\r\n\t@x.example>\r\n more\r\nSubject: x\r\n\r\nbody\r\n",
    "an id that is no id": b"Message-ID: =?utf-8?q?=0d=0aBcc:_v@example.org?=\r\nSubject: x\r\n\r\nbody\r\n",
    "no header": b"\r\nbody\r\n",
    "no header and no blank line": b"just some text\r\nand more\r\n",
    "a leading blank": b" Subject: x\r\nFrom: a@b.example\r\n\r\nbody\r\n",
    "a leading tab": b"\tcontinued\r\n and again\r\nSubject: x\r\n\r\nbody\r\n",
    "an mbox line": b"From ann@example.net Mon Nov 23 10:00:00 2026\r\nSubject: x\r\n\r\nbody\r\n",
    "nothing": b"",
    "a header alone": b"Subject: x\r\nMessage-ID: <one@x.example>\r\n",
    "a removed field that goes on": b"Bcc: v@example.org,\r\n w@example.org\r\nSubject: x\r\n\r\nbody\r\n",
    "a space before the colon": b"Message-ID : <one@x.example>\r\nSubject: x\r\n\r\nbody\r\n",
    "a line of 8 bit": b"Subject: \xcf\xf0\xe8\r\nMessage-ID: <\xff@x.example>\r\n\r\nbody\r\n",
}


@pytest.mark.parametrize("name", HEADERS)
async def test_row_12_one_message_id_leaves_and_no_line_is_orphaned(database_url: str, name: str) -> None:
    """However the header is written: 250, our Received line first, one Message-ID, ours, and no field that grew."""
    async with whole(database_url) as one:
        reply, (kept,) = await one.deliver(HEADERS[name])
    assert reply.startswith(b"250 2.0.0 Ok: queued as ")
    key = reply.split()[-1].decode()
    # An mbox line stays where it stood, before the fields.
    found = fields(re.sub(rb"\AFrom .*\r\n", b"", kept.content))
    assert found[0].startswith(b"Received: from ")
    assert found[0].count(b"\r\n") == 2
    ids = [field for field in found if re.match(rb"message-id[ \t]*:", field, re.IGNORECASE)]
    assert [re.fullmatch(rb"Message-ID: <%b@[a-z.]+>" % key.encode(), field) is not None for field in ids] == [True]
    assert not any(re.match(rb"(?:resent-)?bcc[ \t]*:", field, re.IGNORECASE) for field in found)
    assert b"w@example.org" not in kept.content
    assert not re.search(rb"\r(?!\n)|(?<!\r)\n|\0", kept.content)
    if HEADERS[name].endswith(b"\r\n\r\nbody\r\n"):
        assert kept.content.endswith(b"\r\n\r\nbody\r\n")


@pytest.mark.parametrize("bad", [b"Subject: a\rBcc: v@example.org\r\n", b"Subject: a\0b\r\n"], ids=["CR", "NUL"])
async def test_row_12_a_header_with_a_cr_or_a_nul_goes_nowhere(database_url: str, bad: bytes) -> None:
    """Refused, nothing stored, nothing sent."""
    async with whole(database_url) as one:
        reply, kept = await one.deliver(bad + b"\r\nbody\r\n")
        assert reply.startswith(b"550 5.6.0 ")
        assert kept == []
        assert await one.relay.statuses() == []


async def test_row_13_one_person_in_two_spellings_and_another_who_looks_alike(database_url: str, pool: Pool) -> None:
    """U-labels and A-labels are one recipient with one index; a Cyrillic letter in Latin clothes is somebody else."""
    spellings = ["ann@bücher.example", "ann@xn--bcher-kva.example", "\u0430nn@bücher.example"]
    async with whole(database_url) as one, connected(one.server) as mailer:
        await mailer.hello()
        await mailer.say(b"MAIL FROM:<a@b.example> SMTPUTF8")
        for spelling in spellings:
            assert (await mailer.say(f"RCPT TO:<{spelling}>".encode())).startswith(b"250 ")
        await mailer.say(b"DATA")
        assert (await mailer.say(MESSAGE + b".")).startswith(b"250 ")
        assert sorted(kept.recipient for kept in one.sink.kept) == sorted([spellings[0], spellings[2]])
        await mailer.say(b"MAIL FROM:<a@b.example> SMTPUTF8")
        await mailer.say(f"RCPT TO:<{spellings[1]}>".encode())
        await mailer.say(b"DATA")
        assert (await mailer.say(b"Subject: another\r\n\r\nx\r\n.")).startswith(b"250 ")
    rows = await pool.fetch("SELECT convert_from(recipient, 'utf8') AS recipient, recipient_index FROM message")
    indexes = {row["recipient"]: row["recipient_index"] for row in rows}
    assert set(indexes) == set(spellings)
    assert indexes[spellings[0]] == indexes[spellings[1]] != indexes[spellings[2]]


async def test_row_14_talk_without_a_message_ends_and_leaves_no_rows(database_url: str, pool: Pool) -> None:
    """A transaction that is begun and reset, again and again: a hundred times, then 421."""
    async with whole(database_url) as one, connected(one.server) as mailer:
        await mailer.hello()
        await mailer.send(b"MAIL FROM:<a@b.example>\r\nRCPT TO:<c@d.example>\r\nRSET\r\n" * 150)
        answers = await mailer.rest()
        assert answers[-1] == b"421 4.7.0 Too many commands without a message\r\n"
        assert len(answers) < 310
    for table in ("message", "submission", "campaign", "delivery", "body"):
        assert await pool.fetchval(f"SELECT count(*) FROM {table}") == 0  # noqa: S608 - one of the five names above


async def _leave(mailer: Mailer, how: str) -> None:
    if how == "reset":
        sock: socket.socket = mailer.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        mailer.writer.transport.abort()
    elif how == "half-close":
        mailer.writer.write_eof()
        await mailer.rest()
    else:
        await mailer.close()


@pytest.mark.parametrize("how", ["close", "half-close", "reset"])
async def test_row_15_a_session_cut_at_any_octet_is_a_message_or_none(
    database_url: str, pool: Pool, eventually: Eventually, how: str
) -> None:
    """One copy or none, the ledger agrees with the upstream, and with its final dot there is one."""
    dot, end = len(b"".join(_session_of(0)[:-1])), len(b"".join(_session_of(0)))
    cuts = range(1, end)
    async with whole(database_url) as one:
        for cut in cuts:
            async with connected(one.server) as mailer:
                await mailer.reply()
                await _say_up_to(cut, mailer)
                await _leave(mailer, how)
        # A reset right behind the dot may overtake it.
        complete = {_recipient(cut) for cut in cuts if cut > dot or (cut == dot and how != "reset")}
        await eventually(lambda: complete <= {kept.recipient for kept in one.sink.kept}, timeout=DEADLINE)
        await one.server.drain(seconds=DEADLINE)
        kept = sorted(kept.recipient for kept in one.sink.kept)
        rows = await pool.fetch(
            "SELECT convert_from(m.recipient, 'utf8') AS recipient, d.status::text AS status"
            " FROM message m JOIN delivery d ON d.message = m.id"
        )
    assert len(kept) == len(set(kept))
    assert complete <= set(kept) <= {_recipient(cut) for cut in cuts if cut >= dot}
    assert sorted((row["recipient"], row["status"]) for row in rows) == [(recipient, "sent") for recipient in kept]


async def _say_up_to(cut: int, mailer: Mailer) -> None:
    """Hold a session in turns, and stop after *cut* octets of it, before anything they are answered is read."""
    for turn in _session_of(cut):
        await mailer.send(turn[:cut])
        cut -= len(turn)
        if cut <= 0:
            return
        assert (await mailer.reply())[:1] in {b"2", b"3"}


def _session_of(cut: int) -> list[bytes]:
    """Return the turns of a session, its numbers of one width, so that a cut is at the same octet of each."""
    return [
        b"EHLO client.example\r\n",
        b"MAIL FROM:<a@b.example>\r\n",
        b"RCPT TO:<%b>\r\n" % _recipient(cut).encode(),
        b"DATA\r\n",
        b"Message-ID: <%04d@b.example>\r\nSubject: x\r\n\r\n..a dot\r\nhello\r\n.\r\n" % cut,
        b"QUIT\r\n",
    ]


def _recipient(cut: int) -> str:
    return f"c{cut:04}@d.example"


async def test_section_2_1_what_an_upstream_could_misread_never_reaches_it(database_url: str) -> None:
    """Bare line feeds leave as CRLF, dots that begin a line as two; and the upstream sees one message for each."""
    contents = {
        b"Subject: a\n\nMAIL FROM:<e@example.net>\nDATA\n\r\n": b"\r\n\r\nMAIL FROM:<e@example.net>\r\nDATA\r\n\r\n",
        b"Subject: b\r\n\r\n..\r\n...\r\n. \r\n": b"\r\n\r\n.\r\n..\r\n \r\n",
        b"Subject: c\r\n\r\nx\r\n..\r\nRCPT TO:<v@example.org>\r\n": b"x\r\n.\r\nRCPT TO:<v@example.org>\r\n",
    }
    async with whole(database_url) as one:
        for content, expected in contents.items():
            reply, kept = await one.deliver(content)
            assert (reply[:4], len(kept)) == (b"250 ", 1)
            assert kept[0].content.endswith(expected)
            assert not re.search(rb"\r(?!\n)|(?<!\r)\n|\0", kept[0].content)
        assert {kept.sender for kept in one.sink.kept} == {"a@b.example"}
