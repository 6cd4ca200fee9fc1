"""Connections to an upstream: used again, asked, replaced, verified, logged in."""

import asyncio
import ssl
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import trustme
from structlog.testing import capture_logs

from relay.upstream import Trouble, Verdict
from relay.upstream_address import parse
from relay.upstream_pool import SmtpUpstream
from tests.contract.test_upstream import _nothing, letter
from tests.sink import Sink


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


@pytest.mark.parametrize("last_words", ["421 4.4.2 Idle too long", ""])
async def test_a_connection_found_dead_at_mail_costs_no_try(last_words: str) -> None:
    """Closed between two messages without our knowing: the second goes out on another, at once."""
    async with Sink().listening() as sink:
        upstream = SmtpUpstream(parse(f"smtp://127.0.0.1:{sink.port}"), hostname="relay.example.com")
        await upstream.send(letter(), _nothing)
        answers = iter([last_words])
        sink.mail = lambda _: next(answers, "250 2.1.0 Ok")
        assert isinstance(await upstream.send(letter(), _nothing), Verdict)
        assert (sink.connections, len(sink.kept)) == (2, 2)
        await upstream.close()


async def test_a_connection_that_has_been_idle_is_asked_first() -> None:
    """RSET after a while, nothing before the next MAIL when it was used a moment ago."""
    async with Sink().listening() as sink:
        address = parse(f"smtp://127.0.0.1:{sink.port}")
        for sure_seconds, asked in ((60.0, 0), (0.0, 2)):
            sink.commands.clear()
            upstream = SmtpUpstream(address, hostname="relay.example.com", sure_seconds=sure_seconds)
            for _ in range(3):
                await upstream.send(letter(), _nothing)
            assert sink.commands.count("RSET") == asked
            await upstream.close()


async def test_what_was_begun_is_reset() -> None:
    """A recipient that was refused leaves a transaction open, which must not reach the next message."""
    async with Sink().listening() as sink:
        upstream = SmtpUpstream(parse(f"smtp://127.0.0.1:{sink.port}"), hostname="relay.example.com")
        sink.rcpt = lambda _: "550 5.1.1 Unknown"
        await upstream.send(letter(), _nothing)
        sink.rcpt = lambda _: "250 Ok"
        await upstream.send(letter(), _nothing)
        assert [command[:4] for command in sink.commands] == ["EHLO", "MAIL", "RCPT", "RSET", "MAIL", "RCPT", "DATA"]
        await upstream.close()


@pytest.mark.parametrize(
    ("limits", "connections"),
    [({"max_messages": 2}, 3), ({"max_seconds": 0.0}, 5), ({"idle_seconds": 0.0}, 5), ({}, 1)],
    ids=["messages", "age", "idle", "none reached"],
)
async def test_a_connection_has_its_limits(limits: dict[str, Any], connections: int) -> None:
    """After so many messages, so many seconds, or so long idle, another one is opened; each is taken leave of."""
    async with Sink().listening() as sink:
        address = parse(f"smtp://127.0.0.1:{sink.port}")
        upstream = SmtpUpstream(address, hostname="relay.example.com", **limits)
        for _ in range(5):
            assert isinstance(await upstream.send(letter(), _nothing), Verdict)
        assert sink.connections == connections
        await upstream.close()
        assert len(sink.kept) == 5


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


@pytest.mark.parametrize(
    ("methods", "said"),
    [
        ("PLAIN LOGIN CRAM-MD5", ["AUTH PLAIN AHVzZXIAc2VjcmV0"]),
        ("LOGIN", ["AUTH LOGIN dXNlcg==", "c2VjcmV0"]),
        ("XOAUTH2", []),
    ],
)
async def test_auth_by_what_is_offered(methods: str, said: list[str]) -> None:
    """PLAIN first, else LOGIN; none of ours is trouble, and nothing is said."""
    sink = Sink()
    sink.auth_methods = methods
    async with sink.listening():
        upstream = SmtpUpstream(
            parse(f"smtp://user:secret@127.0.0.1:{sink.port}?starttls=off"), hostname="relay.example.com"
        )
        outcome = await upstream.send(letter(), _nothing)
        before_mail = [one for one in sink.commands[1:] if not one.startswith(("MAIL", "RCPT", "DATA", "RSET"))]
        assert before_mail == said
        assert isinstance(outcome, Verdict) if said else outcome == Trouble(reason="auth", unwell=True)
        await upstream.close()


async def test_no_password_in_clear_text_beyond_this_machine() -> None:
    """0.0.0.0 reaches the sink, and is no loopback address: the upstream offers no TLS, so it gets no password."""
    async with Sink().listening() as sink:
        upstream = SmtpUpstream(
            parse(f"smtp://user:secret@0.0.0.0:{sink.port}?starttls=opportunistic"), hostname="relay.example.com"
        )
        assert await upstream.send(letter(), _nothing) == Trouble(reason="tls", unwell=True)
        assert [command[:4] for command in sink.commands] == ["EHLO"]


async def test_clear_text_beyond_this_machine_is_said_once() -> None:
    """Mail goes, and the log says why it is not encrypted."""
    async with Sink().listening() as sink:
        upstream = SmtpUpstream(parse(f"smtp://0.0.0.0:{sink.port}"), hostname="relay.example.com", max_messages=1)
        with capture_logs() as logs:
            for _ in range(2):
                assert isinstance(await upstream.send(letter(), _nothing), Verdict)
        said = [entry for entry in logs if entry["event"] == "upstream_without_tls"]
        assert [(entry["upstream"], entry["reason"]) for entry in said] == [(f"0.0.0.0:{sink.port}", "not offered")]
        await upstream.close()


@pytest.mark.parametrize("starttls", ["required", "opportunistic"])
@pytest.mark.parametrize("fault", ["expired", "stranger"])
async def test_a_certificate_is_verified(starttls: str, fault: str) -> None:
    """A wrong one is trouble where TLS is required; `opportunistic` goes on, and says once what is wrong with it."""
    authority = trustme.CA()
    server, client = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.create_default_context()
    until = datetime.now(UTC) - timedelta(days=1) if fault == "expired" else None
    authority.issue_cert("0.0.0.0", not_after=until).configure_cert(server)
    if fault == "expired":
        authority.configure_trust(client)
    sink = Sink()
    sink.tls = server
    async with sink.listening():
        address = parse(f"smtp://0.0.0.0:{sink.port}?starttls={starttls}")
        upstream = SmtpUpstream(address, hostname="relay.example.com", tls=client, max_messages=1)
        with capture_logs() as logs:
            outcomes = await asyncio.gather(*(upstream.send(letter(), _nothing) for _ in range(5)))
            outcomes += [await upstream.send(letter(), _nothing)]
        await upstream.close()
    word = "expired" if fault == "expired" else "issuer"
    if starttls == "required":
        assert outcomes == [Trouble(reason="tls", unwell=True)] * 6
        assert [entry["event"] for entry in logs] == ["upstream_certificate_refused"] * 6
    else:
        assert all(isinstance(outcome, Verdict) for outcome in outcomes)
        assert [entry["event"] for entry in logs] == ["upstream_certificate_not_verified"]
    assert all(word in entry["reason"] for entry in logs)
