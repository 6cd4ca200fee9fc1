"""Conservation: hits answered are events recorded, what waits, and what was refused; what else is missing shows."""

from collections.abc import Sequence
from pathlib import Path

import msgspec
import pytest
from prometheus_client import REGISTRY

from courier.record import Recorder
from ledger.events import Hit, encode_hit
from ledger.numbers import Account, account, fold_numbers
from ledger.processes import forget_the_past
from ledger.store import Ledger
from ledger.stream import STREAM, connect
from sidecar.gaps import note_gaps
from tests.mailings import READER, Connection, ams_settings, entries, hit, make_campaign, seed
from tests.tracker_support import door, make_hits, streamed
from tracker.buffer import open_buffer
from tracker.settings import TrackerSettings

PATIENT = TrackerSettings(append_wait=5.0)
A, B = b"writer A", b"writer B"


@pytest.fixture
def recorder(ledger: Ledger) -> Recorder:
    """Return a recorder without AMS."""
    return Recorder(ledger, READER, ams=ams_settings(url=""))


def numbered(one: Hit, writer: bytes, number: int, settled: int | None = None, lost: int = 0) -> Hit:
    """Return a hit with a number; all before it are settled unless *settled* says otherwise."""
    mark = number - 1 if settled is None else settled
    return msgspec.structs.replace(one, writer=writer, number=number, settled=mark, lost=lost)


async def recorded(recorder: Recorder, hits: Sequence[Hit]) -> None:
    """Record *hits* as the stream gives them."""
    await recorder.record(entries(hits))


async def test_nothing_is_missing_where_everything_came(ledger: Ledger, look: Connection, recorder: Recorder) -> None:
    """In any order, twice, known or not, with a value that PostgreSQL refuses: set aside is accounted for too."""
    (ann,) = await seed(look, await make_campaign(look), "ann@example.net")
    hits = [numbered(hit(ann), A, number) for number in (4, 1, 3)]
    poisoned = msgspec.structs.replace(hit(ann), url="https://shop.example.com/\0")
    hits += [numbered(hit(b"\x07" * 16), A, 2), numbered(poisoned, A, 5)]
    assert await account(ledger) == Account(recorded=0, lost=0, missing=0)
    await recorded(recorder, hits)
    await recorded(recorder, [*hits, hit(ann)])
    assert await account(ledger) == Account(recorded=5, lost=0, missing=0)
    await fold_numbers(ledger, patience=0)
    assert await account(ledger) == Account(recorded=5, lost=0, missing=0)
    assert await look.fetchval("SELECT count(*) FROM hit_span") == 0
    assert await look.fetchval("SELECT seen::text FROM hit_writer") == "{[1,6)}"


async def test_what_should_have_come_before_is_missing_after_a_while(
    ledger: Ledger, look: Connection, recorder: Recorder
) -> None:
    """Not at once: another courier may hold it; and no longer when it comes after all."""
    (ann,) = await seed(look, await make_campaign(look), "ann@example.net")
    await recorded(recorder, [numbered(hit(ann), A, number) for number in (1, 2, 6)])
    await fold_numbers(ledger)
    assert (await account(ledger)).missing == 0
    await fold_numbers(ledger, patience=0)
    found = await account(ledger)
    assert found == Account(recorded=3, lost=0, missing=3)
    assert note_gaps(found, 0) == REGISTRY.get_sample_value("outrider_hit_gaps") == 3
    await recorded(recorder, [numbered(hit(ann), A, number) for number in (3, 5)])
    assert (await account(ledger)).missing == 1
    await recorded(recorder, [numbered(hit(ann), A, 4)])
    assert await account(ledger) == Account(recorded=6, lost=0, missing=0)


async def test_what_waits_in_a_journal_and_what_is_known_to_be_lost_is_not_missing(
    ledger: Ledger, look: Connection, recorder: Recorder
) -> None:
    """Of each writer by itself: what one has lost explains nothing of another."""
    (ann,) = await seed(look, await make_campaign(look), "ann@example.net")
    hits = [numbered(hit(ann), A, 1), numbered(hit(ann), A, 90, settled=1)]
    hits += [numbered(hit(ann), B, 1), numbered(hit(ann), B, 5, lost=3)]
    await recorded(recorder, hits)
    await fold_numbers(ledger, patience=0)
    assert await account(ledger) == Account(recorded=4, lost=3, missing=0)
    await recorded(recorder, [numbered(hit(ann), A, 91)])
    await fold_numbers(ledger, patience=0)
    assert await account(ledger) == Account(recorded=5, lost=3, missing=88)


async def test_a_writer_is_forgotten_when_nothing_of_it_can_come(
    ledger: Ledger, look: Connection, recorder: Recorder
) -> None:
    """As long as the ids of events are kept, so are their writers."""
    (ann,) = await seed(look, await make_campaign(look), "ann@example.net")
    await recorded(recorder, [numbered(hit(ann), A, 4)])
    await fold_numbers(ledger, patience=0)
    await forget_the_past(ledger)
    assert (await account(ledger)).missing == 3
    await look.execute("UPDATE hit_writer SET heard_at = now() - interval '61 days'")
    await forget_the_past(ledger)
    assert await account(ledger) == Account(recorded=0, lost=0, missing=0)


async def test_a_trackers_hits_add_up_whatever_redis_does(
    ledger: Ledger, look: Connection, recorder: Recorder, redis_url: str, tmp_path: Path
) -> None:
    """Away and back: the journal's are settled by then. An entry that Redis loses is missing, one of five hundred."""
    (ann,) = await seed(look, await make_campaign(look), "ann@example.net")
    visits = [hit(ann) for _ in range(500)]
    async with door(redis_url) as way, open_buffer(way.url, tmp_path / "journal", PATIENT, tick=60) as buffer:
        for one in visits[:100]:
            await buffer.append(one)
        await way.shut()
        for one in visits[100:200]:
            await buffer.append(one)
        await way.open()
        await buffer.judge()
        for one in visits[200:300]:
            await buffer.append(one)
        waiting = await streamed(redis_url)
        assert {one.settled for one in waiting if one.number > 200} == {100}
        await recorded(recorder, waiting)
        await fold_numbers(ledger, patience=0)
        assert await account(ledger) == Account(recorded=200, lost=0, missing=0)
        await buffer.sweep()
        for one in visits[300:]:
            await buffer.append(one)
    found = await streamed(redis_url)
    assert {one.writer for one in found} == {found[0].writer}
    assert sorted(one.number for one in found) == list(range(1, 501))
    await recorded(recorder, found[:-30])
    client = connect(redis_url)
    try:
        # What an everysec server forgets when its machine dies.
        assert await client.xtrim(STREAM, maxlen=29, approximate=False)
    finally:
        await client.aclose()
    await recorded(recorder, await streamed(redis_url))
    await fold_numbers(ledger, patience=0)
    assert await account(ledger) == Account(recorded=499, lost=0, missing=1)


def test_a_number_costs_a_hit_little() -> None:
    """Twenty octets of the entry at most, after years of hits."""
    (plain,) = make_hits(1)
    assert len(encode_hit(numbered(plain, A, 2**32 - 1))) - len(encode_hit(plain)) <= 18
