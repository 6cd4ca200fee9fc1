"""Hits become events, engagement, counts, suppressions and items for AMS, in one transaction that may run twice."""

import asyncio
from random import Random

import asyncpg
import msgspec
import pytest
from prometheus_client import REGISTRY

from courier.classify import RULES
from courier.engagement import Event, tallies
from courier.record import Recorder
from courier.settings import AmsSettings
from ledger import engagements
from ledger.engagements import Tally
from ledger.events import EventType, Hit, encode_hit
from ledger.store import Ledger
from tests.mailings import (
    APPLE,
    NOON_MS,
    READER,
    Connection,
    Seeded,
    ams_settings,
    counts,
    entries,
    hit,
    make_campaign,
    seed,
)

OPENED, CLICKED, UNSUBSCRIBED = EventType.OPENED, EventType.CLICKED, EventType.UNSUBSCRIBED


@pytest.fixture
def recorder(ledger: Ledger) -> Recorder:
    """Return a recorder with AMS switched on."""
    return Recorder(ledger, READER, ams=ams_settings())


async def row_of(look: Connection, message: Seeded) -> dict[str, object]:
    """Return a message's engagement."""
    row = await look.fetchrow("SELECT * FROM engagement WHERE message = $1", message.id)
    assert row is not None
    return dict(row)


async def urls(look: Connection) -> list[str]:
    """Return what waits for AMS, in order."""
    return [row["url"] for row in await look.fetch("SELECT url FROM outbox ORDER BY id")]


async def parked(look: Connection) -> list[tuple[str, bytes]]:
    """Return the reason and payload of parked events."""
    rows = await look.fetch("SELECT reason, payload FROM parked_event ORDER BY id")
    return [(row["reason"], row["payload"]) for row in rows]


async def test_an_event_keeps_the_evidence(recorder: Recorder, look: Connection) -> None:
    """What the tracker saw stands in the event, with the verdict and its reason."""
    (ann,) = await seed(look, await make_campaign(look), "ann@example.net")
    await recorder.record(entries([hit(ann, CLICKED, url="https://x.example/?a=1&b=2")]))
    event = await look.fetchrow("SELECT * FROM event")
    assert event is not None
    assert (event["message"], event["type"], event["source"], event["link"]) == (ann.id, "clicked", "tracker", 0)
    assert (event["machine"], event["verdict"], event["reason"]) == (False, "person", f"browser/{RULES}")
    assert (event["url"], event["network"]) == ("https://x.example/?a=1&b=2", "192.0.2.0/24")
    assert event["occurred_at"].timestamp() * 1000 == NOON_MS


async def test_a_batch_moves_every_count(recorder: Recorder, look: Connection) -> None:
    """Opens, clicks, machines and unsubscribes of several messages: rows, counters and items agree."""
    campaign = await make_campaign(look)
    ann, bob, cid = await seed(look, campaign, "ann@example.net", "bob@example.net", "cid@example.net")
    await recorder.record(
        entries(
            [
                hit(ann),
                hit(ann, at_ms=NOON_MS + 5),
                hit(bob, CLICKED),
                hit(cid, user_agent=APPLE),
                hit(cid, CLICKED, method="HEAD"),
                hit(bob, UNSUBSCRIBED),
            ]
        )
    )
    assert await counts(look, campaign) == {
        "opens": 2,
        "unique_opens": 2,
        "clicks": 1,
        "unique_clicks": 1,
        "machine_opens": 1,
        "machine_clicks": 1,
        "unsubscribes": 1,
    }
    clicked = await row_of(look, bob)
    assert (clicked["opens"], clicked["clicks"]) == (0, 1)
    assert clicked["first_opened_at"] == clicked["first_clicked_at"] is not None
    machine = await row_of(look, cid)
    assert (machine["opens"], machine["machine_opens"], machine["machine_clicks"]) == (0, 1, 1)
    assert machine["first_opened_at"] is None
    assert sorted(await urls(look)) == [
        "Unsubscribe_Click:DC,AE{|;",
        "https://shop.example.com/?a=1&b=2",
        "open_trace",
        "open_trace",
        "open_trace",
    ]
    suppressed = await look.fetch("SELECT source, reason, message FROM suppression")
    assert [tuple(row) for row in suppressed] == [("default", "unsubscribed", bob.id)]


async def test_the_same_hits_again_change_nothing(recorder: Recorder, look: Connection) -> None:
    """A crash between commit and acknowledgement brings every hit again, also twice in one batch."""
    campaign = await make_campaign(look)
    (ann,) = await seed(look, campaign, "ann@example.net")
    hits = [hit(ann), hit(ann, CLICKED), hit(ann, UNSUBSCRIBED)]
    await recorder.record(entries(hits))
    before = (await row_of(look, ann), await counts(look, campaign), await urls(look))
    await recorder.record(entries([*hits, *hits]))
    await recorder.record(entries(hits[1:]))
    assert (await row_of(look, ann), await counts(look, campaign), await urls(look)) == before
    assert await look.fetchval("SELECT count(*) FROM event") == 3


