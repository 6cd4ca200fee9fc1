"""Each message that leaves through a provider's upstream is labelled for that provider, and for no other."""

from typing import Any

import pytest

import injector
from injector.fields import Headers
from ledger.ids import alias_digest
from ledger.upstreams import note_upstreams, upstreams
from relay import notify
from relay.circuit import Circuit
from relay.routes import parse_routing
from relay.settings import RelaySettings
from relay.upstream_address import UpstreamAddress
from relay.upstream_pool import SmtpUpstream
from relay.upstreams import Upstreams
from tests.conftest import Eventually
from tests.relaying import Relay, relaying, submission
from tests.running_queue import running
from tests.sink import Sink
from tests.vendors import known

QUICK = RelaySettings(verdict_wait=1.0, ledger_wait=1.0, retry_first=0.01)


class Clock:
    """Time as the test wants it."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        """Return the time."""
        return self.now


@pytest.fixture(autouse=True)
def _known(monkeypatch: pytest.MonkeyPatch) -> None:
    known(monkeypatch)


@pytest.fixture
def clock() -> Clock:
    """Return the circuits' time."""
    return Clock()


def several(clock: Clock, *urls: str, dsn: str = "upstream") -> Upstreams:
    """Return upstreams whose circuits live by *clock*."""

    def connect(address: UpstreamAddress) -> SmtpUpstream:
        return SmtpUpstream(address, hostname="relay.example.com")

    return Upstreams(parse_routing(urls, (), dsn), connect, circuit=lambda: Circuit(clock))


def headers(sink: Sink, number: int = -1) -> Headers:
    """Return the header of a message that the sink kept."""
    return injector.parse(sink.kept[number].content).headers


async def key_and_aliases(relay: Relay) -> tuple[str, set[bytes]]:
    """Return the only message's key, and the digests by which it is found."""
    async with relay.ledger.session() as session:
        key: str = await session._connection.fetchval("SELECT split_part(message_id, '@', 1) FROM message")
        rows: list[Any] = await session._connection.fetch("SELECT digest FROM alias")
    return key, {row["digest"] for row in rows}


async def all_are(relay: Relay, status: str) -> bool:
    """Tell whether all messages stand so."""
    return set(await relay.statuses()) == {status}


async def test_the_header_is_that_of_the_upstream_which_takes_it(database_url: str, clock: Clock) -> None:
    """The first is away, the second is another provider's: nothing of the first is left in what it gets."""
    async with Sink().listening() as first, Sink().listening() as second:
        first.mail = lambda _: "451 4.3.0 Later"
        second.dot = lambda _: "250 Taken as ABC123"
        urls = (f"smtp://127.0.0.1:{first.port}?profile=json", f"smtp://127.0.0.1:{second.port}?profile=tags")
        async with relaying(database_url, several(clock, *urls), QUICK) as relay:
            assert (await relay.pipeline.accept(submission(extra="X-Tags: a=1\r\n"))).code == 250
            key, aliases = await key_and_aliases(relay)
        assert headers(second).all("X-Tags") == [f"a=1, outrider={key}"]
        assert headers(second).count("X-Json") == 0
    assert alias_digest("upstream", "tags", "ABC123") in aliases


async def test_a_retry_has_the_header_of_its_own_upstream(
    database_url: str, clock: Clock, eventually: Eventually
) -> None:
    """Trouble at the first; the queue sends it to whoever takes it then, and to the same one the same bytes."""
    async with Sink().listening() as first, Sink().listening() as second:
        urls = (f"smtp://127.0.0.1:{first.port}?profile=json", f"smtp://127.0.0.1:{second.port}")
        first.rcpt = second.rcpt = lambda _: "450 4.2.0 Greylisted"
        seen: list[bytes] = []

        async def witness(_: str, content: bytes | None) -> None:
            seen.append(content or b"")

        async with relaying(database_url, several(clock, *urls), QUICK) as relay:
            assert (await relay.pipeline.accept(submission())).code == 250
            key, _ = await key_and_aliases(relay)
            first.rcpt, first.dot, first.witness = (lambda _: "250 Ok"), (lambda _: "451 4.3.0 Later"), witness
            async with running(relay):
                await eventually(lambda: len([one for one in seen if one]) > 1)
            contents = [one for one in seen if one]
            assert len(set(contents)) == 1
            assert injector.parse(contents[0]).headers.all("X-Json") == [f'{{"outrider": "{key}"}}']
            first.banner, second.rcpt = "421 4.3.2 Down", lambda _: "250 Ok"
            await relay.forwarder._upstream.close()
            async with running(relay):
                await eventually(lambda: all_are(relay, "sent"))
    assert headers(second).count("X-Json") == 0


async def test_without_a_profile_the_reply_is_read_as_ever(database_url: str, clock: Clock) -> None:
    """Under the upstream's own name."""
    async with Sink().listening() as sink:
        where = several(clock, f"smtp://127.0.0.1:{sink.port}")
        async with relaying(database_url, where, QUICK) as relay:
            assert (await relay.pipeline.accept(submission())).code == 250
            _, aliases = await key_and_aliases(relay)
            assert alias_digest("upstream", where.name, "SINK0X") in aliases
        assert headers(sink).count("X-Tags") == 0


