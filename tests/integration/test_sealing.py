"""With a key no address stands in the database, whoever has the key reads them all, and nobody else starts."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from courier.ams import open_ams
from courier.deliver import Deliverer
from courier.record import Recorder
from courier.sighting import Reader
from ledger import erasure, outbox, parked, queue, reports, suppressions
from ledger.events import EventType
from ledger.ids import key_bytes, recipient_index
from ledger.processes import UnknownKeyError, check_addresses, check_keys, fingerprint, register
from ledger.reports import Message, MessageFilter
from ledger.resealing import UNREADABLE, older_processes, reseal, retire
from ledger.retention import Recipients
from ledger.sealing import UNREADABLE as SHOWN
from ledger.sealing import SealedError, Sealer
from ledger.store import open_ledger
from ledger.suppressions import Entry
from ledger.traces import Traces
from providers.notice import Bounce, Name, Notice, Step, What, encode_notice
from relay.settings import RelaySettings
from sidecar.standin_ams import StandinAms
from tests.commands import command
from tests.conftest import Eventually
from tests.mailings import KEYRING, NOON_MS, ams_settings, entries, hit
from tests.relaying import IDENTITY, Relay, relaying, submission
from tests.rows import Pool, Rows
from tests.sink import Sink
from tests.spellings import found

OLD, NEW = b"an older key made up for tests that is long enough", b"a newer key made up for tests that is long enough"
SIGNING, IDENTITY_TEXT = "a signing key made up for tests that is long enough", IDENTITY.decode()

ANN, BEN, ZOE, EVE = "Ann.Quagmire@example.net", "ben.brandywine@example.org", "zoe-42@example.com", "eve.9@example.net"
SENDER = f"bounce+{ANN.replace('@', '=')}@shop.example"
#: Everybody who has to do with the traffic of these tests.
PEOPLE = (ANN, BEN, ZOE, EVE, SENDER, ANN.replace("@", "="), "news@shop.example", "everybody@example.net")

# What is not due stays so for the time of a test.
PATIENT = RelaySettings(verdict_wait=1.0, ledger_wait=1.0, retry_first=3600.0)


def notice(what: What, *names: tuple[Step, str], recipient: str, dedupe: str, description: str = "") -> bytes:
    """Return a provider's notice as it stands in the stream."""
    return encode_notice(
        Notice(
            what=what,
            names=tuple(Name(step, value) for step, value in names),
            provider="ses",
            dedupe=dedupe,
            at_ms=NOON_MS,
            recipient=recipient,
            bounce=Bounce.SOFT,
            description=description,
            raw=json.dumps({"to": recipient}).encode(),
        )
    )


class Day:
    """A relay, a courier's recorder and an operator on one ledger, after a day's work."""

    def __init__(self, relay: Relay, sink: Sink) -> None:
        self.relay, self.ledger, self.sink = relay, relay.ledger, sink
        self.recorder = Recorder(self.ledger, Reader(identity=IDENTITY, keyring=KEYRING), ams=ams_settings())

    async def messages(self) -> dict[str, Message]:
        """Return what the operator sees of the messages, by recipient."""
        page = await reports.messages(self.ledger, MessageFilter(), limit=20)
        return {message.recipient: message for message in page.messages}

    async def work(self) -> None:
        """Let mail be sent, refused and put into the queue, and notices be recorded and parked."""
        self.sink.rcpt = self._answered
        self.sink.dot = lambda recipient: f"250 2.0.0 Ok <{recipient}> queued"
        for recipient in (ANN, BEN, ZOE):
            mail = submission(recipient, sender=SENDER, message_id=f"<{len(recipient)}@mailer.example>")
            assert (await self.relay.pipeline.accept(mail)).code == (550 if recipient == BEN else 250)
        key = (await self.messages())[ANN].key
        told = ((Step.TOKEN, key),)
        await self.recorder.record(
            [
                (b"1-0", notice(What.BOUNCED, *told, recipient=ANN, dedupe="e-1", description=f"<{ANN}> is full")),
                (b"2-0", notice(What.OPENED, (Step.PROVIDER_ID, "p-7"), recipient=EVE, dedupe="e-2")),
                *entries([hit(key_bytes(key)), hit(key_bytes(key), EventType.UNSUBSCRIBED)]),
            ]
        )
        entry = Entry(source="", recipient_index=recipient_index(IDENTITY, EVE), recipient=EVE, reason="operator")
        assert await suppressions.enter(self.ledger, [entry]) == 1

    @staticmethod
    def _answered(command: str) -> str:
        if BEN in command:
            return f"550 5.1.1 <{BEN}>: nobody here"
        return f"450 4.2.0 <{ZOE}>: later" if ZOE in command else "250 2.1.5 Ok"


