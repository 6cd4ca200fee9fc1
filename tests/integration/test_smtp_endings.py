"""How a message, a session and a server end: limits of size and time, clients that hang up, and the drain."""

import asyncio
import socket
import struct

import pytest

from relay.channel import Channel
from relay.server import Listener, ServerSettings, serve
from tests.mailer import DEADLINE, HOSTNAME, KEY, MESSAGE, Mailer, RecordingAcceptor, connected, running

ACCEPTED = f"250 2.0.0 Ok: queued as {KEY}\r\n".encode()


def settings(**changes: object) -> ServerSettings:
    """Return settings for a test."""
    return ServerSettings(**{"hostname": HOSTNAME, **changes})  # type: ignore[arg-type]  # checked by the tests


async def until(event: asyncio.Event) -> None:
    """Wait for an event with a deadline."""
    async with asyncio.timeout(DEADLINE):
        await event.wait()


class TestContentLimits:
    """Size, hops and time."""

    async def test_too_big_is_552_after_the_dot_and_the_session_goes_on(self) -> None:
        """What is over the limit is read and discarded, never taken for commands."""
        acceptor = RecordingAcceptor()
        async with running(acceptor, settings=settings(max_bytes=10_000)) as server, connected(server) as mailer:
            await mailer.hello()
            assert await mailer.deliver(b"NOOP\r\n" * 2000) == b"552 5.3.4 Message size exceeds fixed limit\r\n"
            assert await mailer.deliver() == ACCEPTED
        assert [s.content for s in acceptor.submissions] == [MESSAGE]

    @pytest.mark.parametrize("line_end", [b"", b"\r\n"])
    async def test_twice_the_limit_closes(self, line_end: bytes) -> None:
        """A sender that never ends does not occupy us for ever, with line ends or without."""
        acceptor = RecordingAcceptor()
        async with running(acceptor, settings=settings(max_bytes=10_000)) as server, connected(server) as mailer:
            await mailer.hello()
            await mailer.begin()
            await mailer.send((b"x" * 998 + line_end) * 21)
            assert await mailer.reply() == b"552 5.3.4 Message size exceeds fixed limit\r\n"
            assert await mailer.rest() == []
        assert acceptor.submissions == []

    async def test_the_last_words_reach_a_client_that_is_still_sending(self) -> None:
        """A reset would take the reply with it, and the mailer would try the same message for days."""
        async with running(RecordingAcceptor(), settings=settings(max_bytes=10_000)) as server:
            for mailer_sends in (b"x" * 3_000_000, b"NOOP\r\n" * 500_000):
                async with connected(server) as mailer:
                    await mailer.hello()
                    await mailer.begin()
                    await mailer.send(mailer_sends)
                    assert await mailer.rest() == [b"552 5.3.4 Message size exceeds fixed limit\r\n"]

    async def test_a_loop_is_refused(self) -> None:
        """More than 50 Received fields are nobody's honest way."""
        acceptor = RecordingAcceptor()
        async with running(acceptor) as server, connected(server) as mailer:
            await mailer.hello()
            assert await mailer.deliver(b"Received: a\r\n" * 51 + MESSAGE) == (
                b"554 5.4.6 Too many hops: mail is looping\r\n"
            )
            assert await mailer.deliver(b"Received: a\r\n" * 50 + MESSAGE) == ACCEPTED

    async def test_an_idle_session_is_told_and_closed(self) -> None:
        """421 4.4.2, at any point where we wait for the client."""
        async with running(RecordingAcceptor(), settings=settings(idle_timeout=0.2)) as server:
            async with connected(server) as mailer:
                await mailer.hello()
                assert await mailer.rest() == [b"421 4.4.2 Timed out waiting for the client\r\n"]
            async with connected(server) as mailer:
                await mailer.hello()
                await mailer.begin()
                await mailer.send(b"Subject: x\r\n")
                assert await mailer.rest() == [b"421 4.4.2 Timed out waiting for the client\r\n"]

    async def test_a_trickle_does_not_outlive_the_deadline(self) -> None:
        """The whole of DATA has a time limit, however steadily octets come."""
        acceptor = RecordingAcceptor()
        async with running(acceptor, settings=settings(data_timeout=0.5)) as server, connected(server) as mailer:
            await mailer.hello()
            await mailer.begin()
            answer = asyncio.create_task(mailer.rest())
            while not answer.done():
                mailer.writer.write(b"x")
                await asyncio.wait([answer], timeout=0.02)
            assert answer.result() == [b"421 4.4.2 Timed out waiting for the client\r\n"]
        assert acceptor.submissions == []

    async def test_the_pipeline_may_take_longer_than_a_client_may(self) -> None:
        """No timer of the client's runs while we work; afterwards it runs again."""
        acceptor = RecordingAcceptor()
        acceptor.go.clear()
        async with running(acceptor, settings=settings(idle_timeout=0.2)) as server, connected(server) as mailer:
            await mailer.hello()
            await mailer.begin()
            await mailer.send(MESSAGE + b".\r\n")
            await until(acceptor.arrived)
            await asyncio.sleep(0.5)  # Longer than the timer that must not run.
            acceptor.go.set()
            assert await mailer.reply() == ACCEPTED
            assert await mailer.rest() == [b"421 4.4.2 Timed out waiting for the client\r\n"]


