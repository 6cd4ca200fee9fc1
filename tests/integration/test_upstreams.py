"""What the upstream does, and what the mailer hears, the ledger says and happens next: the rows of docs/relay.md."""

import functools
import ssl
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from email import message_from_bytes
from typing import Any, cast

import pytest
import trustme
from prometheus_client import REGISTRY
from structlog.testing import capture_logs

from ledger.ids import key_text
from relay.circuit import Circuit
from relay.routes import parse_routing
from relay.settings import RelaySettings
from relay.upstream_address import UpstreamAddress
from relay.upstream_connection import Connector
from relay.upstream_conversation import EIGHT_BIT
from relay.upstream_pool import SmtpUpstream
from relay.upstreams import Upstreams
from tests.conftest import Eventually
from tests.relaying import Relay, relaying, submission
from tests.running_queue import running
from tests.sink import Sink

QUICK = RelaySettings(verdict_wait=1.0, ledger_wait=1.0, retry_first=0.01)


class Clock:
    """Time as the test wants it."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        """Return the time."""
        return self.now


def several(
    *urls: str,
    routes: Sequence[str] = (),
    clock: Callable[[], float] = time.monotonic,
    tls: ssl.SSLContext | None = None,
    seconds: float = 5.0,
) -> Upstreams:
    """Return upstreams whose circuits live by *clock*."""

    def connect(address: UpstreamAddress) -> SmtpUpstream:
        connector = Connector(address, hostname="relay.example.com", tls=tls, seconds=seconds)
        return SmtpUpstream(address, hostname="relay.example.com", connector=connector)

    return Upstreams(parse_routing(urls, routes), connect, circuit=functools.partial(Circuit, clock))


async def rows(relay: Relay) -> list[dict[str, Any]]:
    """Return the ledger's rows."""
    async with relay.ledger.session() as session:
        return [dict(row) for row in await session._connection.fetch("SELECT * FROM delivery ORDER BY message")]


def message_ids(*sinks: Sink) -> list[str]:
    """Return the Message-IDs of what the sinks kept."""
    return [str(message_from_bytes(kept.content)["Message-ID"]) for sink in sinks for kept in sink.kept]


class Certificates:
    """What a server shows, and what we trust."""

    def __init__(self) -> None:
        authority, stranger = trustme.CA(), trustme.CA()
        yesterday = datetime.now(UTC) - timedelta(days=1)
        self.good = self._server(authority.issue_cert("127.0.0.1"))
        self.expired = self._server(authority.issue_cert("127.0.0.1", not_after=yesterday))
        self.strange = self._server(stranger.issue_cert("127.0.0.1"))
        self.client = ssl.create_default_context()
        authority.configure_trust(self.client)

    def _server(self, certificate: trustme.LeafCert) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        certificate.configure_cert(context)
        return context


def _set(name: str, value: object) -> Callable[[Sink, Certificates], None]:
    return lambda sink, _: setattr(sink, name, value)


def _says(step: str, answer: str) -> Callable[[Sink, Certificates], None]:
    return lambda sink, _: setattr(sink, step, lambda _: answer)


def _shows(name: str) -> Callable[[Sink, Certificates], None]:
    return lambda sink, certificates: setattr(sink, "tls", getattr(certificates, name))


