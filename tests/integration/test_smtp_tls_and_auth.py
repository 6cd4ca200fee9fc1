"""TLS and AUTH over real sockets: what is said in the clear counts for nothing, and a guesser learns nothing."""

import asyncio
import base64
import hashlib
import ssl
import time
from pathlib import Path

import msgspec
import pytest
import trustme
from prometheus_client import REGISTRY

from relay.passwords import PasswordHash
from relay.server import Listener, RelayServer, ServerSettings, tls_context
from tests.mailer import HOSTNAME, KEY, MESSAGE, Mailer, RecordingAcceptor, connected, running

ACCEPTED = f"250 2.0.0 Ok: queued as {KEY}\r\n".encode()
AUTHENTICATED = b"235 2.7.0 Authentication successful\r\n"
INVALID = b"535 5.7.8 Authentication credentials invalid\r\n"
CHALLENGE_USER = b"334 VXNlcm5hbWU6\r\n"
CHALLENGE_PASSWORD = b"334 UGFzc3dvcmQ6\r\n"

SALT = b"0123456789abcdef"


def hashed(password: bytes) -> PasswordHash:
    """Hash at the lowest cost: these tests are about the exchange."""
    digest = hashlib.scrypt(password, salt=SALT, n=2, r=1, p=1, dklen=32)
    return PasswordHash(log_cost=1, block_size=1, parallel=1, salt=SALT, digest=digest)


USERS = {"ann": hashed(b"correct horse")}


class Tls(msgspec.Struct, frozen=True):
    """Both sides of a TLS connection."""

    server: ssl.SSLContext
    client: ssl.SSLContext


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> Tls:
    """Return contexts of a server for localhost and of a client that trusts it."""
    folder: Path = tmp_path_factory.mktemp("tls")
    authority = trustme.CA()
    certificate = authority.issue_cert("localhost")
    certificate.private_key_pem.write_to_path(folder / "key.pem")
    for pem in certificate.cert_chain_pems:
        pem.write_to_path(folder / "cert.pem", append=True)
    client = ssl.create_default_context()
    authority.configure_trust(client)
    return Tls(tls_context(str(folder / "cert.pem"), str(folder / "key.pem")), client)


def settings(**changes: object) -> ServerSettings:
    """Return settings with users, and without the delay of a failed AUTH."""
    return ServerSettings(**{"hostname": HOSTNAME, "users": USERS, "auth_delay": 0.0, **changes})  # type: ignore[arg-type]  # checked by the tests


def plain(user: bytes, password: bytes, identity: bytes = b"") -> bytes:
    """Return the response of AUTH PLAIN."""
    return base64.b64encode(identity + b"\0" + user + b"\0" + password)