async def test_a_profile_is_told_by_the_hosts_name(database_url: str, clock: Clock) -> None:
    """And needs no word in the URL."""
    async with Sink().listening() as sink:
        where = several(clock, f"smtp://localhost:{sink.port}")
        async with relaying(database_url, where, QUICK) as relay:
            assert (await relay.pipeline.accept(submission())).code == 250
        assert headers(sink).all("X-Keep") == ["true"]


async def test_notifications_leave_through_their_own_upstream_alone(
    database_url: str, clock: Clock, eventually: Eventually
) -> None:
    """Also when it is away for a while: they wait for it. What a mailer sends from the null sender is no such mail."""
    async with Sink().listening() as general, Sink().listening() as own:
        general.rcpt = lambda who: "550 5.1.1 No such user" if who.startswith("b") else "250 Ok"
        own.mail = lambda _: "451 4.3.0 Later"
        where = several(clock, f"smtp://127.0.0.1:{general.port}", dsn=f"smtp://127.0.0.1:{own.port}?profile=json")
        async with relaying(database_url, where, QUICK) as relay:
            assert (await relay.pipeline.accept(submission("a@example.net", "b@example.net"))).code == 250
            assert (await relay.pipeline.accept(submission("c@example.net", sender="", campaign=None))).code == 250
            await eventually(lambda: any(command.startswith("MAIL FROM:<>") for command in own.commands))
            own.mail = lambda _: "250 Ok"
            async with running(relay):
                await eventually(lambda: own.kept)
        assert [(one.sender, one.recipient) for one in own.kept] == [("", "bounce@shop.example")]
        assert headers(own).first("Auto-Submitted") == "auto-replied"
        assert headers(own).count("X-Json") == 1
        assert [one.recipient for one in general.kept] == ["a@example.net", "c@example.net"]


def test_a_user_of_that_name_sends_ordinary_mail() -> None:
    """Our notifications come from nowhere."""
    sent = submission(sender="")
    assert not notify.is_notice(sent)
    assert sent.client


async def test_how_upstreams_are_found_can_be_asked(database_url: str, clock: Clock) -> None:
    """Which are left alone, since when, why and by how many; a process that is gone says nothing any more."""
    async with Sink().listening() as first, Sink().listening() as second:
        first.auth = "535 5.7.8 Expired"
        where = several(
            clock,
            f"smtp://user:secret@127.0.0.1:{first.port}?starttls=off",
            f"smtp://127.0.0.1:{second.port}",
        )
        one, two = f"127.0.0.1:{first.port}", f"127.0.0.1:{second.port}"
        async with relaying(database_url, where, QUICK) as relay:
            ledger, process = relay.ledger, relay.mail.process

            async def found() -> dict[str, tuple[int, int, bool, str | None]]:
                await note_upstreams(ledger, process, where.states())
                return {
                    it.upstream: (it.processes, it.left_by, it.left_since is not None, it.reason)
                    for it in await upstreams(ledger)
                }

            assert await found() == {one: (1, 0, False, None), two: (1, 0, False, None)}
            assert (await relay.pipeline.accept(submission())).code == 250
            assert await found() == {one: (1, 1, True, "auth 535"), two: (1, 0, False, None)}
            first.auth = "235 2.7.0 Ok"
            clock.now += 5.0
            assert (await relay.pipeline.accept(submission("b@example.net"))).code == 250
            assert await found() == {one: (1, 0, False, None), two: (1, 0, False, None)}
            async with ledger.session() as session:
                await session._connection.execute("UPDATE process SET lease_until = now()")
            assert await found() == {}


async def test_what_has_not_changed_is_not_written_again(database_url: str, clock: Clock) -> None:
    """It is told every few seconds, for years."""
    where = several(clock, "smtp://127.0.0.1:9")
    async with relaying(database_url, where, QUICK) as relay:
        written = []
        for _ in range(2):
            await note_upstreams(relay.ledger, relay.mail.process, where.states())
            async with relay.ledger.session() as session:
                written.append(await session._connection.fetchval("SELECT xmin::text FROM upstream_state"))
    assert written[0] == written[1]


@pytest.mark.parametrize(("profile", "ids"), [("fresh", ["{}", "{}.2", "{}.3"]), ("tags", ["{}", "{}", "{}"])])
async def test_what_is_in_doubt_leaves_under_an_id_that_its_provider_has_not_seen(
    database_url: str, clock: Clock, eventually: Eventually, profile: str, ids: list[str]
) -> None:
    """Only to a provider that replaces an id which it saw before; a 450 in between is no doubt, and no new id."""
    async with Sink().listening() as sink:
        answers = iter(["", "450 4.2.0 Later", "", "250 Taken"])
        offered: list[str | None] = []
        sink.dot = lambda _: next(answers)

        async def witness(_: str, content: bytes | None) -> None:
            if content is not None:
                offered.append(injector.parse(content).headers.first("Message-ID"))

        sink.witness = witness
        async with relaying(
            database_url, several(clock, f"smtp://127.0.0.1:{sink.port}?profile={profile}"), QUICK
        ) as relay:
            assert (await relay.pipeline.accept(submission())).code == 250
            key, _ = await key_and_aliases(relay)
            async with running(relay):
                await eventually(lambda: all_are(relay, "sent"))
    first, second, third = (f"<{one.format(key)}@shop.example>" for one in ids)
    assert offered == [first, second, second, third]