TROUBLES = {
    "silence at connect": (_set("silent", {"CONNECT"}), "timeout", None),
    "silence after EHLO": (_set("silent", {"EHLO"}), "timeout", None),
    "421 at the banner": (_set("banner", "421 4.3.2 Too many"), "reply", "421 4.3.2 Too many"),
    "554 at the banner": (_set("banner", "554 5.7.1 Not you"), "reply", "554 5.7.1 Not you"),
    "421 at MAIL": (_says("mail", "421 4.3.2 Closing"), "reply", "421 4.3.2 Closing"),
    "451 at MAIL": (_says("mail", "451 4.7.1 Later"), "reply", "451 4.7.1 Later"),
    "530 at MAIL": (_says("mail", "530 5.7.0 Log in"), "auth", "530 5.7.0 Log in"),
    "421 at RCPT": (_says("rcpt", "421 4.3.2 Closing"), "reply", "421 4.3.2 Closing"),
    "450 at RCPT": (_says("rcpt", "450 4.2.0 Greylisted"), "reply", "450 4.2.0 Greylisted"),
    "421 at the dot": (_says("dot", "421 4.3.2 Closing"), "reply", "421 4.3.2 Closing"),
    "451 at the dot": (_says("dot", "451 4.3.0 Later"), "reply", "451 4.3.0 Later"),
    "554 at DATA": (_set("content", "554 5.5.1 No recipients"), "reply", "554 5.5.1 No recipients"),
    "dropped before the dot": (_set("content", ""), "lost", None),
    "TLS failure": (_shows("strange"), "tls", None),
    "expired certificate": (_shows("expired"), "tls", None),
    "wrong password": (_set("auth", "535 5.7.8 Bad credentials"), "auth", "535 5.7.8 Bad credentials"),
}
# They say nothing about the upstream.
ABOUT_THE_MESSAGE = {"450 at RCPT", "451 at the dot", "554 at DATA"}


def _failures(name: str, kind: str) -> float:
    return REGISTRY.get_sample_value("outrider_upstream_failures_total", {"upstream": name, "kind": kind}) or 0.0


def _state(name: str) -> float | None:
    return REGISTRY.get_sample_value("outrider_upstream_state", {"upstream": name})


@pytest.mark.parametrize("trouble", TROUBLES)
async def test_trouble_is_queued_and_sent_later(database_url: str, eventually: Eventually, trouble: str) -> None:
    """The mailer hears 250, the row says queued with the upstream's words, and the queue sends it once, as it was."""
    misbehave, reason, reply = TROUBLES[trouble]
    certificates, sink, clock = Certificates(), Sink(), Clock()
    sink.tls = certificates.good
    as_it_was = dict(vars(sink))
    async with sink.listening():
        url = f"smtp://user:secret@127.0.0.1:{sink.port}?starttls=required"
        upstream = several(url, clock=clock, tls=certificates.client, seconds=0.5 if reason == "timeout" else 5.0)
        async with relaying(database_url, upstream, QUICK) as relay:
            misbehave(sink, certificates)
            assert (await relay.pipeline.accept(submission())).code == 250
            (row,) = await rows(relay)
            assert (row["status"], row["reply"], row["doubts"]) == ("queued", reply, 0)
            assert row["upstream"] == upstream.name
            assert _failures(upstream.name, reason) == (trouble not in ABOUT_THE_MESSAGE)
            for name in ("silent", "banner", "mail", "rcpt", "dot", "content", "tls", "auth"):
                setattr(sink, name, as_it_was[name] if name != "silent" else set())
            clock.now += 1000.0
            async with running(relay):
                await eventually(lambda: sink.kept)
                await eventually(lambda: _all_are(relay, "sent"))
            assert len(sink.kept) == 1


async def _all_are(relay: Relay, status: str) -> bool:
    return set(await relay.statuses()) == {status}


async def test_a_refused_connection_is_queued_and_sent_later(database_url: str, eventually: Eventually) -> None:
    """Nobody listens for a while."""
    sink = Sink()
    async with sink.listening():
        upstream = several(f"smtp://127.0.0.1:{sink.port}")
    async with relaying(database_url, upstream, QUICK) as relay:
        assert (await relay.pipeline.accept(submission())).code == 250
        assert await relay.statuses() == ["queued"]
        async with sink.listening(sink.port), running(relay):
            await eventually(lambda: _all_are(relay, "sent"))
    assert len(sink.kept) == 1


