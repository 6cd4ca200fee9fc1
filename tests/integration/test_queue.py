"""The queue in an operator's hands: what is held costs no claim anything, and every message can be seen and steered."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping

import pytest

from ledger import campaigns, queue
from relay.settings import RelaySettings
from tests.commands import Ended, command
from tests.conftest import Eventually
from tests.relaying import Relay, relaying, submission
from tests.sink import Sink

# What is not due stays so for the time of a test.
PATIENT = RelaySettings(verdict_wait=1.0, ledger_wait=1.0, retry_first=3600.0)


@pytest.fixture
async def sink() -> AsyncIterator[Sink]:
    """Play an upstream that is busy."""
    async with Sink().listening() as sink:
        sink.mail = lambda _: "421 4.3.2 Busy"
        yield sink


@pytest.fixture
async def relay(database_url: str, sink: Sink) -> AsyncIterator[Relay]:
    """Run a relay whose mail waits."""
    async with relaying(database_url, f"smtp://127.0.0.1:{sink.port}", PATIENT) as relay:
        yield relay


async def accepted(relay: Relay, *recipients: str, campaign: str | None = "65") -> list[str]:
    """Submit to each of *recipients* by itself; return the keys."""
    keys = []
    for recipient in recipients:
        reply = await relay.pipeline.accept(submission(recipient, campaign=campaign))
        assert reply.code == 250
        keys.append(reply.text.rsplit(maxsplit=1)[-1])
    return keys


async def campaign_row(relay: Relay, name: str = "65") -> int:
    """Return a campaign's row."""
    (row,) = await campaigns.campaigns(relay.ledger, limit=2, campaign_id=name)
    return row.id


async def everything_due(relay: Relay) -> None:
    """Let the time pass until every retry is due."""
    async with relay.ledger.session() as session:
        await session._connection.execute(
            "UPDATE delivery SET next_at = now() WHERE status = 'queued' AND next_at < 'infinity'"
        )


async def drift(relay: Relay) -> dict[str, int]:
    """Return what a recount finds wrong."""
    found = await campaigns.sync_counts(relay.ledger, await campaign_row(relay))
    return {one.counter: one.drift for one in found if one.drift}


class TestHolds:
    """A paused campaign's mail waits without being looked at, and goes at once when the campaign is resumed."""

    async def test_held_mail_is_looked_at_once(self, relay: Relay) -> None:
        """The claim that finds it sets it aside, together with all there is of it."""
        await accepted(relay, *(f"a{number}@example.net" for number in range(5)))
        await accepted(relay, "other@example.net", campaign="66")
        await campaigns.hold(relay.ledger, await campaign_row(relay), paused=True)
        await everything_due(relay)
        first = await relay.mail.claim(1)
        assert (first.due, first.passed) == ([], 1)
        second = await relay.mail.claim(10)
        assert ([due.recipient for due in second.due], second.passed) == (["other@example.net"], 0)

    async def test_resuming_releases_at_once_and_what_is_paused_beside_it_stays(self, relay: Relay) -> None:
        """Each campaign's hold is its own."""
        await accepted(relay, "a@example.net")
        await accepted(relay, "b@example.net", campaign="66")
        for name in ("65", "66"):
            await campaigns.hold(relay.ledger, await campaign_row(relay, name), paused=True)
        await everything_due(relay)
        assert (await relay.mail.claim(10)).passed == 2
        await campaigns.hold(relay.ledger, await campaign_row(relay), paused=False)
        assert [due.recipient for due in (await relay.mail.claim(10)).due] == ["a@example.net"]

    async def test_what_was_set_aside_while_it_was_resumed_is_found(self, relay: Relay) -> None:
        """A claim that began before the resume may set aside after it; the relay's chores look again."""
        await accepted(relay, "a@example.net")
        async with relay.ledger.session() as session:
            await session._connection.execute("UPDATE delivery SET next_at = 'infinity'")
        assert (await relay.mail.claim(10)).due == []
        assert await relay.mail.release_held() == 1
        assert len((await relay.mail.claim(10)).due) == 1

    async def test_a_queue_full_of_held_mail_does_not_delay_the_rest(
        self, relay: Relay, sink: Sink, eventually: Eventually
    ) -> None:
        """The worker asks again at once for as long as it only sets aside."""
        await accepted(relay, *(f"a{number}@example.net" for number in range(60)))
        await accepted(relay, "other@example.net", campaign=None)
        await campaigns.hold(relay.ledger, await campaign_row(relay), paused=True)
        sink.mail = lambda _: "250 2.1.0 Ok"
        stopping = asyncio.Event()
        worker = asyncio.create_task(relay.run_queue(stopping))
        await eventually(lambda: [kept.recipient for kept in sink.kept] == ["other@example.net"])
        stopping.set()
        await worker
        assert (await relay.statuses()).count("queued") == 60


