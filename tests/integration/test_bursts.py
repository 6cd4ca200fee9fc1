"""A burst is told when it is complete: events, engagement, counts and what AMS will hear follow in one transaction."""

import asyncio
from collections import Counter
from collections.abc import Sequence
from datetime import timedelta
from random import Random

import pytest
from prometheus_client import REGISTRY

from courier.engagement import Event, counters, engagement
from courier.record import Recorder
from courier.settings import CourierSettings
from ledger.events import EventType, Hit
from ledger.store import Ledger, Session
from tests.judging import judge_all
from tests.mailings import (
    BROWSER,
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
from tests.visitors import ACCEPTED, OWN_NETWORK, visits

OPENED, CLICKED = EventType.OPENED, EventType.CLICKED
PHONE = "Mozilla/5.0 (iPhone; CPU iPhone OS 18_6 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Mobile/15E148"


def click(message: Seeded, link: int, seconds: float, *, agent: str = BROWSER) -> Hit:
    """Return a click some seconds after noon, on a link with a destination of its own."""
    url = f"https://shop.example.com/{link}"
    return hit(message, CLICKED, at_ms=NOON_MS + round(seconds * 1000), link=link, url=url, user_agent=agent)


async def told(look: Connection, message: Seeded) -> list[tuple[str, int | None, bool, str, str]]:
    """Return a message's events in the order in which they happened."""
    rows = await look.fetch(
        "SELECT type, link, machine, verdict, reason FROM event WHERE message = $1 ORDER BY occurred_at", message.id
    )
    return [tuple(row) for row in rows]


async def waiting(look: Connection) -> list[str]:
    """Return the urls that wait for AMS."""
    return [row["url"] for row in await look.fetch("SELECT url FROM outbox ORDER BY id")]


def revised() -> float:
    """Return how many clicks were told otherwise before."""
    return REGISTRY.get_sample_value("outrider_revised_events_total", {"type": "clicked"}) or 0.0


async def flags(look: Connection, message: Seeded) -> tuple[int, int, bool, bool]:
    """Return clicks of people and machines, and whether it counts as opened and clicked."""
    row = await look.fetchrow("SELECT * FROM engagement WHERE message = $1", message.id)
    assert row is not None
    return row["clicks"], row["machine_clicks"], row["first_opened_at"] is not None, row["first_clicked_at"] is not None


async def test_a_scan_is_a_machine_and_the_reader_an_hour_later_a_person(ledger: Ledger, look: Connection) -> None:
    """E12: eight links in two seconds, 43 s after the sending; then a single click on a phone."""
    campaign = await make_campaign(look)
    (ann,) = await seed(look, campaign, "ann@example.net")
    recorder = Recorder(ledger, READER, ams=ams_settings())
    await recorder.record(entries([click(ann, link, 43 + link / 4) for link in range(8)]))
    assert await told(look, ann) == [("clicked", link, True, "machine", "burst/2") for link in range(8)]
    assert await flags(look, ann) == (0, 8, False, False)
    await recorder.record(entries([click(ann, 3, 3643, agent=PHONE)]))
    assert (await told(look, ann))[8:] == [("clicked", 3, False, "person", "browser/2")]
    assert await flags(look, ann) == (1, 8, True, True)
    assert await counts(look, campaign) == {"machine_clicks": 8, "clicks": 1, "unique_clicks": 1, "unique_opens": 1}


async def test_the_first_clicks_of_a_burst_are_told_anew(ledger: Ledger, look: Connection) -> None:
    """One by one and 14 s apart: three count as a person's, and none does when the fourth has come, nor the next."""
    campaign = await make_campaign(look)
    (ann,) = await seed(look, campaign, "ann@example.net")
    recorder = Recorder(ledger, READER, ams=ams_settings())
    before = revised()
    for link in range(3):
        await recorder.record(entries([click(ann, link, link * 14)]))
        assert await flags(look, ann) == (link + 1, 0, True, True)
    assert revised() == before
    await recorder.record(entries([click(ann, 3, 43)]))
    assert await flags(look, ann) == (0, 4, False, False)
    assert await counts(look, campaign) == {"machine_clicks": 4}
    await recorder.record(entries([click(ann, 4, 57)]))
    assert await told(look, ann) == [("clicked", link, True, "machine", "burst/2") for link in range(5)]
    # The fourth and the fifth were never told otherwise.
    assert revised() == before + 3
    assert len(await waiting(look)) == 5


async def test_what_ams_has_not_taken_is_withdrawn_and_nothing_else(ledger: Ledger, look: Connection) -> None:
    """Where AMS hears of no machines: what was delivered stays told, an hour-old click on the same link stays too."""
    campaign = await make_campaign(look)
    ann, bob = await seed(look, campaign, "ann@example.net", "bob@example.net")
    recorder = Recorder(ledger, READER, ams=ams_settings(machines="exclude"))
    # Recorded together, so that the two items of link 1 differ in nothing.
    batch = [click(ann, 0, 3600), click(ann, 1, 3601), click(ann, 1, 10, agent=PHONE), click(bob, 1, 3601)]
    await recorder.record(entries(batch))
    await look.execute("DELETE FROM outbox WHERE url = 'https://shop.example.com/0'")
    await recorder.record(entries([hit(ann, at_ms=NOON_MS + 20_000)]))
    await recorder.record(entries([click(ann, link, 3600 + link) for link in (2, 3, 4)]))
    rows = await look.fetch("SELECT message, url FROM outbox ORDER BY message, url")
    link = "https://shop.example.com/1"
    assert [tuple(row) for row in rows] == [(ann.id, link), (ann.id, "open_trace"), (bob.id, link)]
    assert await flags(look, ann) == (1, 5, True, True)


@pytest.mark.parametrize("order", range(6))
async def test_any_order_any_batches_and_copies_end_alike(ledger: Ledger, look: Connection, order: int) -> None:
    """A scan, a reader and machines that say so, in many orders: the same labels, engagement and counts."""
    random = Random(order)  # noqa: S311 - a test's order, repeatable
    campaign = await make_campaign(look)
    (ann,) = await seed(look, campaign, "ann@example.net")
    life = [click(ann, link, 30 + link * 8) for link in range(6)]
    life += [
        click(ann, 0, 500),
        click(ann, 1, 520),
        hit(ann, at_ms=NOON_MS + 60_000),
        hit(ann, at_ms=NOON_MS + 480_000),
    ]
    life += [click(ann, link, 500 + link, agent="curl/8") for link in range(6)]
    arriving = [*life, *random.choices(life, k=8)]
    random.shuffle(arriving)
    recorder = Recorder(ledger, READER, ams=ams_settings())
    while arriving:
        size = random.randint(1, 6)
        await recorder.record(entries(arriving[:size]))
        del arriving[:size]
    machines = [(kind, link) for kind, link, machine, *_ in await told(look, ann) if machine]
    # The open at 60 s is of the visitor who follows the links; that at 480 s is not.
    scan = [("clicked", link) for link in range(6)]
    assert sorted(machines, key=str) == sorted([*scan, *scan, ("opened", None)], key=str)
    assert await counts(look, campaign) == {
        "machine_clicks": 12,
        "machine_opens": 1,
        "opens": 1,
        "clicks": 2,
        "unique_opens": 1,
        "unique_clicks": 1,
    }


async def test_two_couriers_complete_a_burst_together(ledger: Ledger, look: Connection) -> None:
    """Whoever comes second sees what the first has written: nothing is counted twice, and none is missed."""
    campaign = await make_campaign(look)
    messages = await seed(look, campaign, *(f"r{number}@example.net" for number in range(20)))
    clicks = [click(message, link, 40 + link) for message in messages for link in range(5)]

    async def courier(number: int) -> None:
        mine = list(clicks)
        Random(number).shuffle(mine)  # noqa: S311 - a test's order, repeatable
        recorder = Recorder(ledger, READER, ams=ams_settings())
        for start in range(0, len(mine), 9):
            await recorder.record(entries(mine[start : start + 9]))

    async with asyncio.TaskGroup() as group:
        for number in range(3):
            group.create_task(courier(number))
    assert await counts(look, campaign) == {"machine_clicks": 100}
    assert await look.fetchval("SELECT count(*) FROM event WHERE reason = 'burst/2'") == 100


async def test_a_click_that_was_parked_completes_a_burst_when_it_is_matched(ledger: Ledger, look: Connection) -> None:
    """It counts at the time at which it happened, days after the others were recorded."""
    recorder = Recorder(ledger, READER, ams=ams_settings())
    key = b"\x09" * 16
    stray = Seeded(id=0, key=key, campaign=None, recipient="")
    await recorder.record(entries([click(stray, link, link) for link in range(4)]))
    (ann,) = await seed(look, await make_campaign(look), "ann@example.net", keys=[key])
    assert await recorder.match_parked() == 4
    assert await flags(look, ann) == (0, 4, False, False)


async def test_hits_of_the_last_day_that_there_is_are_recorded(ledger: Ledger, look: Connection) -> None:
    """A clock that is wrong by millennia leads no search beyond the end of time."""
    (ann,) = await seed(look, None, "ann@example.net")
    last = 253_402_300_799_999
    late = [hit(ann, CLICKED, at_ms=at, link=link) for at in (0, last) for link in range(4)]
    await Recorder(ledger, READER, ams=ams_settings()).record(entries(late))
    assert await flags(look, ann) == (0, 8, False, False)


async def test_opens_and_few_clicks_cost_no_further_question(
    ledger: Ledger, look: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only messages with clicks enough for a burst are read."""
    asked: list[str] = []
    fetch = Session.fetch

    async def counted(session: Session, name: str, *arguments: object) -> object:
        asked.append(name)
        return await fetch(session, name, *arguments)

    monkeypatch.setattr(Session, "fetch", counted)
    (ann,) = await seed(look, await make_campaign(look), "ann@example.net")
    recorder = Recorder(ledger, READER, ams=ams_settings())
    await recorder.record(entries([hit(ann, at_ms=NOON_MS + number) for number in range(50)]))
    await recorder.record(entries([click(ann, link, link) for link in range(3)]))
    always = ["remember_events", "resolve_keys"]
    assert asked == [*always, "begin_engagements", *always, "lock_engagements", "tally_events"]
    asked.clear()
    await recorder.record(entries([click(ann, 3, 3)]))
    assert asked[-3:] == ["tally_events", "hits_around", "tally_events"]


async def _recorded(ledger: Ledger, look: Connection, hits: Sequence[Hit]) -> dict[bytes, Seeded]:
    """Record a log in a random order, in batches, with copies; return the messages by their keys."""
    campaign = await make_campaign(look)
    keys = sorted({one.key for one in hits})
    messages = await seed(look, campaign, *(f"r{number}@example.net" for number in range(len(keys))), keys=keys)
    await look.execute("UPDATE message SET accepted_at = $1", ACCEPTED)
    random = Random(3)  # noqa: S311 - a test's order, repeatable
    arriving = [*hits, *random.choices(hits, k=500)]
    random.shuffle(arriving)
    settings = CourierSettings(own_networks=(OWN_NETWORK,), early_seconds=1.0)
    recorder = Recorder(ledger, READER, ams=ams_settings(), settings=settings)
    for start in range(0, len(arriving), 700):
        await recorder.record(entries(arriving[start : start + 700]))
    return {message.key: message for message in messages}


async def test_ten_thousand_visits_are_told_as_the_definition_tells_them(ledger: Ledger, look: Connection) -> None:
    """Each is an event with its verdict and reason, none is dropped; engagement and counts follow from the verdicts."""
    expected = {one.visit.hit.id: one for one in judge_all(visits(seed=8, count=10_000))}
    messages = await _recorded(ledger, look, [one.visit.hit for one in expected.values()])
    rows = await look.fetch("SELECT dedupe, machine, reason FROM event")
    assert len(rows) == 10_000
    assert {row["dedupe"]: (row["machine"], row["reason"].partition("/")[0]) for row in rows} == {
        dedupe: (one.machine, one.reason) for dedupe, one in expected.items()
    }
    events: dict[bytes, list[Event]] = {}
    for one in expected.values():
        made = one.visit.hit
        at = ACCEPTED + timedelta(milliseconds=made.at_ms - NOON_MS)
        event = Event(dedupe=made.id, type=made.type, source="tracker", machine=one.machine, at=at)
        events.setdefault(made.key, []).append(event)
    total: Counter[str] = Counter()
    for known in events.values():
        total.update(counters(engagement(known)))
    campaign = next(iter(messages.values())).campaign
    assert campaign is not None
    assert await counts(look, campaign) == {counter: amount for counter, amount in total.items() if amount}
    # Every hit but a HEAD request is one item for AMS: as many as came, told once.
    heads = sum(one.visit.hit.method == "HEAD" for one in expected.values())
    assert await look.fetchval("SELECT count(*) FROM outbox") == 10_000 - heads