@pytest.mark.parametrize("step", ["mail", "rcpt", "dot"])
async def test_a_verdict_is_told_and_ends_it(database_url: str, step: str) -> None:
    """A 5xx about the message reaches the mailer in the upstream's words; no second upstream is asked."""
    async with Sink().listening() as first, Sink().listening() as second:
        setattr(first, step, lambda _: "550 5.7.1 Not wanted")
        upstream = several(f"smtp://127.0.0.1:{first.port}", f"smtp://127.0.0.1:{second.port}")
        async with relaying(database_url, upstream, QUICK) as relay:
            assert str(await relay.pipeline.accept(submission())) == "550 5.7.1 Not wanted"
            (row,) = await rows(relay)
            assert (row["status"], row["reply"]) == ("failed", "550 5.7.1 Not wanted")
            assert row["upstream"] == f"127.0.0.1:{first.port}"
    assert second.connections == 0


@pytest.mark.parametrize(
    ("extension", "recipient", "code"),
    [("SIZE 100", "ann@example.net", "552 5.3.4"), ("8BITMIME", "почта@example.net", "553 5.6.7")],
)
async def test_what_the_upstream_does_not_take_is_a_verdict(
    database_url: str, extension: str, recipient: str, code: str
) -> None:
    """Too large for its SIZE, or an address outside ASCII without SMTPUTF8: refused without a word of it."""
    async with Sink().listening() as sink:
        sink.extensions = [extension]
        async with relaying(database_url, several(f"smtp://127.0.0.1:{sink.port}"), QUICK) as relay:
            assert str(await relay.pipeline.accept(submission(recipient))).startswith(code)
            assert await relay.statuses() == ["failed"]
            assert [command[:4] for command in sink.commands] == ["EHLO"]


async def test_eight_bit_mail_leaves_as_it_is(database_url: str) -> None:
    """Without 8BITMIME too."""
    async with Sink().listening() as sink:
        sink.extensions = []
        async with relaying(database_url, several(f"smtp://127.0.0.1:{sink.port}"), QUICK) as relay:
            assert (await relay.pipeline.accept(submission(body="<p>Привет</p>"))).code == 250
            assert "Привет".encode() in sink.kept[0].content
            assert await relay.statuses() == ["sent"]


async def test_eight_bit_mail_leaves_as_quoted_printable_where_the_profile_asks(database_url: str) -> None:
    """Postal offers no 8BITMIME: its copy is in ASCII and says the same, and links are wrapped in it."""
    async with Sink().listening() as sink:
        sink.extensions = []
        before = EIGHT_BIT._value.get()
        where = several(f"smtp://127.0.0.1:{sink.port}?profile=postal")
        async with relaying(database_url, where, QUICK) as relay:
            body = '<p>Привет</p><a href="https://example.com/">x</a>'
            assert (await relay.pipeline.accept(submission(body=body))).code == 250
            (kept,) = sink.kept
            assert kept.content.isascii()
            shown = message_from_bytes(kept.content)
            assert shown["Content-Transfer-Encoding"] == "quoted-printable"
            text = cast("bytes", shown.get_payload(decode=True)).decode()
            assert "<p>Привет</p>" in text
            assert "/track/c/" in text
        assert EIGHT_BIT._value.get() == before