@asynccontextmanager
async def a_day(database_url: str, sealer: Sealer | None) -> AsyncIterator[Day]:
    """Let a day pass in a ledger that *sealer* seals."""
    async with (
        Sink().listening() as sink,
        relaying(database_url, f"smtp://127.0.0.1:{sink.port}", PATIENT, sealer=sealer) as relay,
    ):
        day = Day(relay, sink)
        await day.work()
        yield day


async def tables(pool: Pool) -> dict[str, bytes]:
    """Return everything in the database, column by column."""
    columns = await pool.fetch(
        "SELECT c.table_name, c.column_name FROM information_schema.columns c"
        " JOIN information_schema.tables t USING (table_schema, table_name)"
        " WHERE c.table_schema = 'public' AND t.table_type = 'BASE TABLE'"
    )
    assert len(columns) > 100
    held: dict[str, bytes] = {}
    for table, column in columns:
        rows = await pool.fetch(f'SELECT "{column}" FROM "{table}"')  # noqa: S608 - names from the catalogue
        values = [row[0] if isinstance(row[0], bytes) else str(row[0]).encode() for row in rows]
        held[f"{table}.{column}"] = b"\n".join(values)
    return held


async def in_clear(pool: Pool) -> set[str]:
    """Return the columns in which somebody is named, in any spelling; what stands in a partition by its parent."""
    held = await tables(pool)
    names = {place for place, content in held.items() if any(found(person, content) for person in PEOPLE)}
    return {name for name in names if not name.startswith(("event_", "body_"))}


EVERYWHERE = {
    "message.sender",
    "message.recipient",
    "delivery.reply",
    "body.envelope",
    "body.content",
    "event.reason",
    "event.description",
    "event.raw",
    "suppression.recipient",
    "parked_event.payload",
}


class TestAtRest:
    """What a copy of the database tells."""

    async def test_the_search_would_find_them(self, database_url: str, pool: Pool) -> None:
        """Without a key they stand in ten columns: what is looked for below is there to be found."""
        async with a_day(database_url, None):
            assert await in_clear(pool) == EVERYWHERE

    async def test_no_address_stands_anywhere(self, database_url: str, pool: Pool) -> None:
        """Not plain, not in base64, hex or backwards, and not as a hash without a key."""
        async with a_day(database_url, Sealer([NEW])):
            assert await in_clear(pool) == set()
            assert await pool.fetchval("SELECT count(*) FROM body") == 1
            assert await pool.fetchval("SELECT count(*) FROM parked_event") == 1

    async def test_two_equal_addresses_look_unlike(self, database_url: str, pool: Pool) -> None:
        """Only the index, which its own key guards, says that they are one."""
        async with a_day(database_url, Sealer([NEW])):
            senders = [row["sender"] for row in await pool.fetch("SELECT sender FROM message")]
            assert len(senders) == len(set(senders)) == 3


@pytest.fixture
async def day(database_url: str) -> AsyncIterator[Day]:
    """Let a day pass in a sealed ledger."""
    async with a_day(database_url, Sealer([NEW, OLD])) as day:
        yield day


