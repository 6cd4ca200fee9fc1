"""Who is forgotten stands nowhere any more, while links go on redirecting, totals stay, and others stay as they were.

A whole Outrider sends to three people, who click and unsubscribe, and keeps something for one of them in its queue;
then that one is forgotten, and everything that Outrider keeps is searched.
"""

import json
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import asyncpg
import msgspec
import pytest
import pytest_asyncio

from ledger.stream import STREAM, connect
from sidecar.embedded import running as running_servers
from tests.commands import Ended, command
from tests.conftest import next_port
from tests.playing import accepted, asked, mail, tracked, unsubscribe, until, visit
from tests.running import Outrider, outrider, short_directory
from tests.spellings import found, spellings

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.xdist_group("an_address_is_forgotten"),
    pytest.mark.timeout(240),
]

ANN, BEN, ZOE = "Ann.Quagmire@Example.net", "ben.brandywine@example.org", "zoe-42@example.com"
CAMPAIGN = "918273"
PERSONAL = f"https://shop.example.com/?email={ANN}&day=1"


class Day(msgspec.Struct, frozen=True, kw_only=True):
    """What was there before and after, and what the command said."""

    links: Mapping[str, str]
    statuses: Mapping[str, int]
    before: Mapping[str, Any]
    after: Mapping[str, Any]
    #: Everything that is kept, by where it is.
    held: Mapping[str, bytes]
    kept: Mapping[str, bytes]
    forgotten: Ended
    again: Ended
    export: str
    drift: str


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def day() -> AsyncIterator[Day]:
    """Let it all happen, once."""
    with short_directory() as data_dir:
        async with outrider(data_dir, next_port, relay__send_window="") as target:
            yield await _day(target)


async def _day(target: Outrider) -> Day:
    key = await accepted(
        target.smtp,
        mail(
            f"1.{ANN.lower()}@mailer.example.com", campaign=CAMPAIGN, links=(PERSONAL,), extra=f"Cc: <{ANN}>, {BEN}\r\n"
        ),
        ANN,
        BEN,
        sender=f"bounce+{ANN.replace('@', '=')}@shop.example.com",
    )
    await accepted(target.smtp, mail("2@mailer.example.com", campaign=CAMPAIGN, links=(PERSONAL,)), ZOE)
    by_name = {message["recipient"]: message for message in (await asked(target, "/api/messages"))["messages"]}
    assert set(by_name) == {ANN, BEN, ZOE}
    assert key
    capture = target.data_dir / "capture"
    captured = {name: tracked(_read(capture / f"{one['key']}.eml")) for name, one in by_name.items()}
    for one in captured.values():
        assert (await visit(one.links[0])).location == PERSONAL
        await visit(one.pixel)
    await unsubscribe(captured[ANN].unsubscribe)
    await _queued(target)
    await until(lambda: _recorded(target))
    links = {name: one.links[0] for name, one in captured.items()}
    before = await _counts(target)
    held = await _everything(target)
    forgotten = await _command(target, "forget", ANN.upper(), "--json")
    kept = await _everything(target)
    after = await _counts(target)
    again = await _command(target, "forget", ANN)
    answers = {name: await visit(link) for name, link in links.items()}
    assert {answer.location for answer in answers.values()} == {PERSONAL}
    drift = (await _command(target, "sync-counts")).out
    return Day(
        links=links,
        statuses={name: answer.status for name, answer in answers.items()},
        before=before,
        after=after,
        held=held,
        kept=kept,
        forgotten=forgotten,
        again=again,
        export=(await _command(target, "export")).out,
        drift=drift,
    )


async def _queued(target: Outrider) -> None:
    """Hold a campaign, so that mail of it waits: one for her alone."""
    await accepted(target.smtp, mail("3@mailer.example.com", campaign="1", extra="Cc: nobody\r\n"), ZOE)
    assert (await _command(target, "pause", "1")).code == 0
    await accepted(target.smtp, mail("4@mailer.example.com", campaign="1", extra=f"Cc: <{ANN}>\r\n"), ANN)
    assert (await asked(target, "/api/campaigns/1"))["suppressed"] == 1
    # She has unsubscribed from this source; what is no campaign's waits behind a closed door of its own.
    await _by_hand(target, "UPDATE suppression SET lifted_at = now()")
    await accepted(target.smtp, mail("5@mailer.example.com", campaign="1", extra=f"Cc: <{ANN}>\r\n"), ANN)
    assert (await asked(target, "/api/campaigns/1"))["queued"] == 1


async def _recorded(target: Outrider) -> bool:
    counts = await asked(target, f"/api/campaigns/{CAMPAIGN}")
    return (counts["clicks"], counts["opens"], counts["unsubscribes"]) == (3, 3, 1)


