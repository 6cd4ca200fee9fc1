"""The SMTP server over real sockets: what it offers, what it refuses, and what a client cannot make it do."""

import asyncio
import logging
import smtplib
from datetime import UTC, datetime
from email.message import EmailMessage

import pytest
from prometheus_client import REGISTRY

from relay import replies
from relay.replies import Reply
from relay.server import RelayServer, ServerSettings
from tests.mailer import DEADLINE, HOSTNAME, KEY, MESSAGE, RecordingAcceptor, connected, running

ACCEPTED = f"250 2.0.0 Ok: queued as {KEY}\r\n".encode()


def settings(**changes: object) -> ServerSettings:
    """Return settings for a test."""
    return ServerSettings(**{"hostname": HOSTNAME, **changes})  # type: ignore[arg-type]  # checked by the tests


async def until(event: asyncio.Event) -> None:
    """Wait for an event with a deadline."""
    async with asyncio.timeout(DEADLINE):
        await event.wait()


async def submit_with_smtplib(server: RelayServer, message: EmailMessage, sender: str, recipients: list[str]) -> None:
    """Send a message as most mailers in Python do."""

    def send() -> None:
        with smtplib.SMTP(*server.addresses[0], timeout=DEADLINE) as client:
            client.send_message(message, sender, recipients)

    await asyncio.to_thread(send)


