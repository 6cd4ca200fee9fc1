"""A proxy in front says who the client is; large mail waits on disk, and for its turn."""

import asyncio
import contextlib
import socket
import struct
from pathlib import Path

import pytest

from relay.server import ServerSettings
from tests.conftest import Eventually
from tests.mailer import HOSTNAME, KEY, RecordingAcceptor, connected, running

ACCEPTED = f"250 2.0.0 Ok: queued as {KEY}\r\n".encode()
BEHIND_PROXY = ServerSettings(hostname=HOSTNAME, proxies=("127.0.0.1",), allow=("192.0.2.0/24", "2001:db8::/32"))
SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"


def v2(command: int, family: int, addresses: bytes, *, more: bytes = b"") -> bytes:
    """Return a header of the PROXY protocol's second version."""
    return SIGNATURE + struct.pack("!BBH", 0x20 | command, family, len(addresses) + len(more)) + addresses + more


def v4(client: str) -> bytes:
    """Return the addresses of an IPv4 connection, as the second version writes them."""
    return socket.inet_aton(client) + socket.inet_aton("192.0.2.1") + struct.pack("!HH", 40000, 25)


INTRODUCTIONS = {
    "v1": (b"PROXY TCP4 192.0.2.7 192.0.2.1 40000 25\r\n", "192.0.2.7"),
    "v1 IPv6": (b"PROXY TCP6 2001:db8::7 2001:db8::1 40000 25\r\n", "2001:db8::7"),
    "v2": (v2(1, 0x11, v4("192.0.2.7")), "192.0.2.7"),
    "v2 with more": (v2(1, 0x11, v4("192.0.2.7"), more=b"\x04\x00\x02ab"), "192.0.2.7"),
}


class TestProxy:
    """The PROXY protocol, from listed peers alone."""

    @pytest.mark.parametrize("name", INTRODUCTIONS)
    @pytest.mark.parametrize("piece", [1, 1000])
    async def test_the_client_is_whom_the_proxy_names(self, name: str, piece: int) -> None:
        """In what is allowed, and in what the pipeline is told; the banner comes after the introduction."""
        said, client = INTRODUCTIONS[name]
        acceptor = RecordingAcceptor()
        async with running(acceptor, settings=BEHIND_PROXY) as server, connected(server) as mailer:
            for at in range(0, len(said), piece):
                await mailer.send(said[at : at + piece])
            await mailer.hello()
            assert await mailer.deliver() == ACCEPTED
        assert [submission.client for submission in acceptor.submissions] == [client]

    async def test_the_proxy_s_own_rights_are_not_the_client_s(self) -> None:
        """The proxy is on loopback; whom it names is not, and may not submit."""
        async with running(RecordingAcceptor(), settings=BEHIND_PROXY) as server, connected(server) as mailer:
            await mailer.send(b"PROXY TCP4 203.0.113.9 192.0.2.1 40000 25\r\n")
            await mailer.hello()
            assert (await mailer.say(b"MAIL FROM:<a@example.com>")).startswith(b"550 5.7.1 ")

    @pytest.mark.parametrize("said", [v2(0, 0, b""), b"PROXY UNKNOWN\r\n"], ids=["v2 LOCAL", "v1 UNKNOWN"])
    async def test_a_proxy_may_speak_for_itself(self, said: bytes) -> None:
        """Its health check is answered."""
        async with running(RecordingAcceptor(), settings=BEHIND_PROXY) as server, connected(server) as mailer:
            await mailer.send(said)
            assert (await mailer.reply()).startswith(b"220 ")

    @pytest.mark.parametrize(
        "said",
        [
            b"EHLO client.example\r\n",
            b"PROXY TCP4 nonsense 192.0.2.1 40000 25\r\n",
            b"PROXY TCP4 192.0.2.7\r\n",
            b"PROXY \xff\r\n",
            v2(7, 0x11, v4("192.0.2.7")),
            v2(1, 0x11, b"\x01"),
            SIGNATURE[:-1] + b"X" + bytes(20),
        ],
    )
    async def test_who_does_not_introduce_anybody_is_not_talked_to(self, said: bytes) -> None:
        """No banner, no error text: the connection is closed."""
        async with running(RecordingAcceptor(), settings=BEHIND_PROXY) as server, connected(server) as mailer:
            await mailer.send(said)
            mailer.writer.write_eof()
            # A connection that is cut with octets unread may end in a reset.
            with contextlib.suppress(ConnectionError):
                assert await mailer.rest() == []

    async def test_a_stranger_s_introduction_is_an_unknown_command(self) -> None:
        """Nobody may say who he is by himself."""
        listed = ServerSettings(hostname=HOSTNAME, proxies=("192.0.2.1",))
        acceptor = RecordingAcceptor()
        async with running(acceptor, settings=listed) as server, connected(server) as mailer:
            await mailer.reply()
            assert (await mailer.say(b"PROXY TCP4 192.0.2.7 192.0.2.1 40000 25")).startswith(b"500 ")
            await mailer.say(b"EHLO client.example")
            assert await mailer.deliver() == ACCEPTED
        assert acceptor.submissions[0].client == "127.0.0.1"

    async def test_clients_are_counted_by_their_own_addresses(self) -> None:
        """A limit for each client does not bite all that come through one proxy."""
        few = ServerSettings(
            hostname=HOSTNAME, proxies=("127.0.0.1",), allow=("192.0.2.0/24",), max_connections_per_client=1
        )
        async with (
            running(RecordingAcceptor(), settings=few) as server,
            connected(server) as one,
            connected(server) as other,
            connected(server) as again,
        ):
            for mailer, client in ((one, b"192.0.2.7"), (other, b"192.0.2.8"), (again, b"192.0.2.7")):
                await mailer.send(b"PROXY TCP4 " + client + b" 192.0.2.1 40000 25\r\n")
                assert (await mailer.reply()).startswith(b"421 " if mailer is again else b"220 ")