async def test_two_couriers_with_the_same_messages_end_alike(ledger: Ledger, look: Connection) -> None:
    """Four at once, overlapping and shuffled: every counter is exact, no deadlock stops them."""
    campaign = await make_campaign(look)
    messages = await seed(look, campaign, *(f"r{n}@example.net" for n in range(20)))
    hits = [hit(message, kind, at_ms=NOON_MS + n) for n, message in enumerate(messages) for kind in (OPENED, CLICKED)]
    hits += [hit(messages[0], at_ms=NOON_MS + n) for n in range(100)]

    async def courier(seed_number: int) -> None:
        mine = list(hits)
        Random(seed_number).shuffle(mine)  # noqa: S311 - a test's order, repeatable
        recorder = Recorder(ledger, READER, ams=ams_settings())
        for start in range(0, len(mine), 20):
            await recorder.record(entries(mine[start : start + 20]))

    async with asyncio.TaskGroup() as group:
        for number in range(4):
            group.create_task(courier(number))
    assert await counts(look, campaign) == {"opens": 120, "unique_opens": 20, "clicks": 20, "unique_clicks": 20}
    assert await look.fetchval("SELECT sum(opens)::integer FROM engagement") == 120
    assert len(await urls(look)) == 140


async def test_e7_a_crowd_is_counted_to_the_last(ledger: Ledger, look: Connection) -> None:
    """A thousand clicks on one link, two opens in one millisecond, four couriers at once: one flag, exact counts."""
    campaign = await make_campaign(look)
    (ann,) = await seed(look, campaign, "ann@example.net")
    hits = [hit(ann, CLICKED, at_ms=NOON_MS + number * 100_000) for number in range(1000)] + [hit(ann), hit(ann)]
    couriers = [Recorder(ledger, READER, ams=ams_settings()) for _ in range(4)]
    await asyncio.gather(*(one.record(entries(hits[at::4])) for at, one in enumerate(couriers)))
    assert await counts(look, campaign) == {"opens": 2, "unique_opens": 1, "clicks": 1000, "unique_clicks": 1}
    row = await row_of(look, ann)
    assert (row["opens"], row["clicks"]) == (2, 1000)


async def test_an_unknown_key_is_parked_and_matched_later(recorder: Recorder, look: Connection) -> None:
    """A hit that overtakes its correlation waits for it, once, and then counts as if it had come after."""
    campaign = await make_campaign(look)
    key = b"\x07" * 16
    early = hit(key)
    await recorder.record(entries([early]))
    await recorder.record(entries([early]))
    assert await parked(look) == [("unknown_key", encode_hit(early))]
    assert await recorder.match_parked() == 0
    (ann,) = await seed(look, campaign, "ann@example.net", keys=[key])
    assert await recorder.match_parked() == 1
    assert await recorder.match_parked() == 0
    assert await parked(look) == []
    await recorder.record(entries([early]))
    assert (await row_of(look, ann))["opens"] == 1
    assert await counts(look, campaign) == {"opens": 1, "unique_opens": 1}
    assert await urls(look) == ["open_trace"]


async def test_what_cannot_be_read_is_parked_as_it_came(recorder: Recorder, look: Connection) -> None:
    """Rubbish, no proper key or time, a kind that no tracker sees: kept, and its neighbours go on."""
    (ann,) = await seed(look, None, "ann@example.net")
    good = hit(ann)
    rubbish = [
        b"",
        b"\xff\x00rubbish",
        encode_hit(msgspec.structs.replace(good, id=b"short")),
        encode_hit(msgspec.structs.replace(good, key=b"")),
        encode_hit(msgspec.structs.replace(good, at_ms=10**18)),
        encode_hit(msgspec.structs.replace(good, at_ms=-1)),
        encode_hit(msgspec.structs.replace(good, type=EventType.DELIVERED)),
    ]
    batch = [(b"0-%d" % number, raw) for number, raw in enumerate([*rubbish, encode_hit(good)], start=1)]
    await recorder.record(batch)
    await recorder.record(batch)
    assert sorted(await parked(look)) == sorted(("undecodable", raw) for raw in rubbish)
    assert (await row_of(look, ann))["opens"] == 1


async def test_a_value_that_postgresql_refuses_is_parked_alone(recorder: Recorder, look: Connection) -> None:
    """One poisoned hit among a hundred, known or unknown, loses nothing and holds nobody up."""
    campaign = await make_campaign(look)
    key = b"\x08" * 16
    messages = await seed(look, campaign, *(f"r{n}@example.net" for n in range(100)))
    poison = [
        hit(messages[7], CLICKED, url="https://x.example/\0"),
        msgspec.structs.replace(hit(messages[8], CLICKED), link=2**40),
        hit(key, CLICKED, url="https://x.example/\0"),
    ]
    await recorder.record(
        entries([hit(message) for message in messages[:60]] + poison + [hit(m) for m in messages[60:]])
    )
    assert (await counts(look, campaign))["opens"] == 100
    assert sorted(reason for reason, _ in await parked(look)) == ["refused_value", "refused_value", "unknown_key"]
    # What is refused only once its message is known stays parked, with the reason that it has then.
    await seed(look, campaign, "late@example.net", keys=[key])
    await recorder.match_parked()
    assert await recorder.match_parked() == 0
    assert [reason for reason, _ in await parked(look)] == ["refused_value"] * 3
    assert {payload for _, payload in await parked(look)} == {encode_hit(one) for one in poison}