class TestSession:
    """What a session looks like to a well-behaved mailer."""

    async def test_banner_and_offer(self) -> None:
        """We name ourselves and what we can do, and not what we are made of."""
        async with running(RecordingAcceptor()) as server, connected(server) as mailer:
            banner = await mailer.reply()
            assert banner == f"220 {HOSTNAME} ESMTP\r\n".encode()
            assert await mailer.say(b"EHLO client.example") == (
                b"250-relay.example.com\r\n250-SIZE 26214400\r\n250-8BITMIME\r\n250-SMTPUTF8\r\n"
                b"250-PIPELINING\r\n250 ENHANCEDSTATUSCODES\r\n"
            )
            assert await mailer.say(b"HELO client.example") == b"250 relay.example.com\r\n"

    async def test_a_submission_holds_what_the_mailer_said(self) -> None:
        """Sender, recipients in order, content with CRLF, and how it came."""
        acceptor = RecordingAcceptor()
        message = EmailMessage()
        message["Subject"] = "x"
        message.set_content("a\n.\n..b\n")
        before = datetime.now(UTC)
        async with running(acceptor) as server:
            await submit_with_smtplib(server, message, "a@b.example", ["c@d.example", "e@f.example"])
        (submission,) = acceptor.submissions
        assert submission.sender == "a@b.example"
        assert submission.recipients == ("c@d.example", "e@f.example")
        assert submission.content.endswith(b"\r\n\r\na\r\n.\r\n..b\r\n")
        assert submission.source == "default"
        assert submission.client == "127.0.0.1"
        assert submission.protocol == "ESMTP"
        assert not submission.smtputf8
        assert before <= submission.received_at <= datetime.now(UTC)
        assert "@" not in repr(submission)

    async def test_the_reply_is_what_the_pipeline_said(self) -> None:
        """A verdict passes through, line by line, and the session goes on."""
        acceptor = RecordingAcceptor()
        async with running(acceptor) as server, connected(server) as mailer:
            await mailer.hello()
            assert await mailer.deliver() == ACCEPTED
            acceptor.reply = Reply(550, "5.1.1", "No such user\nSee example.com")
            assert await mailer.deliver() == b"550-5.1.1 No such user\r\n550 5.1.1 See example.com\r\n"
            acceptor.reply = Reply(452, "4.3.1", "Full")
            assert await mailer.deliver() == b"452 4.3.1 Full\r\n"
            assert await mailer.say(b"QUIT") == b"221 2.0.0 Bye\r\n"
            assert await mailer.rest() == []

    async def test_an_exception_is_451_and_says_nothing(self, capsys: pytest.CaptureFixture[str]) -> None:
        """Invariant: an error of ours is temporary, and its words reach neither the client nor the log."""
        acceptor = RecordingAcceptor()
        acceptor.reply = RuntimeError("postgres://user:hunter2@db.example.com/x person@example.net")
        async with running(acceptor) as server, connected(server) as mailer:
            await mailer.hello()
            assert await mailer.deliver() == b"451 4.3.0 Local error in processing, try again later\r\n"
            acceptor.reply = replies.queued(KEY)
            assert await mailer.deliver() == ACCEPTED
        printed = "".join(capsys.readouterr())
        assert "RuntimeError" in printed
        assert "hunter2" not in printed
        assert "person" not in printed

    @pytest.mark.parametrize(
        ("sender", "kept"),
        [
            (b"<>", ""),
            (b'"Shop" <a@b.example>', "a@b.example"),
            (b"Shop <a@b.example>", "a@b.example"),
            (b"a@b.example", "a@b.example"),
            (b" <A.b+c@B.example> BODY=8BITMIME SIZE=100", "A.b+c@B.example"),
        ],
    )
    async def test_senders_that_mailers_write(self, sender: bytes, kept: str) -> None:
        """The null sender is empty, a display name is read over, and the address is exact."""
        acceptor = RecordingAcceptor()
        async with running(acceptor) as server, connected(server) as mailer:
            await mailer.hello()
            await mailer.begin(sender=sender)
            assert await mailer.say(MESSAGE + b".") == ACCEPTED
        assert acceptor.submissions[0].sender == kept
        assert acceptor.submissions[0].eight_bit == (b"8BITMIME" in sender)

    async def test_recipients_keep_their_case_and_come_once(self) -> None:
        """Two spellings are two recipients; the same one twice is one."""
        acceptor = RecordingAcceptor()
        async with running(acceptor) as server, connected(server) as mailer:
            await mailer.hello()
            await mailer.begin(b"<B@y.example>", b"<b@y.example>", b"<B@y.example>", b'<"a b"@y.example>')
            assert await mailer.say(MESSAGE + b".") == ACCEPTED
        assert acceptor.submissions[0].recipients == ("B@y.example", "b@y.example", '"a b"@y.example')

    async def test_utf8_addresses_need_smtputf8(self) -> None:
        """Refused without it, kept with it, and named in the protocol word."""
        acceptor = RecordingAcceptor()
        async with running(acceptor) as server, connected(server) as mailer:
            await mailer.hello()
            refused = await mailer.say("MAIL FROM:<ю@b.example>".encode())
            assert refused == b"553 5.6.7 A sender address outside ASCII needs SMTPUTF8\r\n"
            await mailer.begin("<я@b.example>".encode(), sender="<ю@b.example> SMTPUTF8".encode())
            assert await mailer.say(MESSAGE + b".") == ACCEPTED
        assert acceptor.submissions[0].recipients == ("я@b.example",)
        assert acceptor.submissions[0].protocol == "UTF8SMTP"
        assert acceptor.submissions[0].smtputf8

    async def test_long_lines_and_bare_lf_and_eight_bits_are_taken(self) -> None:
        """Mailers send them all; only CRLF comes out."""
        acceptor = RecordingAcceptor()
        async with running(acceptor) as server, connected(server) as mailer:
            await mailer.hello()
            body = b"Subject: " + b"s" * 5000 + b"\n\n" + b"x" * 500_000 + b"\n\xcf\xf0\xe8\n"
            assert await mailer.deliver(body + b"\r\n") == ACCEPTED
        assert acceptor.submissions[0].content == body.replace(b"\n", b"\r\n") + b"\r\n"

    async def test_a_pipelined_session_is_answered_in_order(self) -> None:
        """RFC 2920: commands may follow one another, and the next transaction may follow the dot, without waiting."""
        acceptor = RecordingAcceptor()
        async with running(acceptor) as server, connected(server) as mailer:
            await mailer.hello()
            start = b"MAIL FROM:<a@b.example>\r\nRCPT TO:<bad>\r\nRCPT TO:<c@d.example>\r\nDATA\r\n"
            await mailer.send(start + MESSAGE + b".\r\n" + start + MESSAGE + b".\r\nQUIT\r\nNOOP\r\n")
            codes = [reply[:9] for reply in await mailer.rest()]
        assert codes == [*[b"250 2.1.0", b"501 5.1.3", b"250 2.1.5", b"354 End d", b"250 2.0.0"] * 2, b"221 2.0.0"]
        assert [s.content for s in acceptor.submissions] == [MESSAGE, MESSAGE]

    async def test_helo_is_made_safe_for_a_received_line(self) -> None:
        """Whatever a computer is called, what we show of it cannot break a header."""
        acceptor = RecordingAcceptor()
        async with running(acceptor) as server, connected(server) as mailer:
            await mailer.reply()
            await mailer.say("EHLO (мой комп) [x]; by evil".encode("cp1251"))
            assert await mailer.deliver() == ACCEPTED
        assert acceptor.submissions[0].helo == "???????????[x]??by?evil"

    async def test_mail_between_resets_is_counted_as_work(self) -> None:
        """A mailer that says RSET between its messages may send any number of them on one connection."""
        acceptor = RecordingAcceptor()
        async with running(acceptor, settings=settings(max_junk=3)) as server, connected(server) as mailer:
            await mailer.hello()
            for _ in range(20):
                assert await mailer.deliver() == ACCEPTED
                assert await mailer.say(b"RSET") == b"250 2.0.0 Ok\r\n"
        assert len(acceptor.submissions) == 20

    async def test_what_happens_is_counted(self) -> None:
        """Submissions by outcome, octets and sessions are metrics."""

        def count(name: str, **labels: str) -> float:
            return REGISTRY.get_sample_value(f"outrider_relay_{name}", labels) or 0.0

        acceptor = RecordingAcceptor()
        accepted = count("submissions_total", outcome="accepted")
        failed = count("submissions_total", outcome="error")
        octets = count("submitted_bytes_total")
        async with running(acceptor) as server, connected(server) as mailer:
            await mailer.hello()
            assert count("open_connections") == 1
            await mailer.deliver()
            acceptor.reply = ValueError("x")
            await mailer.deliver()
        assert count("submissions_total", outcome="accepted") == accepted + 1
        assert count("submissions_total", outcome="error") == failed + 1
        assert count("submitted_bytes_total") == octets + 2 * len(MESSAGE)
        assert count("open_connections") == 0