class TestStartTls:
    """RFC 3207, and what attackers make of it."""

    async def test_a_session_is_encrypted(self, tls: Tls) -> None:
        """STARTTLS is offered, works, and everything begins anew."""
        acceptor = RecordingAcceptor()
        async with running(acceptor, settings=settings(tls=tls.server)) as server, connected(server) as mailer:
            await mailer.reply()
            assert b"250-STARTTLS\r\n" in await mailer.say(b"EHLO client.example")
            await mailer.say(b"MAIL FROM:<a@b.example>")
            assert await mailer.say(b"STARTTLS") == b"220 2.0.0 Ready to start TLS\r\n"
            await mailer.start_tls(tls.client)
            assert await mailer.say(b"RCPT TO:<c@d.example>") == b"503 5.5.1 Send EHLO first\r\n"
            assert b"STARTTLS" not in await mailer.say(b"EHLO client.example")
            assert await mailer.say(b"STARTTLS") == b"503 5.5.1 TLS is already active\r\n"
            assert await mailer.deliver() == ACCEPTED
            assert await mailer.say(b"AUTH PLAIN " + plain(b"ann", b"correct horse")) == AUTHENTICATED
            assert await mailer.deliver(b"Subject: y\r\n\r\n" + b"x" * 300_000 + b"\r\n") == ACCEPTED
            assert await mailer.say(b"QUIT") == b"221 2.0.0 Bye\r\n"
        assert [s.protocol for s in acceptor.submissions] == ["ESMTPS", "ESMTPSA"]
        assert [s.source for s in acceptor.submissions] == ["default", "ann"]
        assert [len(s.recipients) for s in acceptor.submissions] == [1, 1]

    async def test_plain_text_before_the_handshake_is_forgotten(self, tls: Tls) -> None:
        """What came in the clear with STARTTLS was written by anybody (CVE-2011-0411)."""
        acceptor = RecordingAcceptor()
        async with running(acceptor, settings=settings(tls=tls.server)) as server, connected(server) as mailer:
            await mailer.hello()
            await mailer.say(b"MAIL FROM:<a@b.example>")
            await mailer.send(b"STARTTLS\r\nEHLO injected\r\nMAIL FROM:<evil@example.net>\r\nRCPT TO:<c@d.example>\r\n")
            assert await mailer.reply() == b"220 2.0.0 Ready to start TLS\r\n"
            await mailer.start_tls(tls.client)
            assert await mailer.say(b"RCPT TO:<c@d.example>") == b"503 5.5.1 Send EHLO first\r\n"
            await mailer.say(b"EHLO client.example")
            assert await mailer.say(b"RCPT TO:<c@d.example>") == b"503 5.5.1 Need MAIL command\r\n"
            assert await mailer.deliver() == ACCEPTED
        assert [s.sender for s in acceptor.submissions] == ["a@b.example"]

    async def test_a_failed_handshake_closes_quietly(self, tls: Tls) -> None:
        """The server stays up, and the session does not fall back to plain text."""
        async with running(RecordingAcceptor(), settings=settings(tls=tls.server)) as server:
            async with connected(server) as mailer:
                await mailer.hello()
                await mailer.say(b"STARTTLS")
                await mailer.send(b"NOOP\r\n" * 20)
                assert b"250" not in await mailer.reader.read()
            async with connected(server) as mailer:
                assert (await mailer.reply()).startswith(b"220 ")

    async def test_implicit_tls_beside_a_plain_listener(self, tls: Tls) -> None:
        """Two listeners of one server: port 25's way and port 465's."""
        acceptor = RecordingAcceptor()
        listeners = (Listener(), Listener(implicit_tls=True))
        async with running(acceptor, *listeners, settings=settings(tls=tls.server)) as server:
            async with connected(server, listener=1, tls=tls.client) as mailer:
                await mailer.reply()
                assert b"STARTTLS" not in await mailer.say(b"EHLO client.example")
                assert await mailer.deliver() == ACCEPTED
                await mailer.begin()
                await mailer.send(MESSAGE + b".\r\n")
            async with connected(server) as mailer:
                await mailer.hello()
                assert await mailer.deliver() == ACCEPTED
        assert [s.protocol for s in acceptor.submissions] == ["ESMTPS", "ESMTPS", "ESMTP"]

    async def test_implicit_tls_needs_a_certificate(self) -> None:
        """Never a listener that only looks encrypted."""
        with pytest.raises(ValueError, match="certificate"):
            async with running(RecordingAcceptor(), Listener(), Listener(implicit_tls=True)):
                pytest.fail("it listens")