class TestWithTheKey:
    """Everything works as ever."""

    async def test_the_operator_reads_them(self, day: Day) -> None:
        """Messages, replies, events, the queue and what it will send, the suppression list."""
        seen = await day.messages()
        assert set(seen) == {ANN, BEN, ZOE}
        assert seen[ANN].upstream_reply == f"250 2.0.0 Ok <{ANN}> queued"
        assert seen[BEN].upstream_reply == f"550 5.1.1 <{BEN}>: nobody here"
        assert [(event.type, event.reason) for event in seen[BEN].events] == [("failed", seen[BEN].upstream_reply)]
        assert [event.description for event in seen[ANN].events if event.type == "bounced"] == [f"<{ANN}> is full"]
        index = recipient_index(IDENTITY, ANN.lower())
        page = await reports.messages(day.ledger, MessageFilter(recipient_index=index), limit=9)
        assert [message.recipient for message in page.messages] == [ANN]
        events = await reports.events(day.ledger, reports.EventFilter(), limit=9)
        assert {event.recipient for event in events.events} == {ANN, BEN}
        assert f"<{ANN}> is full" in {event.description for event in events.events}
        (waiting,) = (await queue.waiting(day.ledger, limit=9)).messages
        assert (waiting.sender, waiting.recipient) == (SENDER, ZOE)
        assert waiting.upstream_reply == f"450 4.2.0 <{ZOE}>: later"
        (row,) = await queue.rows_of(day.ledger, [waiting.key])
        content = await queue.content(day.ledger, row)
        assert content is not None
        assert content.startswith(b"From: Shop <news@shop.example>\r\n")
        listed = (await suppressions.listing(day.ledger, limit=9)).suppressions
        assert {(one.recipient, one.reason) for one in listed} == {(EVE, "operator"), (ANN, "unsubscribed")}

    async def test_what_waits_is_sent(self, day: Day, eventually: Eventually) -> None:
        """With the sender and the bytes that it was stored with."""
        day.sink.rcpt = lambda _: "250 2.1.5 Ok"
        stopping = asyncio.Event()
        working = asyncio.create_task(day.relay.run_queue(stopping))
        await eventually(lambda: len(day.sink.kept) == 2)
        stopping.set()
        await working
        first, second = day.sink.kept
        assert [(kept.sender, kept.recipient) for kept in day.sink.kept] == [(SENDER, ANN), (SENDER, ZOE)]
        # But for the ids, the date and the tokens the two are one mail.
        assert first.content.count(b"\r\n") == second.content.count(b"\r\n")
        assert b"To: everybody@example.net" in second.content

    async def test_what_was_parked_is_found(self, day: Day) -> None:
        """Its payload is opened, read, and recorded when an id of it leads to a message."""
        await day.relay.pipeline.accept(submission(EVE, campaign=None, message_id="<9@mailer.example>"))
        key = (await day.messages())[EVE].key
        teaching = notice(What.SENT, (Step.TOKEN, key), (Step.PROVIDER_ID, "p-7"), recipient=EVE, dedupe="e-3")
        await day.recorder.record([(b"3-0", teaching)])
        assert await day.recorder.match_parked() == 1
        assert {event.type for event in (await day.messages())[EVE].events} == {"sent", "opened"}

    async def test_ams_is_told_addresses(self, day: Day) -> None:
        """As they were submitted."""
        async with StandinAms(api_key="K-1") as standin:
            settings = ams_settings(url=standin.url)
            async with open_ams(settings) as ams:
                await Deliverer(day.ledger, settings, ams, process=1, stopping=asyncio.Event()).cycle()
        assert [item.email for item in standin.received] == [ANN, ANN]

    async def test_a_person_is_forgotten(self, day: Day, database_url: str, pool: Pool) -> None:
        """Also where others' mail names her: nothing is left even for whoever has the key."""
        other = submission(
            EVE, sender=ANN.lower(), campaign=None, message_id="<8@mailer.example>", extra=f"Cc: <{ANN}>\r\n"
        )
        day.sink.rcpt = lambda _: f"450 4.2.0 not while {ANN} is away"
        await day.relay.pipeline.accept(other)
        eves = (await day.messages())[EVE].key
        words = notice(What.BOUNCED, (Step.TOKEN, eves), recipient=EVE, dedupe="e-4", description=f"as {ANN} had it")
        raw = notice(What.OPENED, (Step.PROVIDER_ID, "p-8"), recipient="", dedupe="e-5", description=ANN)
        await day.recorder.record([(b"4-0", words), (b"5-0", raw)])
        traces, index = Traces(ANN), recipient_index(IDENTITY, ANN)
        assert await erasure.bodies_naming(day.ledger, traces) == 1
        counts = (await erasure.forget(day.ledger, index, traces)).counts + await erasure.sweep(day.ledger, traces)
        assert counts == {
            "messages": 1,
            "replies": 2,
            "mentions": 3,
            "events": 2,
            "parked_events": 1,
            "ams_items": 2,
        }
        assert set(await day.messages()) == {"erased", BEN, ZOE, EVE}
        assert +(await erasure.forget(day.ledger, index, traces)).counts == {}
        assert +await erasure.sweep(day.ledger, traces) == {}
        await pool.execute("DELETE FROM body")
        async with open_ledger(database_url, sealer=Sealer([NEW], seals=False)) as opening:
            await reseal(opening)
        for spelt in (ANN, ANN.replace("@", "=")):
            assert {place for place, content in (await tables(pool)).items() if found(spelt, content)} == set()