class TestCommands:
    """`outrider queue`, `pause` and `resume`, as typed."""

    @pytest.fixture
    def environment(self, database_url: str, redis_url: str) -> Mapping[str, str]:
        """Name the ledger, and keys that no command here uses."""
        return {
            "DATABASE_URL": database_url,
            "REDIS_URL": redis_url,
            "OUTRIDER_KEYS__SIGNING": "a signing key made up for tests, long enough",
            "OUTRIDER_KEYS__IDENTITY": "an identity key made up for tests, long enough",
        }

    async def test_list_and_show(self, relay: Relay, environment: Mapping[str, str]) -> None:
        """Oldest first, page by page, with what the upstream said; in words and as JSON."""
        keys = await accepted(relay, "a@example.net", "b@example.net", "c@example.net")
        ended = await command("queue", "list", "--json", "--limit", "2", environment=environment)
        page = json.loads(ended.out)
        assert [message["key"] for message in page["messages"]] == keys[:2]
        assert page["messages"][0]["upstream_reply"] == "421 4.3.2 Busy"
        rest = await command("queue", "list", "--json", "--cursor", page["next"], environment=environment)
        assert [message["key"] for message in json.loads(rest.out)["messages"]] == keys[2:]
        assert json.loads(rest.out)["next"] is None
        words = await command("queue", "list", "--campaign", "65", environment=environment)
        assert [line.split()[0] for line in words.out.splitlines()] == ["key", *keys]
        shown = json.loads((await command("queue", "show", keys[0], "--json", environment=environment)).out)
        assert (shown["recipient"], shown["sender"], shown["attempts"]) == (
            "a@example.net",
            "bounce@shop.example",
            1,
        )
        raw = await command("queue", "show", keys[0], "--raw", environment=environment)
        assert raw.out.encode() == submission("a@example.net").content

    async def test_retry_makes_due_now(self, relay: Relay, environment: Mapping[str, str]) -> None:
        """One, a campaign's, or all; a message that does not wait is said by the exit code."""
        keys = await accepted(relay, "a@example.net", "b@example.net", "c@example.net")
        assert (await relay.mail.claim(10)).due == []
        ended = await command("queue", "retry", keys[1], environment=environment)
        assert (ended.code, ended.out) == (0, "1 message due now\n")
        assert [due.key for due in (await relay.mail.claim(10)).due] == [keys[1]]
        again = await command("queue", "retry", keys[1], environment=environment)
        assert (again.code, again.out) == (1, "0 messages due now\n")
        assert (await command("queue", "flush", "--json", environment=environment)).out == '{"retried":2}\n'
        assert {due.key for due in (await relay.mail.claim(10)).due} == {keys[0], keys[2]}

    async def test_cancel_ends_what_waits(self, relay: Relay, environment: Mapping[str, str]) -> None:
        """It fails with an event and the operator's words, is counted, and is never sent; what is in hand stays."""
        keys = await accepted(relay, "a@example.net", "b@example.net", "c@example.net")
        await command("queue", "retry", keys[0], environment=environment)
        (due,) = (await relay.mail.claim(10)).due
        assert due.key == keys[0]
        ended = await command("queue", "cancel", "--campaign", "65", environment=environment)
        assert (ended.code, ended.out) == (0, "2 messages cancelled\n")
        assert await relay.statuses() == ["sending", "failed", "failed"]
        async with relay.ledger.session() as session:
            events = await session._connection.fetch("SELECT type, source, reason FROM event")
        assert [tuple(event) for event in events] == [("failed", "operator", queue.CANCELLED)] * 2
        assert await drift(relay) == {}
        gone = await command("queue", "show", keys[1], environment=environment)
        assert gone.code == 1
        assert "does not wait" in gone.err

    async def test_pause_and_resume(self, relay: Relay, environment: Mapping[str, str]) -> None:
        """As the console does it."""
        await accepted(relay, "a@example.net")
        paused = await command("pause", "65", environment=environment)
        assert (paused.code, paused.out) == (0, "65 (default): paused, 1 message waits\n")
        held = json.loads((await command("queue", "list", "--json", environment=environment)).out)["messages"]
        assert [message["held"] for message in held] == [True]
        resumed = json.loads((await command("resume", "65", "--json", environment=environment)).out)
        assert resumed["state"] == "active"

    @pytest.mark.parametrize(
        ("words", "says"),
        [
            (["queue", "show"], "name one message"),
            (["queue", "retry"], "name messages, or a campaign"),
            (["queue", "cancel"], "name messages, or a campaign"),
            (["queue", "cancel", "a" * 26, "--campaign", "65"], "name messages, or a campaign"),
            (["queue", "flush", "a" * 26], "takes no messages"),
            (["queue", "flush", "--campaign", "65"], "is for everything"),
            (["queue", "show", "nonsense"], "nonsense: "),
            (["queue", "list", "--source", "shop"], "needs --campaign"),
            (["queue", "list", "--cursor", "!"], "--cursor: "),
        ],
        ids=lambda given: " ".join(given) if isinstance(given, list) else "",
    )
    async def test_what_is_not_meant_is_named(
        self, environment: Mapping[str, str], words: list[str], says: str
    ) -> None:
        """With exit code 2 and what to do."""
        ended: Ended = await command(*words, environment=environment)
        assert ended.code == 2
        assert says in ended.err

    async def test_an_unknown_campaign_is_named(self, environment: Mapping[str, str]) -> None:
        """Nothing is held that does not exist."""
        ended = await command("pause", "4711", environment=environment)
        assert (ended.code, ended.err) == (1, "outrider: no campaign 4711\n")