class TestAuth:
    """RFC 4954, and what guessers learn: nothing."""

    @pytest.mark.parametrize(
        "exchange",
        [
            [(b"AUTH PLAIN " + plain(b"ann", b"correct horse"), AUTHENTICATED)],
            [(b"auth plain " + plain(b"ann", b"correct horse", b"ann"), AUTHENTICATED)],
            [(b"AUTH PLAIN", b"334 \r\n"), (plain(b"ann", b"correct horse"), AUTHENTICATED)],
            [
                (b"AUTH LOGIN", CHALLENGE_USER),
                (base64.b64encode(b"ann"), CHALLENGE_PASSWORD),
                (base64.b64encode(b"correct horse"), AUTHENTICATED),
            ],
            [
                (b"AUTH LOGIN " + base64.b64encode(b"ann"), CHALLENGE_PASSWORD),
                (base64.b64encode(b"correct horse"), AUTHENTICATED),
            ],
            [(b"AUTH PLAIN " + plain(b"ann", b"wrong"), INVALID)],
            [(b"AUTH PLAIN " + plain(b"bob", b"correct horse"), INVALID)],
            [(b"AUTH PLAIN " + plain(b"", b""), INVALID)],
            [(b"AUTH PLAIN " + plain(b"ann", b"correct horse", b"bob"), INVALID)],
            [(b"AUTH PLAIN " + plain(b"\xff", b"\xff"), INVALID)],
            [(b"AUTH PLAIN", b"334 \r\n"), (b"*", b"501 5.7.0 Authentication cancelled\r\n")],
            [(b"AUTH PLAIN !!!", b"501 5.5.2 Cannot decode the authentication response\r\n")],
            [(b"AUTH PLAIN =", b"501 5.5.2 Cannot decode the authentication response\r\n")],
            [
                (
                    b"AUTH PLAIN " + base64.b64encode(b"no separators"),
                    b"501 5.5.2 Cannot decode the authentication response\r\n",
                )
            ],
            [(b"AUTH CRAM-MD5", b"504 5.5.4 Unrecognized authentication mechanism\r\n")],
            [(b"AUTH", b"504 5.5.4 Unrecognized authentication mechanism\r\n")],
            [(b"AUTH PLAIN " + base64.b64encode(b"x" * 12_000), b"500 5.5.2 Line too long\r\n")],
        ],
    )
    async def test_an_exchange(self, exchange: list[tuple[bytes, bytes]]) -> None:
        """Each step gets its reply; afterwards the session goes on, and only a success counts."""
        acceptor = RecordingAcceptor()
        async with running(acceptor, settings=settings(allow=())) as server, connected(server) as mailer:
            await mailer.reply()
            assert b"AUTH PLAIN LOGIN\r\n" in await mailer.say(b"EHLO client.example")
            for line, reply in exchange:
                assert await mailer.say(line) == reply
            succeeded = exchange[-1][1] == AUTHENTICATED
            sender = await mailer.say(b"MAIL FROM:<a@b.example>")
            assert sender == (b"250 2.1.0 Ok\r\n" if succeeded else b"530 5.7.0 Authentication required\r\n")

    async def test_an_authenticated_mailer_submits_from_anywhere(self) -> None:
        """Its name is the source; a second AUTH and one in a transaction are refused."""
        acceptor = RecordingAcceptor()
        async with running(acceptor, settings=settings(allow=())) as server:
            for _ in range(2):
                async with connected(server) as mailer:
                    await mailer.hello()
                    login = b"AUTH PLAIN " + plain(b"ann", b"correct horse")
                    assert await mailer.say(login) == AUTHENTICATED
                    assert await mailer.say(login) == b"503 5.5.1 Already authenticated\r\n"
                    assert b"AUTH" not in await mailer.say(b"EHLO client.example")
                    assert await mailer.deliver() == ACCEPTED
            async with connected(server) as mailer:
                await mailer.hello()
                assert await mailer.say(b"AUTH PLAIN " + plain(b"ann", b"correct horse ")) == INVALID
        assert [(s.source, s.protocol) for s in acceptor.submissions] == [("ann", "ESMTPA")] * 2

    async def test_auth_belongs_before_the_transaction_and_to_ehlo(self) -> None:
        """RFC 4954 4."""
        async with running(RecordingAcceptor(), settings=settings()) as server, connected(server) as mailer:
            await mailer.reply()
            await mailer.say(b"HELO client.example")
            assert await mailer.say(b"AUTH PLAIN") == b"503 5.5.1 Send EHLO first\r\n"
            await mailer.say(b"EHLO client.example")
            await mailer.say(b"MAIL FROM:<a@b.example>")
            assert await mailer.say(b"AUTH PLAIN") == (b"503 5.5.1 AUTH is not permitted during a mail transaction\r\n")

    async def test_a_stranger_must_encrypt_first(self, tls: Tls, monkeypatch: pytest.MonkeyPatch) -> None:
        """A password never crosses a network in the clear: not offered, and refused before it is read."""
        # There is no other way to come from elsewhere on a machine with loopback alone.
        monkeypatch.setattr("relay.channel.is_loopback", lambda _client: False)
        acceptor = RecordingAcceptor()
        async with (
            running(acceptor, settings=settings(tls=tls.server, allow=())) as server,
            connected(server) as mailer,
        ):
            await mailer.reply()
            assert b"AUTH" not in await mailer.say(b"EHLO client.example")
            assert await mailer.say(b"AUTH PLAIN " + plain(b"ann", b"correct horse")) == (
                b"538 5.7.11 Encryption required for requested authentication mechanism\r\n"
            )
            assert await mailer.say(b"MAIL FROM:<a@b.example>") == b"530 5.7.0 Authentication required\r\n"
            await mailer.say(b"STARTTLS")
            await mailer.start_tls(tls.client)
            assert b"AUTH PLAIN LOGIN\r\n" in await mailer.say(b"EHLO client.example")
            assert await mailer.say(b"AUTH PLAIN " + plain(b"ann", b"correct horse")) == AUTHENTICATED
            assert await mailer.deliver() == ACCEPTED

    async def test_a_failure_takes_a_second_and_blocks_nobody_else(self) -> None:
        """Guessing is slow; others are served meanwhile."""
        async with (
            running(RecordingAcceptor(), settings=settings(auth_delay=1.0)) as server,
            connected(server) as guesser,
            connected(server) as other,
        ):
            await guesser.hello()
            began = time.monotonic()
            guess = asyncio.create_task(guesser.say(b"AUTH PLAIN " + plain(b"ann", b"wrong")))
            await other.hello()
            assert await other.deliver() == ACCEPTED
            assert not guess.done()
            assert await guess == INVALID
            assert time.monotonic() - began >= 1.0

    async def test_five_failures_end_the_session(self) -> None:
        """And are counted; a known and an unknown user get the same answers."""
        for user in (b"ann", b"nobody"):
            before = REGISTRY.get_sample_value("outrider_relay_auth_failures_total") or 0.0
            async with running(RecordingAcceptor(), settings=settings()) as server, connected(server) as mailer:
                await mailer.hello()
                answers = [await mailer.say(b"AUTH PLAIN " + plain(user, b"wrong")) for _ in range(5)]
                assert answers == [INVALID] * 4 + [b"421 4.7.0 Too many failed authentications\r\n"]
                assert await mailer.rest() == []
            assert REGISTRY.get_sample_value("outrider_relay_auth_failures_total") == before + 5

    async def test_credentials_reach_no_log(
        self, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
    ) -> None:
        """Neither the blob nor what is in it, in success and in failure."""
        caplog.set_level("DEBUG")
        blobs = [plain(b"ann", b"correct horse"), plain(b"ann", b"hunter2")]
        async with running(RecordingAcceptor(), settings=settings()) as server:
            for blob in blobs:
                async with connected(server) as mailer:
                    await mailer.hello()
                    await mailer.say(b"AUTH PLAIN " + blob)
        printed = "".join(capsys.readouterr()) + caplog.text
        for secret in ("ann", "horse", "hunter2", *(blob.decode() for blob in blobs)):
            assert secret not in printed

    async def test_a_client_that_leaves_during_the_exchange_leaves_nothing(self) -> None:
        """The session ends, and the server with it."""
        async with running(RecordingAcceptor(), settings=settings()) as server:
            async with connected(server) as mailer:
                await mailer.hello()
                assert await mailer.say(b"AUTH LOGIN") == CHALLENGE_USER
            async with connected(server) as mailer:
                assert isinstance(mailer, Mailer)
                assert (await mailer.reply()).startswith(b"220 ")