async def test_the_second_takes_over_and_the_first_comes_back(database_url: str) -> None:
    """While the first is unwell the second takes the mail, at once; after a pause one message finds out."""
    clock = Clock()
    async with Sink().listening() as first, Sink().listening() as second:
        one, two = f"127.0.0.1:{first.port}", f"127.0.0.1:{second.port}"
        upstream = several(f"smtp://{one}", f"smtp://{two}", clock=clock)
        async with relaying(database_url, upstream, QUICK) as relay:

            async def mail(number: int) -> None:
                sent = submission(message_id=f"<{number}@mailer.example>")
                assert (await relay.pipeline.accept(sent)).code == 250

            first.banner = "421 4.3.2 Going down"
            with capture_logs() as logs:
                for number in range(5):
                    await mail(number)
            # Three in a row opened its circuit: the last two messages left it alone.
            assert (first.connections, len(second.kept)) == (3, 5)
            assert [entry["event"] for entry in logs].count("upstream_circuit_opened") == 1
            assert (_state(one), _state(two)) == (0.0, 1.0)
            clock.now += 5.0
            await mail(5)
            assert (first.connections, len(second.kept)) == (4, 6)
            clock.now += 5.0
            await mail(6)
            # Its pause has doubled.
            assert (first.connections, len(second.kept)) == (4, 7)
            first.banner = "220 sink.example ESMTP"
            clock.now += 5.0
            await mail(7)
            await mail(8)
            assert (len(first.kept), len(second.kept)) == (2, 7)
            assert _state(one) == 1.0
            assert [row["upstream"] for row in await rows(relay)] == [two] * 7 + [one] * 2


@pytest.mark.parametrize("again", ["first", "second"])
async def test_a_doubt_stays_with_its_try(database_url: str, eventually: Eventually, again: str) -> None:
    """Dropped after the final dot: no second upstream in this try; a later one has the same Message-ID."""
    async with Sink().listening() as first, Sink().listening() as second:
        upstream = several(f"smtp://127.0.0.1:{first.port}", f"smtp://127.0.0.1:{second.port}")
        async with relaying(database_url, upstream, QUICK) as relay:
            first.dot = lambda _: ""
            assert (await relay.pipeline.accept(submission())).code == 250
            (row,) = await rows(relay)
            assert (row["status"], row["doubts"]) == ("queued", 1)
            assert (len(first.dotted), second.connections) == (1, 0)
            first.dot = lambda _: "250 2.0.0 Ok: queued as ABC1234"
            if again == "second":
                first.banner = "421 4.3.2 Going down"
            async with running(relay):
                await eventually(lambda: _all_are(relay, "sent"))
            taker = first if again == "first" else second
            assert [len(sink.kept) for sink in (first, second)] == [taker is first, taker is second]
            (row,) = await rows(relay)
            assert row["upstream"] == f"127.0.0.1:{taker.port}"
            assert message_ids(first, second)[0].startswith(f"<{await _key(relay)}@")


async def _key(relay: Relay) -> str:
    async with relay.ledger.session() as session:
        return str(key_text(await session._connection.fetchval("SELECT key FROM message")))


async def test_a_recipients_4xx_is_no_reason_for_another_upstream(database_url: str) -> None:
    """It may be greylisting, and the other would begin anew; nor does it open a circuit."""
    async with Sink().listening() as first, Sink().listening() as second:
        upstream = several(f"smtp://127.0.0.1:{first.port}", f"smtp://127.0.0.1:{second.port}")
        first.rcpt = lambda who: "450 4.2.0 Greylisted" if who.startswith("a") else "250 Ok"
        async with relaying(database_url, upstream, QUICK) as relay:
            for number in range(5):
                name = f"a{number}@example.net"
                assert (await relay.pipeline.accept(submission(name))).code == 250
            assert set(await relay.statuses()) == {"queued"}
            assert (await relay.pipeline.accept(submission("b@example.net"))).code == 250
            assert (len(first.kept), second.connections) == (1, 0)


async def test_an_expired_password_queues_and_alarms_once(database_url: str) -> None:
    """Nobody's mail is refused, the operator is told once, and the server is not asked again and again."""
    sink = Sink()
    sink.auth = "535 5.7.8 Expired"
    async with sink.listening():
        upstream = several(f"smtp://user:secret@127.0.0.1:{sink.port}?starttls=off", clock=Clock())
        async with relaying(database_url, upstream, QUICK) as relay:
            with capture_logs() as logs:
                for number in range(5):
                    sent = submission(message_id=f"<{number}@mailer.example>")
                    assert (await relay.pipeline.accept(sent)).code == 250
            alarms = [entry for entry in logs if entry["event"] == "upstream_rejects_us"]
            assert [(one["log_level"], one["upstream"], one["code"]) for one in alarms] == [
                ("error", upstream.name, "535")
            ]
            assert not any("secret" in str(entry) for entry in logs)
            assert set(await relay.statuses()) == {"queued"}
            assert sum(command.startswith("AUTH") for command in sink.commands) == 1
            assert _state(upstream.name) == 0.0
            assert _failures(upstream.name, "auth") == 1.0