class TestLargeMail:
    """What is large waits on disk while it comes in, and then for its turn."""

    CONTENT = b"Subject: x\r\n\r\n" + b"0123456789abcdef" * 64 * 1024 + b"\r\n"

    async def test_it_arrives_as_it_was_sent(self, tmp_path: Path) -> None:
        """And leaves nothing behind."""
        acceptor = RecordingAcceptor()
        settings = ServerSettings(hostname=HOSTNAME, spool=tmp_path)
        async with running(acceptor, settings=settings) as server, connected(server) as mailer:
            await mailer.hello()
            assert await mailer.deliver(self.CONTENT) == ACCEPTED
        assert acceptor.submissions[0].content == self.CONTENT
        assert not await asyncio.to_thread(lambda: list(tmp_path.iterdir()))

    async def test_without_room_it_is_refused_and_nothing_of_it_is_a_command(self, tmp_path: Path) -> None:
        """452, and the session goes on."""
        acceptor = RecordingAcceptor()
        settings = ServerSettings(hostname=HOSTNAME, spool=tmp_path / "gone")
        async with running(acceptor, settings=settings) as server, connected(server) as mailer:
            await mailer.hello()
            reply = await mailer.deliver(self.CONTENT + b"MAIL FROM:<forged@example.com>\r\n")
            assert reply.startswith(b"452 4.3.1 ")
            assert await mailer.deliver() == ACCEPTED
        assert len(acceptor.submissions) == 1

    async def test_so_many_octets_at_a_time(self, eventually: Eventually) -> None:
        """The second one waits for the first; small mail passes both."""
        acceptor = RecordingAcceptor()
        acceptor.go.clear()
        settings = ServerSettings(hostname=HOSTNAME, large_octets=len(self.CONTENT) + 10)
        async with (
            running(acceptor, settings=settings) as server,
            connected(server) as one,
            connected(server) as other,
            connected(server) as small,
        ):
            for mailer in (one, other, small):
                await mailer.hello()
            delivering = [asyncio.create_task(mailer.deliver(self.CONTENT)) for mailer in (one, other)]
            delivering.append(asyncio.create_task(small.deliver()))
            await eventually(lambda: len(acceptor.submissions) == 2)
            assert sorted(len(each.content) < 100 for each in acceptor.submissions) == [False, True]
            acceptor.go.set()
            assert await asyncio.gather(*delivering) == [ACCEPTED] * 3