async def hang_up_politely(mailer: Mailer) -> None:
    """Close both directions."""
    await mailer.close()


async def half_close(mailer: Mailer) -> None:
    """Say that nothing more will come."""
    mailer.writer.write_eof()


async def quit_and_half_close(mailer: Mailer) -> None:
    """Pipeline QUIT, and say that nothing more will come."""
    mailer.writer.write(b"QUIT\r\n")
    mailer.writer.write_eof()


async def reset(mailer: Mailer) -> None:
    """Reset the connection: everything unread is lost to the client."""
    sock: socket.socket = mailer.writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    mailer.writer.transport.abort()


class TestHangingUp:
    """A client that goes away after the final dot changes nothing."""

    @pytest.mark.parametrize("leave", [hang_up_politely, half_close, quit_and_half_close, reset])
    async def test_the_outcome_is_completed_after_the_client_has_gone(self, leave: object) -> None:
        """The work belongs to the server; nothing cancels it."""
        acceptor = RecordingAcceptor()
        acceptor.go.clear()
        async with running(acceptor) as server, connected(server) as mailer:
            await mailer.hello()
            await mailer.begin()
            await mailer.send(MESSAGE + b".\r\n")
            await until(acceptor.arrived)
            await leave(mailer)  # type: ignore[operator]  # one of the four above
            await asyncio.sleep(0.1)  # For the server to notice; if it has not, the test is the weaker for it.
            assert acceptor.finished == []
            acceptor.go.set()
            await server.drain(seconds=DEADLINE)
        assert [s.content for s in acceptor.finished] == [MESSAGE]

    @pytest.mark.parametrize("leave", [hang_up_politely, half_close, quit_and_half_close, reset])
    async def test_the_dot_counts_when_it_is_the_last_thing_sent(self, leave: object) -> None:
        """What arrived before the end of the connection is read to its end."""
        acceptor = RecordingAcceptor()
        async with running(acceptor) as server, connected(server) as mailer:
            await mailer.hello()
            await mailer.begin()
            await mailer.send(MESSAGE + b".\r\n")
            await leave(mailer)  # type: ignore[operator]  # one of the four above
            # A reset may overtake what was sent; otherwise the whole message was here.
            if leave is not reset:
                await until(acceptor.arrived)
        assert [s.content for s in acceptor.finished] == [MESSAGE] or leave is reset

    async def test_the_end_of_the_connection_does_not_overtake_the_dot(self) -> None:
        """When both are there before we look, the message is there too."""
        acceptor = RecordingAcceptor()
        async with running(acceptor) as server, connected(server) as mailer:
            await mailer.hello()
            await mailer.begin()
            (session,) = server._reception._guests
            assert isinstance(session, Channel)
            transport = session._socket
            # What the event loop does on a reset, in the one order that sockets show too seldom to test.
            session.data_received(MESSAGE + b".\r\n")
            session.connection_lost(ConnectionResetError())
            transport.abort()
            await until(acceptor.arrived)
        assert [s.content for s in acceptor.finished] == [MESSAGE]

    async def test_half_a_message_is_none(self) -> None:
        """Without its final dot a message was never submitted."""
        acceptor = RecordingAcceptor()
        for leave in (hang_up_politely, half_close, quit_and_half_close, reset):
            async with running(acceptor) as server, connected(server) as mailer:
                await mailer.hello()
                await mailer.begin()
                await mailer.send(MESSAGE + b"\r\n.\r")
                await leave(mailer)
                await server.drain(seconds=DEADLINE)
        assert acceptor.submissions == []

    async def test_a_half_closed_client_still_gets_its_replies(self) -> None:
        """`nc` closes its side when its input ends, and waits."""
        acceptor = RecordingAcceptor()
        async with running(acceptor) as server, connected(server) as mailer:
            await mailer.send(
                b"HELO x\r\nMAIL FROM:<a@b.example>\r\nRCPT TO:<c@d.example>\r\nDATA\r\n" + MESSAGE + b".\r\nQUIT\r\n"
            )
            mailer.writer.write_eof()
            assert [reply[:3] for reply in await mailer.rest()] == [
                b"220",
                b"250",
                b"250",
                b"250",
                b"354",
                b"250",
                b"221",
            ]
        assert acceptor.submissions[0].protocol == "SMTP"