class TestRefusals:
    """What a client cannot do."""

    @pytest.mark.parametrize(
        ("lines", "reply"),
        [
            ([b"MAIL FROM:<a@b.example>"], b"503 5.5.1 Send EHLO first\r\n"),
            ([b"RCPT TO:<a@b.example>"], b"503 5.5.1 Send EHLO first\r\n"),
            ([b"DATA"], b"503 5.5.1 Send EHLO first\r\n"),
            ([b"EHLO"], b"501 5.5.4 Syntax error in parameters or arguments\r\n"),
            ([b"EHLO x", b"RCPT TO:<a@b.example>"], b"503 5.5.1 Need MAIL command\r\n"),
            ([b"EHLO x", b"DATA"], b"503 5.5.1 Need MAIL command\r\n"),
            ([b"EHLO x", b"MAIL FROM:<>", b"DATA"], b"503 5.5.1 Need RCPT command\r\n"),
            ([b"EHLO x", b"MAIL FROM:<>", b"RCPT TO:<bad>", b"DATA"], b"554 5.5.1 No valid recipients\r\n"),
            ([b"EHLO x", b"MAIL FROM:<>", b"MAIL FROM:<a@b.example>"], b"503 5.5.1 Nested MAIL command\r\n"),
            ([b"EHLO x", b"MAIL FROM:<>", b"RSET", b"RCPT TO:<a@b.example>"], b"503 5.5.1 Need MAIL command\r\n"),
            ([b"EHLO x", b"MAIL FROM:<>", b"EHLO x", b"RCPT TO:<a@b.example>"], b"503 5.5.1 Need MAIL command\r\n"),
            (
                [b"EHLO x", b"MAIL FROM:<>", b"RCPT TO:<a@b.example>", b"DATA now"],
                b"501 5.5.4 Syntax error in parameters or arguments\r\n",
            ),
            ([b"EHLO x", b"MAIL FROM:<> SIZE=26214401"], b"552 5.3.4 Message size exceeds fixed limit\r\n"),
            ([b"EHLO x", b"MAIL FROM:<> SIZE=-1"], b"501 5.5.4 Syntax error in parameters or arguments\r\n"),
            ([b"EHLO x", b"MAIL FROM:<> FOO=1"], b"555 5.5.4 Parameter not recognized or not implemented\r\n"),
            ([b"EHLO x", b"MAIL FROM:<>", b"RCPT TO:<>"], b"501 5.1.3 Bad recipient address syntax\r\n"),
            ([b"EHLO x", b"MAIL FROM:<a@[127.0.0.1]>"], b"501 5.1.7 Bad sender address syntax\r\n"),
            ([b"EHLO x", b"AUTH PLAIN AGEAYg=="], b"502 5.5.1 Command not implemented\r\n"),
            ([b"EHLO x", b"STARTTLS"], b"502 5.5.1 STARTTLS is not offered\r\n"),
            ([b"EHLO x", b"XCLIENT ADDR=192.0.2.1"], b"502 5.5.1 Command not implemented\r\n"),
            ([b"EHLO x", b"XFORWARD ADDR=192.0.2.1"], b"502 5.5.1 Command not implemented\r\n"),
            ([b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2"], b"500 5.5.1 Command not recognized\r\n"),
            ([b"EXPN list"], b"502 5.5.1 Command not implemented\r\n"),
            ([b"VRFY a@b.example"], b"252 2.1.5 Cannot verify, but will take mail for it\r\n"),
            ([b"NOOP anything"], b"250 2.0.0 Ok\r\n"),
            ([b"HELP"], b"214 2.0.0 This is a mail relay: see RFC 5321\r\n"),
            ([b""], b"500 5.5.1 Command not recognized\r\n"),
            ([b"\xff\xfe"], b"500 5.5.1 Command not recognized\r\n"),
            (
                [b"MA\x00IL FROM:<>"],
                b"500 5.5.2 A command is one line of text without control characters, ended by CRLF\r\n",
            ),
        ],
    )
    async def test_a_command_at_the_wrong_time_or_in_the_wrong_way(self, lines: list[bytes], reply: bytes) -> None:
        """Every command gets one reply that says what is wrong, and the session goes on."""
        async with running(RecordingAcceptor()) as server, connected(server) as mailer:
            await mailer.reply()
            assert [await mailer.say(line) for line in lines][-1] == reply
            assert await mailer.say(b"NOOP") == b"250 2.0.0 Ok\r\n"

    async def test_a_lone_lf_ends_no_command(self) -> None:
        """A client that knows no CRLF is told at once instead of waiting for ever, and nothing it says is obeyed."""
        async with running(RecordingAcceptor()) as server, connected(server) as mailer:
            await mailer.reply()
            await mailer.send(b"EHLO x\n")
            assert (await mailer.reply()).startswith(b"500 5.5.2 ")
            await mailer.send(b"MAIL FROM:<a@b.example>\nRCPT TO:<c@d.example>\r\n")
            assert await mailer.say(b"RCPT TO:<c@d.example>") == b"503 5.5.1 Send EHLO first\r\n"

    async def test_an_overlong_line_is_refused_once_and_costs_no_memory(self) -> None:
        """However long, it is one error; the next line is a command again."""
        async with running(RecordingAcceptor()) as server, connected(server) as mailer:
            await mailer.hello()
            for length in (2049, 100_000, 3_000_000):
                assert await mailer.say(b"NOOP " + b"x" * length) == b"500 5.5.2 Line too long\r\n"
            assert await mailer.say(b"NOOP " + b"x" * 2000) == b"250 2.0.0 Ok\r\n"

    @pytest.mark.parametrize(
        "verb", [b"GET / HTTP/1.1", b"POST /x HTTP/1.1", b"CONNECT a:25 HTTP/1.1", b"BDAT 10 LAST"]
    )
    async def test_what_is_not_ours_closes_at_once(self, verb: bytes) -> None:
        """The body of a browser's request and a BDAT chunk are never read as commands."""
        acceptor = RecordingAcceptor()
        async with running(acceptor) as server, connected(server) as mailer:
            await mailer.hello()
            await mailer.send(verb + b"\r\nMAIL FROM:<a@b.example>\r\nRCPT TO:<c@d.example>\r\nDATA\r\nx\r\n.\r\n")
            (reply,) = await mailer.rest()
            assert reply.startswith((b"500 5.5.1 ", b"502 5.5.1 "))
        assert acceptor.submissions == []

    async def test_errors_have_a_budget(self) -> None:
        """Ten are answered; the eleventh ends the session."""
        async with running(RecordingAcceptor()) as server, connected(server) as mailer:
            await mailer.hello()
            for _ in range(10):
                assert await mailer.say(b"FOO") == b"500 5.5.1 Command not recognized\r\n"
            assert await mailer.say(b"FOO") == b"421 4.7.0 Too many errors\r\n"
            assert await mailer.rest() == []

    async def test_talk_has_a_budget(self) -> None:
        """Commands that bring no message nearer: a hundred, EHLO among them."""
        async with running(RecordingAcceptor()) as server, connected(server) as mailer:
            await mailer.hello()
            await mailer.send(b"NOOP\r\nRSET\r\nVRFY x\r\n" * 33 + b"NOOP\r\n")
            answers = await mailer.rest()
        assert len(answers) == 100
        assert answers[-1] == b"421 4.7.0 Too many commands without a message\r\n"

    async def test_a_verdict_is_nobodys_error(self) -> None:
        """A list with many dead addresses does not cost the mailer its connection."""
        acceptor = RecordingAcceptor()
        acceptor.reply = Reply(550, "5.1.1", "No such user")
        async with running(acceptor) as server, connected(server) as mailer:
            await mailer.hello()
            for _ in range(15):
                assert await mailer.deliver() == b"550 5.1.1 No such user\r\n"

    async def test_too_many_recipients_are_deferred(self) -> None:
        """The first thousand are taken, the rest told to come in the next transaction; a flood ends."""
        acceptor = RecordingAcceptor()
        async with running(acceptor, settings=settings(max_recipients=20)) as server, connected(server) as mailer:
            await mailer.hello()
            await mailer.say(b"MAIL FROM:<a@b.example>")
            codes = [(await mailer.say(b"RCPT TO:<r%d@d.example>" % i))[:9] for i in range(40)]
            assert codes == [b"250 2.1.5"] * 20 + [b"452 4.5.3"] * 20
            await mailer.say(b"DATA")
            assert await mailer.say(MESSAGE + b".") == ACCEPTED
            await mailer.say(b"MAIL FROM:<a@b.example>")
            await mailer.send(b"".join(b"RCPT TO:<r%d@d.example>\r\n" % i for i in range(100)))
            assert (await mailer.rest())[-1] == b"421 4.7.0 Too many errors\r\n"
        assert len(acceptor.submissions[0].recipients) == 20

    async def test_it_is_never_an_open_relay(self) -> None:
        """A peer outside the allowed networks gets nothing through, whatever it calls itself."""
        acceptor = RecordingAcceptor()
        for allow in ((), ("192.0.2.0/24", "::1")):
            async with running(acceptor, settings=settings(allow=allow)) as server, connected(server) as mailer:
                await mailer.hello()
                assert await mailer.say(b"MAIL FROM:<a@b.example>") == b"550 5.7.1 Relaying denied\r\n"
                assert await mailer.begin() == b"503 5.5.1 Need MAIL command\r\n"
        assert acceptor.submissions == []

    async def test_addresses_and_content_stay_out_of_every_log(
        self, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
    ) -> None:
        """The library's own logger, which prints both, is silent even where everything is logged."""
        caplog.set_level(logging.DEBUG)
        acceptor = RecordingAcceptor()
        acceptor.reply = RuntimeError("secret")
        async with running(acceptor) as server, connected(server) as mailer:
            await mailer.hello()
            await mailer.begin(b"<private-person@example.net>", b"<other-person@[bad>")
            await mailer.say(b"secret content\r\n.")
        printed = "".join(capsys.readouterr()) + caplog.text
        assert "person" not in printed
        assert "secret" not in printed