class TestOlderRows:
    """A ledger that had no key, or another one."""

    async def test_they_are_read_beside_new_ones_and_sealed_in_bites(
        self, database_url: str, pool: Pool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Every kind of row, once; what the operator sees stays the same, and then nothing is in clear."""
        monkeypatch.setattr("ledger.resealing._SPAN", 2)
        monkeypatch.setattr("ledger.resealing._PAGE", 1)
        async with a_day(database_url, None) as day:
            before = await day.messages()
            await erasure.forget(day.ledger, recipient_index(IDENTITY, BEN), Traces(BEN))
            erased = (await day.messages())["erased"]
        async with open_ledger(database_url, sealer=Sealer([NEW])) as ledger:
            day.ledger = ledger
            assert {name: message.key for name, message in (await day.messages()).items()} == {
                ANN: before[ANN].key,
                ZOE: before[ZOE].key,
                "erased": before[BEN].key,
            }
            assert await reseal(ledger) == {
                "messages": 3,
                "replies": 3,
                "events": 2,
                "suppressions": 1,
                "parked_events": 1,
                "bodies": 1,
            }
            assert await in_clear(pool) == set()
            assert await reseal(ledger) == {}
            after = await day.messages()
            assert (after[ANN], after[ZOE], after["erased"]) == (before[ANN], before[ZOE], erased)
            # What is erased is told by its mark, in SQL too.
            assert await pool.fetchval("SELECT count(*) FROM message WHERE recipient = 'erased'") == 1

    async def test_keys_rotate(self, database_url: str, pool: Pool) -> None:
        """Under the older key nothing is left; and for good nothing is sealed, if that is wanted."""
        async with a_day(database_url, Sealer([OLD])) as day:
            before = await day.messages()
        async with open_ledger(database_url, sealer=Sealer([NEW, OLD])) as ledger:
            changed = await reseal(ledger)
            assert set(changed) == {"messages", "replies", "events", "suppressions", "parked_events", "bodies"}
        async with open_ledger(database_url, sealer=Sealer([NEW])) as ledger:
            day.ledger = ledger
            assert await day.messages() == before
            assert await reseal(ledger) == {}
        async with open_ledger(database_url, sealer=Sealer([NEW], seals=False)) as ledger:
            assert await reseal(ledger) == changed
        assert await in_clear(pool) == EVERYWHERE

    async def test_what_no_key_opens_stays(self, database_url: str, pool: Pool) -> None:
        """It is counted and shown as sealed; the rest is brought to the key."""
        async with a_day(database_url, Sealer([OLD])):
            pass
        before = await tables(pool)
        async with open_ledger(database_url, sealer=Sealer([NEW])) as ledger:
            counts = await reseal(ledger)
            assert set(counts) == {UNREADABLE}
            assert counts[UNREADABLE] == 3 + 3 + 2 + 1 + 1 + 1
            (one,) = (await reports.messages(ledger, MessageFilter(), limit=1)).messages
            assert (one.recipient, one.upstream_reply) == (SHOWN, SHOWN)
        assert await tables(pool) == before

    async def test_what_changed_meanwhile_is_left(self, database_url: str, pool: Pool) -> None:
        """A row is exchanged only while it is what was read."""
        row = await Rows(pool).message(ANN)
        async with open_ledger(database_url, sealer=Sealer([NEW])) as ledger:
            exchanged = await ledger.fetch(
                "exchange_addresses", [row.id], [b"news@example.com"], [b"x"], [BEN.encode()], [b"y"], [None], [None]
            )
            assert exchanged == []
            assert await ledger.fetch("exchange_replies", [row.id], ["250 another"], ["x"]) == []
        assert await pool.fetchval("SELECT recipient FROM message") == ANN.encode()


class TestWithoutTheKey:
    """Nothing is lost, sent to nobody or told wrongly; it waits for the key."""

    async def test_queued_mail_goes_back_untried(self, database_url: str, day: Day, pool: Pool) -> None:
        """A relay that lacks the key leaves it to one that has it."""
        await pool.execute("UPDATE delivery SET next_at = now() WHERE status = 'queued'")
        async with relaying(database_url, f"smtp://127.0.0.1:{day.sink.port}", PATIENT) as stranger:
            claimed = await stranger.mail.claim(10)
            assert (claimed.due, claimed.passed) == ([], 1)
            (waiting,) = (await queue.waiting(stranger.ledger, limit=9)).messages
            assert (waiting.status, waiting.attempts, waiting.recipient) == ("queued", 1, SHOWN)
            assert waiting.next_attempt_at is not None
            assert waiting.next_attempt_at > datetime.now(UTC)
            row = await pool.fetchrow("SELECT body_day, body FROM delivery WHERE body IS NOT NULL")
            assert row is not None
            with pytest.raises(SealedError):
                await stranger.mail.load_body(row["body_day"], row["body"])
        await pool.execute("UPDATE delivery SET next_at = now() WHERE status = 'queued'")
        assert [due.recipient for due in (await day.relay.mail.claim(10)).due] == [ZOE]

    async def test_items_for_ams_are_parked_with_the_reason(self, database_url: str, day: Day) -> None:
        """No address is made up, and a replay sends them."""
        async with StandinAms(api_key="K-1") as standin, open_ledger(database_url) as stranger:
            settings = ams_settings(url=standin.url)
            async with open_ams(settings) as ams:
                await Deliverer(stranger, settings, ams, process=1, stopping=asyncio.Event()).cycle()
                assert standin.received == []
                assert (await outbox.depth(stranger)).parked == 2
                await outbox.unpark(day.ledger)
                await Deliverer(day.ledger, settings, ams, process=1, stopping=asyncio.Event()).cycle()
        assert [item.email for item in standin.received] == [ANN, ANN]

    async def test_parked_events_are_set_aside(self, database_url: str, day: Day, pool: Pool) -> None:
        """They stay as they are, under a reason of their own."""
        row = (await day.messages())[ZOE]
        await pool.execute(
            "INSERT INTO alias (digest, message) SELECT n.named, m.id FROM parked_name n, message m WHERE m.key = $1",
            key_bytes(row.key),
        )
        payload = await pool.fetchval("SELECT payload FROM parked_event")
        async with open_ledger(database_url) as stranger:
            assert await parked.matchable(stranger, ["unknown_id"], 10) == []
        left = await pool.fetchrow("SELECT reason, payload FROM parked_event")
        assert left is not None
        assert tuple(left) == (parked.SEALED, payload)

    async def test_forgetting_refuses_and_retention_lets_go(self, database_url: str, day: Day, pool: Pool) -> None:
        """A receipt must not lie; what is only old goes, whoever it names."""
        async with open_ledger(database_url) as stranger:
            with pytest.raises(SealedError):
                await erasure.sweep(stranger, Traces(EVE))
            with pytest.raises(SealedError):
                await erasure.bodies_naming(stranger, Traces(EVE))
            gone, more = await Recipients(stranger, datetime.now(UTC) + timedelta(days=1)).bite()
        assert (gone["messages"], more) == (2, False)
        seen = (await reports.messages(day.ledger, MessageFilter(), limit=9)).messages
        assert sorted((message.recipient, message.upstream_reply or "") for message in seen) == [
            ("erased", "erased"),
            ("erased", "erased"),
            (ZOE, f"450 4.2.0 <{ZOE}>: later"),
        ]
        words = await pool.fetch("SELECT reason, description, raw FROM event WHERE type IN ('failed', 'bounced')")
        assert {tuple(row) for row in words} == {("erased", None, None), (None, "erased", None)}


class TestKeyring:
    """Which keys a process must hold."""

    async def test_none_that_ever_sealed_may_be_missing(self, database_url: str) -> None:
        """The refusal names the setting, the key's fingerprint and the way out; the others do not matter."""
        async with open_ledger(database_url) as ledger:

            async def check(*addresses: bytes) -> None:
                await check_keys(ledger, identity=b"one", signing=[b"a"], addresses=addresses)

            await check()
            await check(OLD)
            with pytest.raises(UnknownKeyError, match="OUTRIDER_KEYS__ADDRESSES lacks the key") as refused:
                await check()
            assert fingerprint(OLD) in str(refused.value)
            assert "outrider seal" in str(refused.value)
            with pytest.raises(UnknownKeyError):
                await check(NEW)
            # A key that only opens has sealed nothing yet, and may be taken out again.
            await check(OLD, NEW)
            await check(OLD)
            await check(NEW, OLD)
            with pytest.raises(UnknownKeyError, match=fingerprint(NEW)):
                await check(OLD)
            assert await retire(ledger, [NEW]) == 1
            await check(NEW)
            assert await retire(ledger, []) == 1
            await check_addresses(ledger, [])

    async def test_who_started_before_a_key_is_told(self, database_url: str, pool: Pool) -> None:
        """Such a process would go on sealing with another; one that ended does not count."""
        async with open_ledger(database_url) as ledger:
            before = await register(ledger, "relay")
            assert await older_processes(ledger, NEW) == 1
            await check_keys(ledger, identity=b"one", signing=[b"a"], addresses=[NEW])
            after = await register(ledger, "relay")
            assert (await older_processes(ledger, NEW), await older_processes(ledger, None)) == (1, 2)
            await pool.execute("UPDATE process SET lease_until = now() WHERE id = $1", before)
            assert (await older_processes(ledger, NEW), await older_processes(ledger, None)) == (0, 1)
            await pool.execute("UPDATE process SET lease_until = now() WHERE id = $1", after)
            assert await older_processes(ledger, None) == 0


@pytest.fixture
def environment(database_url: str, tmp_path: Path) -> Mapping[str, str]:
    """Name the ledger and the keys to a command, but for those of addresses."""
    return {
        "DATABASE_URL": database_url,
        "REDIS_URL": "redis://127.0.0.1:1/0",
        "OUTRIDER_DATA_DIR": str(tmp_path),
        "OUTRIDER_KEYS__SIGNING": SIGNING,
        "OUTRIDER_KEYS__IDENTITY": IDENTITY_TEXT,
    }


def keyed(environment: Mapping[str, str], *keys: bytes) -> dict[str, str]:
    """Name the keys of addresses, too."""
    return {**environment, "OUTRIDER_KEYS__ADDRESSES": ",".join(key.decode() for key in keys)}


class TestCommands:
    """As typed."""

    async def test_sealing_rotating_and_opening(self, environment: Mapping[str, str], pool: Pool) -> None:
        """An older ledger is sealed, its key rotates, and it can do without one again; each step names the next."""
        await Rows(pool).message(ANN, reply=f"250 <{ANN}>")
        no_key = await command("seal", environment=environment)
        assert (no_key.code, "OUTRIDER_KEYS__ADDRESSES" in no_key.err) == (2, True)
        first = await command("seal", "--json", environment=keyed(environment, OLD))
        assert (first.code, first.err) == (0, "")
        counts = json.loads(first.out)
        assert (counts["messages"], counts["replies"], counts["retired_keys"]) == (1, 1, 0)
        assert await in_clear(pool) == set()
        for words in (
            ("messages",),
            ("export",),
            ("forget", ANN),
            ("suppress", "list"),
            ("queue", "list"),
            ("status",),
        ):
            refused = await command(*words, environment=environment)
            assert (refused.code, refused.out) == (2, "")
            assert "OUTRIDER_KEYS__ADDRESSES" in refused.err
        shown = await command("messages", "--json", environment=keyed(environment, OLD))
        assert [message["recipient"] for message in json.loads(shown.out)["messages"]] == [ANN]
        rotated = await command("seal", environment=keyed(environment, NEW, OLD))
        assert (rotated.code, rotated.out.splitlines()[-1]) == (
            0,
            "1 key is not needed any more: take it out of the setting",
        )
        again = await command("seal", environment=keyed(environment, NEW))
        assert (again.code, again.out) == (0, "everything is as it should be\n")
        opened = await command("seal", "--open", environment=keyed(environment, NEW))
        assert opened.code == 0
        assert ANN in (await command("messages", environment=environment)).out
        assert "message.recipient" in await in_clear(pool)

    async def test_not_beside_processes_that_do_not_know_the_key(
        self, environment: Mapping[str, str], database_url: str, pool: Pool
    ) -> None:
        """They would not read what it sealed, or would seal what it opened: nothing is changed."""
        await Rows(pool).message(ANN)
        async with open_ledger(database_url) as ledger:
            await register(ledger, "relay")
        for words in (("seal",), ("seal", "--open")):
            ended = await command(*words, environment=keyed(environment, NEW))
            assert (ended.code, ended.out) == (1, "")
            assert "running processes" in ended.err
        assert await pool.fetchval("SELECT recipient FROM message") == ANN.encode()
        assert await pool.fetchval("SELECT count(*) FROM keyring") == 0

    async def test_a_role_without_the_key_does_not_start(
        self, environment: Mapping[str, str], database_url: str
    ) -> None:
        """It says which setting it lacks, and exits with 2."""
        async with open_ledger(database_url) as ledger:
            signing, identity = [SIGNING.encode()], IDENTITY_TEXT.encode()
            await check_keys(ledger, identity=identity, signing=signing, addresses=[NEW])
        for role in ("courier", "relay", "console"):
            ended = await command(role, "--set", "relay.upstream=capture", environment=environment)
            assert (ended.code, ended.out) == (2, "")
            assert f"outrider {role}: OUTRIDER_KEYS__ADDRESSES lacks the key" in ended.err
            assert NEW.decode() not in ended.err

    async def test_check_config_shows_no_key(self, environment: Mapping[str, str]) -> None:
        """Only that there are some, and which are too short."""
        shown = await command("check-config", environment=keyed(environment, NEW, b"short"))
        assert shown.code == 0
        assert 'addresses = ["[secret]", "[secret]"]' in shown.out
        assert "# addresses in the ledger: encrypted" in shown.out
        assert "OUTRIDER_KEYS__ADDRESSES: a key has fewer than 32 characters" in shown.out
        twice = await command("check-config", environment=keyed(environment, NEW, NEW))
        assert (twice.code, "OUTRIDER_KEYS__ADDRESSES: the same key stands twice" in twice.err) == (2, True)