async def test_a_guesser_is_not_heard_any_more(tls: Tls) -> None:
    """After twenty failures from one address even the right password waits, in new sessions too; others are heard."""
    own = settings(tls=tls.server, proxies=("127.0.0.1",), allow=(), max_auth_failures=1000, max_errors=1000)
    right, wrong = (b"AUTH PLAIN " + base64.b64encode(b"\0ann\0" + word) for word in (b"correct horse", b"wrong"))
    async with running(RecordingAcceptor(), settings=own) as server:
        for client, guesses, heard in (
            (b"192.0.2.7", 20, b"421 4.7.0 "),
            (b"192.0.2.7", 0, b"421 4.7.0 "),
            (b"192.0.2.8", 19, b"235 2.7.0 "),
        ):
            async with connected(server) as mailer:
                await mailer.send(b"PROXY TCP4 " + client + b" 192.0.2.1 40000 25\r\n")
                await mailer.hello()
                await mailer.say(b"STARTTLS")
                await mailer.start_tls(tls.client)
                await mailer.say(b"EHLO client.example")
                for _ in range(guesses):
                    assert await mailer.say(wrong) == INVALID
                assert (await mailer.say(right)).startswith(heard)


def pair(folder: Path, authority: trustme.CA) -> tuple[str, str]:
    """Write another certificate for localhost; return its files."""
    certificate = authority.issue_cert("localhost")
    certificate.private_key_pem.write_to_path(folder / "key.pem")
    certificate.cert_chain_pems[0].write_to_path(folder / "cert.pem")
    return str(folder / "cert.pem"), str(folder / "key.pem")


async def test_a_certificate_and_users_are_reloaded(tmp_path: Path) -> None:
    """Sessions from here on see the new ones; a pair that does not belong together changes nothing."""
    authority = trustme.CA()
    client = ssl.create_default_context()
    authority.configure_trust(client)
    certificate = pair(tmp_path, authority)
    own = settings(tls=tls_context(*certificate))

    async def seen(server: RelayServer, password: bytes) -> tuple[bytes | None, bytes]:
        async with connected(server) as mailer:
            await mailer.hello()
            await mailer.say(b"STARTTLS")
            await mailer.start_tls(client)
            await mailer.say(b"EHLO client.example")
            found = mailer.writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
            return found, await mailer.say(b"AUTH PLAIN " + base64.b64encode(b"\0ann\0" + password))

    async with running(RecordingAcceptor(), settings=own) as server:
        first = await seen(server, b"correct horse")
        assert first[1] == AUTHENTICATED
        (tmp_path / "key.pem").write_text("no key")
        with pytest.raises(ssl.SSLError):
            server.reload(users=None, certificate=certificate)
        assert await seen(server, b"correct horse") == first
        server.reload(users={"ann": hashed(b"battery staple")}, certificate=pair(tmp_path, authority))
        other, reply = await seen(server, b"correct horse")
        assert other not in {None, first[0]}
        assert reply == INVALID
        assert (await seen(server, b"battery staple"))[1] == AUTHENTICATED
