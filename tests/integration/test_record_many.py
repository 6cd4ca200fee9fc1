"""A full batch is written in two transactions at once; that shows in nothing but its speed."""

import json

import pytest

from courier.record import Recorder
from ledger.events import EventType
from ledger.statements import statements
from ledger.store import Ledger, Session
from tests.mailings import (
    NOON_MS,
    READER,
    Connection,
    ams_settings,
    counts,
    entries,
    hit,
    make_campaign,
    seed,
)

CLICKED = EventType.CLICKED


async def test_every_count_is_exact(ledger: Ledger, look: Connection) -> None:
    """Forty messages, ten hits of each in one batch, and the batch again."""
    campaign = await make_campaign(look)
    messages = await seed(look, campaign, *(f"r{number}@example.net" for number in range(40)))
    hits = [hit(message, at_ms=NOON_MS + number * 90_000) for number in range(10) for message in messages]
    recorder = Recorder(ledger, READER, ams=ams_settings())
    for _ in range(2):
        await recorder.record(entries(hits))
        assert await counts(look, campaign) == {"opens": 400, "unique_opens": 40}
        assert await look.fetchval("SELECT count(*) FROM outbox") == 400
        assert await look.fetchval("SELECT array_agg(DISTINCT opens) FROM engagement") == [10]


@pytest.mark.parametrize(
    ("url", "link"), [("https://x.example/\0", 1), ("https://x.example/", 2**40)], ids=["NUL", "number"]
)
async def test_what_cannot_be_stored_is_parked_alone(url: str, link: int, ledger: Ledger, look: Connection) -> None:
    """A text that PostgreSQL refuses, and a number that the driver does: the other 399 are recorded."""
    campaign = await make_campaign(look)
    messages = await seed(look, campaign, *(f"r{number}@example.net" for number in range(40)))
    hits = [hit(message, at_ms=NOON_MS + number * 90_000) for number in range(10) for message in messages]
    hits[123] = hit(messages[3], CLICKED, url=url, link=link)
    await Recorder(ledger, READER, ams=ams_settings()).record(entries(hits))
    assert (await counts(look, campaign))["opens"] == 399
    assert await look.fetchval("SELECT array_agg(reason) FROM parked_event") == ["refused_value"]


async def test_one_that_fails_does_not_stop_the_other(
    ledger: Ledger, look: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The batch failed and is recorded again; what was written already is not written twice."""
    campaign = await make_campaign(look)
    messages = await seed(look, campaign, *(f"r{number}@example.net" for number in range(40)))
    hits = [hit(message, at_ms=NOON_MS + number * 90_000) for number in range(10) for message in messages]
    recorder = Recorder(ledger, READER, ams=ams_settings())
    copy, failures = Session.copy, iter([ConnectionResetError()])

    async def once(session: Session, *arguments: object) -> None:
        for failure in failures:
            raise failure
        await copy(session, *arguments)  # type: ignore[arg-type]  # as they came

    monkeypatch.setattr(Session, "copy", once)
    with pytest.raises(ConnectionResetError):
        await recorder.record(entries(hits))
    assert 0 < await look.fetchval("SELECT count(*) FROM event") < 400
    await recorder.record(entries(hits))
    assert await counts(look, campaign) == {"opens": 400, "unique_opens": 40}


async def test_ids_are_resolved_without_reading_all_messages(look: Connection) -> None:
    """Also before PostgreSQL has seen what the tables hold, and guesses."""
    campaign = await make_campaign(look)
    await look.execute(
        "INSERT INTO message (key, accepted_at, campaign, generation, size, links, injected, source, sender, recipient,"
        " recipient_index, message_id, body_digest)"
        " SELECT sha256(n::text::bytea), now(), $1, 0, 1, 1, true, 'default', '', '', sha256(n::text::bytea),"
        " n::text, ''"
        " FROM generate_series(1, 2000) AS n",
        campaign,
    )
    await look.execute("INSERT INTO alias (digest, message) SELECT sha256(id::text::bytea), id FROM message")
    await look.execute("ANALYZE message")
    names = [row["digest"] for row in await look.fetch("SELECT digest FROM alias LIMIT 500")]
    text = await look.fetchval(f"EXPLAIN (ANALYZE, FORMAT JSON) {statements()['resolve_aliases']}", names, names)
    waiting, read = [json.loads(text)[0]["Plan"]], 0
    while waiting:
        node = waiting.pop()
        waiting += node.get("Plans", [])
        if node.get("Relation Name") == "message":
            read += (node["Actual Rows"] + node.get("Rows Removed by Filter", 0)) * node["Actual Loops"]
    # Once for each id, and at most once all of them.
    assert read <= len(names) + 2_000
