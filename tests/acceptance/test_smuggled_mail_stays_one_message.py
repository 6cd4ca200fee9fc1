"""Promise: only CRLF.CRLF ends a message, and nothing that another server might take for its end gets through."""

import re

import pytest

from tests.mailer import HOSTNAME, KEY, RecordingAcceptor, connected, running

FORGED = b"MAIL FROM:<evil@example.net>\r\nRCPT TO:<victim@example.org>\r\nDATA\r\nSubject: forged\r\n\r\nforged\r\n"
ACCEPTED = f"250 2.0.0 Ok: queued as {KEY}\r\n".encode()
REFUSED = b"550 5.6.0 Message holds a bare CR, a NUL, or a bare LF beside a lone dot\r\n"
AROUND = [
    f"220 {HOSTNAME} ESMTP\r\n".encode(),
    b"250 " + HOSTNAME.encode() + b"\r\n",
    b"250 2.1.0 Ok\r\n",
    b"250 2.1.5 Ok\r\n",
    b"354 End data with <CR><LF>.<CR><LF>\r\n",
]
BYE = b"221 2.0.0 Bye\r\n"

DEVIANTS = [
    b"\n.\n",
    b"\n.\r\n",
    b"\r\n.\n",
    b"\r.\r",
    b"\r.\n",
    b"\n.\r",
    b"\r.\r\n",
    b"\r\n.\r",
    b"\r\r\n.\r\r\n",
    b"\r\n.\r\r\n",
    b"\r\n\0.\r\n",
    b"\r\n.\0\r\n",
    b"\n\n.\n\n",
    b"\r\n.\n\n",
]
HARMLESS = [b"\r\n. \r\n", b"\r\n..\r\n", b"\r\n .\r\n", b"\n\r\n", b"\r\n.x\r\n", b"\n..\n"]


async def converse(wire: bytes, *, octet_by_octet: bool) -> tuple[list[bytes], list[bytes]]:
    """Say HELO, MAIL, RCPT and DATA, send *wire* and QUIT; return all replies and all accepted contents."""
    acceptor = RecordingAcceptor()
    async with running(acceptor) as server, connected(server) as mailer:
        replies = [await mailer.reply()]
        replies += [
            await mailer.say(line)
            for line in (b"HELO c.example", b"MAIL FROM:<a@b.example>", b"RCPT TO:<c@d.example>", b"DATA")
        ]
        whole = wire + b"QUIT\r\n"
        for start in range(0, len(whole), 1 if octet_by_octet else len(whole)):
            await mailer.send(whole[start : start + (1 if octet_by_octet else len(whole))])
        replies += await mailer.rest()
    return replies, [submission.content for submission in acceptor.submissions]


@pytest.mark.parametrize("octet_by_octet", [False, True], ids=["at once", "octet by octet"])
@pytest.mark.parametrize("deviant", DEVIANTS)
async def test_a_deviant_end_is_refused_and_what_follows_is_never_a_command(
    deviant: bytes, *, octet_by_octet: bool
) -> None:
    """One reply, after the true end; no second transaction begins, and nothing is accepted."""
    wire = b"Subject: x\r\n\r\nhello" + deviant + FORGED + b".\r\n"
    replies, contents = await converse(wire, octet_by_octet=octet_by_octet)
    assert replies == [*AROUND, REFUSED, BYE]
    assert contents == []


@pytest.mark.parametrize("octet_by_octet", [False, True], ids=["at once", "octet by octet"])
@pytest.mark.parametrize("harmless", HARMLESS)
async def test_what_only_looks_like_an_end_is_content_of_one_message(harmless: bytes, *, octet_by_octet: bool) -> None:
    """It stays one message, whose line ends are CRLF and which holds the forged commands as its text."""
    wire = b"Subject: x\r\n\r\nhello" + harmless + FORGED + b".\r\n"
    replies, contents = await converse(wire, octet_by_octet=octet_by_octet)
    assert replies == [*AROUND, ACCEPTED, BYE]
    assert len(contents) == 1
    assert contents[0].endswith(FORGED)
    assert not re.search(rb"\r(?!\n)|(?<!\r)\n|\0", contents[0])


async def test_an_honest_message_arrives_as_it_was() -> None:
    """The control: stuffed dots are undone, and the forged commands after the true end are commands."""
    wire = b"Subject: x\r\n\r\n..\r\n...\r\nend\r\n.\r\nMAIL FROM:<evil@example.net>\r\n"
    replies, contents = await converse(wire, octet_by_octet=False)
    assert replies == [*AROUND, ACCEPTED, b"250 2.1.0 Ok\r\n", BYE]
    assert contents == [b"Subject: x\r\n\r\n.\r\n..\r\nend\r\n"]


@pytest.mark.parametrize(
    "line",
    [
        b"RCPT TO:<c@d.example>\nRCPT TO:<evil@example.net>",
        b"RCPT TO:<c@d.example>\rRCPT TO:<evil@example.net>",
        b"RCPT TO:<c@d.example>\0",
        b"RCPT TO:<c\x1b@d.example>",
        b"RCPT TO:<=?utf-8?q?c=0d=0aRCPT_TO:<evil@example.net>?=@d.example>",
        b"NOOP\nMAIL FROM:<evil@example.net>",
    ],
)
async def test_a_command_line_is_never_split(line: bytes) -> None:
    """One line, one refusal; no part of it takes effect."""
    async with running(RecordingAcceptor()) as server, connected(server) as mailer:
        await mailer.hello()
        await mailer.say(b"MAIL FROM:<a@b.example>")
        refusal = await mailer.say(line)
        assert refusal.startswith((b"500 5.5.2 ", b"501 5.1.3 "))
        assert await mailer.say(b"DATA") in {
            b"503 5.5.1 Need RCPT command\r\n",
            b"554 5.5.1 No valid recipients\r\n",
        }