async def _command(target: Outrider, *words: str) -> Ended:
    return await command(*words, "--data-dir", str(target.data_dir))


async def _counts(target: Outrider) -> dict[str, Any]:
    """Return the counts of both campaigns, but for what becomes of the queue."""
    found = {one: await asked(target, f"/api/campaigns/{one}") for one in (CAMPAIGN, "1")}
    return {name: {word: value for word, value in one.items() if word != "ams"} for name, one in found.items()}


async def _by_hand(target: Outrider, statement: str) -> None:
    servers = running_servers(target.data_dir)
    assert servers is not None
    connection = await asyncpg.connect(servers.database_url)
    try:
        await connection.execute(statement)
    finally:
        await connection.close()


def _read(path: Path) -> bytes:
    return path.read_bytes()


async def _everything(target: Outrider) -> dict[str, bytes]:
    """Return all tables, the stream, and every file but those of the servers."""
    servers = running_servers(target.data_dir)
    assert servers is not None
    held = await _tables(servers.database_url)
    client = connect(servers.redis_url)
    try:
        entries: Any = await client.xrange(STREAM)
        held["stream"] = repr(entries).encode()
    finally:
        await client.aclose()
    for name in ("capture", "journal", "log"):
        held[name] = _files(target.data_dir / name)
    held["stderr"] = _read(target.log)
    return held


def _files(directory: Path) -> bytes:
    return b"\n".join(path.name.encode() + _read(path) for path in directory.rglob("*") if path.is_file())


async def _tables(database_url: str) -> dict[str, bytes]:
    connection = await asyncpg.connect(database_url)
    try:
        columns = await connection.fetch(
            "SELECT table_name, column_name FROM information_schema.columns WHERE table_schema = 'public'"
        )
        tables: dict[str, list[bytes]] = {}
        for table, column in columns:
            rows = await connection.fetch(f'SELECT "{column}" AS value FROM "{table}"')  # noqa: S608 - from the catalogue
            values = [row["value"] for row in rows]
            tables.setdefault(table, []).extend(
                value if isinstance(value, bytes) else str(value).encode() for value in values if value is not None
            )
    finally:
        await connection.close()
    return {f"table {name}": b"\n".join(values) for name, values in tables.items()}


async def test_the_search_would_find_her(day: Day) -> None:
    """Before, she stood in tables and files alike."""
    places = {place for place, content in day.held.items() if found(ANN, content)}
    assert places >= {"table message", "table event", "table body", "capture"}
    assert len(day.held) > 20
    assert len(spellings(ANN)) > 50


async def test_she_stands_nowhere(day: Day) -> None:
    """Not plain, not escaped, not encoded, not hashed: in no table, no file, no log, and not in the stream."""
    assert set(day.kept) == set(day.held)
    assert {place: forms for place, content in day.kept.items() if (forms := found(ANN, content))} == {}
    assert {place for place, content in day.kept.items() if found("ann.quagmire=example.net", content)} == set()


async def test_the_receipt_says_how_much_and_names_nobody(day: Day) -> None:
    """For whoever has to prove it."""
    assert (day.forgotten.code, day.forgotten.err) == (0, "")
    receipt = json.loads(day.forgotten.out)
    assert {
        name: receipt[name] for name in ("messages", "cancelled", "bodies", "in_flight", "bodies_needed", "hits")
    } == {
        "messages": 3,
        "cancelled": 1,
        "bodies": 1,
        "in_flight": 0,
        "bodies_needed": 0,
        "hits": "recorded",
    }
    assert receipt["events"] >= 3
    assert not found(ANN, day.forgotten.out.encode())


async def test_a_second_time_nothing_is_found(day: Day) -> None:
    """And that is no failure."""
    assert (day.again.code, day.again.out) == (0, "nothing was found\n")


async def test_every_link_redirects(day: Day) -> None:
    """Hers too: it holds all that it needs."""
    assert day.statuses == {ANN: 302, BEN: 302, ZOE: 302}


async def test_the_totals_stay(day: Day) -> None:
    """What was sent, opened and clicked was; what waited failed."""
    assert day.after[CAMPAIGN] == day.before[CAMPAIGN]
    changed = {word for word in day.before["1"] if day.before["1"][word] != day.after["1"][word]}
    assert changed <= {"queued", "failed", "progress_pct"}
    assert (day.after["1"]["queued"], day.after["1"]["failed"]) == (0, 1)
    assert day.drift.count("no drift") == 2


async def test_others_are_untouched(day: Day) -> None:
    """Their addresses stand where they stood; hers shows as erased."""
    rows = [line.split(",") for line in day.export.splitlines()]
    column = rows[0].index("recipient")
    assert sorted(row[column] for row in rows[1:]) == sorted([BEN, ZOE, ZOE, "erased", "erased", "erased"])