async def test_evidence_with_a_nul_is_no_reason_to_park(recorder: Recorder, look: Connection) -> None:
    """The agent is a remark of the client's; its NUL is dropped and the hit counts."""
    (ann,) = await seed(look, None, "ann@example.net")
    await recorder.record(entries([hit(ann, user_agent="Mozilla/5.0 (X\0)")]))
    assert await look.fetchval("SELECT user_agent FROM event") == "Mozilla/5.0 (X)"


@pytest.mark.parametrize(
    ("settings", "mailing", "expected"),
    [
        (ams_settings(), 42, ["open_trace"] * 2),
        (ams_settings(machines="exclude"), 42, ["open_trace"]),
        (ams_settings(url=""), 42, []),
        (ams_settings(), None, []),
    ],
)
async def test_items_are_queued_for_ams_campaigns_alone(
    ledger: Ledger, look: Connection, settings: AmsSettings, mailing: int | None, expected: list[str]
) -> None:
    """Without an endpoint, or for somebody else's campaign, nothing piles up; machines go by the setting."""
    (ann,) = await seed(look, await make_campaign(look, mailing=mailing), "ann@example.net")
    before = REGISTRY.get_sample_value("outrider_not_ams_events_total") or 0.0
    await Recorder(ledger, READER, ams=settings).record(
        entries([hit(ann), hit(ann, user_agent=APPLE), hit(ann, method="HEAD")])
    )
    assert await urls(look) == expected
    counted = (REGISTRY.get_sample_value("outrider_not_ams_events_total") or 0.0) - before
    assert counted == (3 if mailing is None else 0)
    assert await look.fetchval("SELECT count(*) FROM event") == 3


async def test_mail_without_a_campaign_is_exempt_from_unsubscribes(recorder: Recorder, look: Connection) -> None:
    """The event is recorded, nobody is suppressed, AMS hears nothing."""
    (ann,) = await seed(look, None, "ann@example.net")
    await recorder.record(entries([hit(ann, UNSUBSCRIBED)]))
    assert (await row_of(look, ann))["unsubscribed_at"] is not None
    assert await look.fetchval("SELECT count(*) FROM suppression") == 0
    assert await urls(look) == []


async def test_sql_counts_as_the_definition_does(recorder: Recorder, ledger: Ledger, look: Connection) -> None:
    """The tallies that the ledger counts are those of the pure definition, for every message of a random batch."""
    random = Random(7)  # noqa: S311 - a test's hits, repeatable
    messages = await seed(look, None, *(f"r{n}@example.net" for n in range(5)))
    hits: list[Hit] = [
        hit(
            random.choice(messages),
            random.choice([OPENED, CLICKED, UNSUBSCRIBED]),
            at_ms=NOON_MS + random.randrange(10_000),
            user_agent=random.choice([APPLE, "Mozilla/5.0 (X11)", "curl/8"]),
        )
        for _ in range(200)
    ]
    await recorder.record(entries(hits))
    async with ledger.transaction() as session:
        counted = await engagements.tally(session, [message.id for message in messages])
    for message in messages:
        events = [
            Event(
                dedupe=one.id,
                type=one.type,
                source="tracker",
                machine=sighting.machine,
                at=sighting.at,
            )
            for one in hits
            if one.key == message.key and (sighting := READER.read(encode_hit(one))) is not None
        ]

        def by_name(tally: Tally) -> tuple[str, bool]:
            return tally.type, tally.machine

        assert sorted(counted[message.id], key=by_name) == sorted(tallies(events), key=by_name)


async def test_a_transaction_that_fails_leaves_nothing(recorder: Recorder, look: Connection) -> None:
    """Events, engagement, counts and items come together or not at all."""
    campaign = await make_campaign(look)
    (ann,) = await seed(look, campaign, "ann@example.net")
    one = hit(ann)
    await look.execute("ALTER TABLE outbox RENAME TO elsewhere")
    with pytest.raises(asyncpg.UndefinedTableError):
        await recorder.record(entries([one]))
    for table in ("event_seen", "event", "engagement", "campaign_delta", "parked_event"):
        assert await look.fetchval(f"SELECT count(*) FROM {table}") == 0  # noqa: S608 - our own names
    await look.execute("ALTER TABLE elsewhere RENAME TO outbox")
    await recorder.record(entries([one]))
    assert await counts(look, campaign) == {"opens": 1, "unique_opens": 1}