class TestConnections:
    """How many, and how they end."""

    async def test_connections_have_a_limit(self) -> None:
        """One too many gets 421 in place of the banner; a place that is left is free again."""
        async with (
            running(RecordingAcceptor(), settings=settings(max_connections=2)) as server,
            connected(server) as first,
            connected(server) as second,
        ):
            await first.hello()
            await second.hello()
            async with connected(server) as third:
                assert await third.rest() == [b"421 4.7.0 Too many connections, try again later\r\n"]
            assert await second.say(b"QUIT") == b"221 2.0.0 Bye\r\n"
            assert await second.rest() == []
            async with connected(server) as fourth:
                assert (await fourth.reply()).startswith(b"220 ")

    async def test_one_client_has_a_limit_and_loopback_has_none(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A stranger cannot take all the places; the mailer on this machine may have as many as it wants."""
        async with (
            running(RecordingAcceptor(), settings=settings(max_connections_per_client=1)) as server,
            connected(server) as first,
            connected(server) as second,
        ):
            await first.hello()
            await second.hello()
            # There is no other way to come from elsewhere on a machine with loopback alone.
            monkeypatch.setattr("relay.reception.is_loopback", lambda _client: False)
            async with connected(server) as third:
                assert await third.rest() == [b"421 4.7.0 Too many connections, try again later\r\n"]

    async def test_a_drain_ends_idle_sessions_and_finishes_the_others(self) -> None:
        """Nobody is cut off in a transaction, and nobody new comes in."""
        acceptor = RecordingAcceptor()
        async with running(acceptor) as server, connected(server) as idle, connected(server) as busy:
            await idle.hello()
            await busy.hello()
            assert (await busy.begin()).startswith(b"354 ")
            draining = asyncio.create_task(server.drain(seconds=DEADLINE))
            assert await idle.rest() == [b"421 4.3.2 Service is shutting down, try again\r\n"]
            with pytest.raises(OSError, match=r"Connect call failed|refused"):
                await asyncio.open_connection(*server.addresses[0])
            assert not draining.done()
            assert await busy.say(MESSAGE + b".") == ACCEPTED
            assert await busy.rest() == [b"421 4.3.2 Service is shutting down, try again\r\n"]
            async with asyncio.timeout(DEADLINE):
                await draining
        assert len(acceptor.finished) == 1

    async def test_a_drain_waits_for_work_whose_client_has_gone(self) -> None:
        """What was accepted is finished, whoever still listens."""
        acceptor = RecordingAcceptor()
        acceptor.go.clear()
        async with running(acceptor) as server, connected(server) as mailer:
            await mailer.hello()
            await mailer.begin()
            await mailer.send(MESSAGE + b".\r\n")
            await until(acceptor.arrived)
            await reset(mailer)
            draining = asyncio.create_task(server.drain(seconds=DEADLINE))
            done, _ = await asyncio.wait([draining], timeout=0.2)
            assert not done
            acceptor.go.set()
            async with asyncio.timeout(DEADLINE):
                await draining
        assert len(acceptor.finished) == 1

    async def test_a_drain_has_a_deadline(self) -> None:
        """After it the rest is cut off, so that the process ends."""
        acceptor = RecordingAcceptor()
        acceptor.go.clear()
        async with running(acceptor) as server, connected(server) as stuck, connected(server) as slow:
            await stuck.hello()
            await stuck.begin()
            await stuck.send(MESSAGE + b".\r\n")
            await until(acceptor.arrived)
            await slow.hello()
            await slow.begin()
            async with asyncio.timeout(DEADLINE):
                await server.drain(seconds=0.2)
            assert acceptor.finished == []

    async def test_several_processes_may_share_a_port(self) -> None:
        """Two servers on one port, each with a share of the connections."""
        acceptor = RecordingAcceptor()
        first = await serve(acceptor, settings(), listeners=[Listener()], reuse_port=True)
        host, port = first.addresses[0]
        second = await serve(acceptor, settings(), listeners=[Listener(host=host, port=port)], reuse_port=True)
        assert second.addresses == first.addresses
        await first.drain(seconds=DEADLINE)
        async with connected(second) as mailer:
            assert (await mailer.reply()).startswith(b"220 ")
        await second.drain(seconds=DEADLINE)

    async def test_a_bound_socket_may_be_handed_over(self) -> None:
        """A supervisor that binds before it drops its rights passes what it bound."""
        bound = socket.create_server(("127.0.0.1", 0))
        async with running(RecordingAcceptor(), Listener(bound=bound)) as server, connected(server) as mailer:
            assert (await mailer.reply()).startswith(b"220 ")