async def test_an_open_circuit_keeps_nobody_waiting(database_url: str, eventually: Eventually) -> None:
    """Mail goes straight to the queue, whose messages are left alone until the upstream may be asked again."""
    clock, sink = Clock(), Sink()
    async with sink.listening():
        sink.silent = {"CONNECT"}
        upstream = several(f"smtp://127.0.0.1:{sink.port}", clock=clock, seconds=0.1)
        async with relaying(database_url, upstream, QUICK) as relay:
            for number in range(8):
                sent = submission(message_id=f"<{number}@mailer.example>")
                assert (await relay.pipeline.accept(sent)).code == 250
            assert sink.connections == 3
            async with relay.ledger.session() as session:
                await session._connection.execute("UPDATE delivery SET next_at = now()")
            assert upstream.room(40) == 0
            assert (await relay.queue._claim()).due == []
            sink.silent = set()
            clock.now += 5.0
            assert upstream.room(40) == 1
            async with running(relay):
                await eventually(lambda: _all_are(relay, "sent"))
            assert upstream.room(40) == 40
            assert len(sink.kept) == 8


async def test_an_upstream_that_is_too_slow_is_left_alone(database_url: str) -> None:
    """Three messages in a row waited in vain; the next goes straight to the queue."""
    sink = Sink()
    async with sink.listening():
        sink.silent = {"RCPT"}
        upstream = several(f"smtp://127.0.0.1:{sink.port}", clock=Clock())
        impatient = RelaySettings(verdict_wait=0.2, ledger_wait=1.0)
        async with relaying(database_url, upstream, impatient) as relay:
            for number in range(4):
                sent = submission(message_id=f"<{number}@mailer.example>")
                assert (await relay.pipeline.accept(sent)).code == 250
            assert await relay.statuses() == ["queued"] * 4
            assert sum(command.startswith("RCPT") for command in sink.commands) == 3
            assert _failures(upstream.name, "slow") == 3.0


async def test_mail_takes_its_route(database_url: str) -> None:
    """By the envelope sender's domain or the campaign; what is routed does not fall back to the general upstream."""
    async with Sink().listening() as general, Sink().listening() as shop, Sink().listening() as spring:
        upstream = several(
            f"smtp://127.0.0.1:{general.port}",
            routes=[
                f"from:shop.example=smtp://127.0.0.1:{shop.port}",
                f"campaign:spring*=smtp://127.0.0.1:{spring.port}",
            ],
        )
        async with relaying(database_url, upstream, QUICK) as relay:
            for recipient, sender, campaign in (
                ("a@example.net", "bounce@SHOP.example", "spring1"),
                ("b@example.net", "bounce@other.example", "spring1"),
                ("c@example.net", "bounce@other.example", "65"),
                ("d@example.net", "", None),
            ):
                sent = submission(recipient, sender=sender, campaign=campaign)
                assert (await relay.pipeline.accept(sent)).code == 250
            kept = [[one.recipient[0] for one in sink.kept] for sink in (shop, spring, general)]
            assert kept == [["a"], ["b"], ["c", "d"]]
            shop.mail = lambda _: "451 4.3.0 Later"
            await relay.pipeline.accept(submission("e@example.net", sender="bounce@shop.example"))
            assert await relay.statuses() == ["sent"] * 4 + ["queued"]
            assert (len(spring.kept), len(general.kept)) == (1, 2)
