"""History from EmailOctopus: what is read of its reports, what of it is left out, and what is refused."""

import asyncio
import itertools
from datetime import UTC, datetime
from typing import Any

import pytest
from aiohttp import web

from courier.replay import replay_since
from ledger import campaigns, erasure, imports, suppressions
from ledger.ids import recipient_index
from ledger.processes import forget_the_past
from ledger.sealing import Sealer
from ledger.store import Ledger, open_ledger
from ledger.traces import Traces
from sidecar.imports.emailoctopus import BASES, Version
from sidecar.imports.origin import OriginError
from sidecar.imports.record import Historian
from tests.importing import NOW, TARGET, asking, bring_in, flags, no_drift
from tests.mailings import ams_settings
from tests.octopus import CAMPAIGN, KEY, REPORTS, SENT_AT, Octopus, Row, broken, flags_of, later, reports_of
from tests.rows import IDENTITY, Pool

VERSIONS = tuple(Version)
SMALL = 300


@pytest.mark.parametrize("version", VERSIONS)
async def test_every_report_page_by_page(ledger: Ledger, pool: Pool, version: Version) -> None:
    """Six reports, both versions, in the words of the console; `sent` is told first and raises nothing."""
    reports = reports_of(SMALL)
    octopus = Octopus(reports)
    async with octopus.listening() as url, asking(url, version) as origin:
        historian = await bring_in(ledger, origin)
    assert await flags(pool) == flags_of(reports)
    (row,) = await campaigns.campaigns(ledger, limit=2)
    campaign = row.campaign
    assert (campaign.campaign_id, campaign.source) == (CAMPAIGN, TARGET.source)
    assert (campaign.accepted, campaign.sent, campaign.delivered) == (SMALL, SMALL, 0)
    assert campaign.opens == len(reports["opened"])
    assert campaign.clicks == campaign.unique_clicks == len(reports["clicked"])
    assert campaign.bounces == len(reports["bounced"])
    assert campaign.complaints == len(reports["complained"])
    assert campaign.unsubscribes == len(reports["unsubscribed"])
    # Nobody wrote an id into this mail by which a provider could name it.
    assert campaign.correlated_ratio == 0.0
    assert await no_drift(ledger)
    total = sum(map(len, reports.values()))
    assert historian.done == {"rows": total, "messages": SMALL, "events": total}
    # Nothing of it is for AMS, and nobody is suppressed who was not to be.
    assert await pool.fetchval("SELECT count(*) FROM outbox") == 0
    assert await pool.fetchval("SELECT count(*) FROM suppression") == 0
    bounces = await pool.fetch("SELECT DISTINCT bounce FROM event WHERE type = 'bounced' ORDER BY bounce")
    kinds = ["hard", "soft"] if version is Version.OLD else ["unknown"]
    assert [row["bounce"] for row in bounces] == kinds


async def test_a_cursor_that_is_forgotten_there(ledger: Ledger, pool: Pool) -> None:
    """The report is read from its beginning again; what was taken is known."""
    reports = reports_of(SMALL)
    octopus = Octopus(reports)
    async with octopus.listening() as url, asking(url, Version.NEW) as origin:
        reached = asyncio.Event()
        octopus.mood = lambda number: reached.set() if number > 5 else None
        historian = Historian(ledger, TARGET, identity=IDENTITY, suppress_for=None, now=NOW)
        # Small enough that something is committed before the end of the report.
        first = await anext(origin.pages("sent", ""))
        await historian._write(first.notices, report="sent", place=first.following, begun=list(REPORTS))
        octopus.forgetful = True
        octopus.pages.clear()
        with pytest.raises(asyncio.CancelledError):
            await cancelled(bring_in(ledger, origin), reached)
        assert octopus.pages[:2] == [("sent", "Wzc/100"), ("sent", "")]
        octopus.forgetful = False
        await bring_in(ledger, origin)
    assert await flags(pool) == flags_of(reports)


async def cancelled(work: Any, when: asyncio.Event) -> None:
    """Run *work* and cancel it at some time."""
    task = asyncio.create_task(work)
    await when.wait()
    task.cancel()
    await task


async def test_what_cannot_be_attributed_is_left_out_and_counted(ledger: Ledger, pool: Pool) -> None:
    """A contact who was deleted names nobody; two spellings are one person; what comes twice counts once."""
    rows = [
        Row(address=None, at=SENT_AT),
        Row(address="no address", at=SENT_AT),
        Row(address="Ann@Example.net", at=SENT_AT),
        Row(address="ann@example.net", at=SENT_AT),
        Row(address="bob@example.net", at=SENT_AT),
    ]
    empty: dict[str, list[Row]] = {report: [] for report in REPORTS}
    octopus = Octopus(empty | {"sent": rows, "opened": rows[2:4]})
    for version in VERSIONS:
        async with octopus.listening() as url, asking(url, version) as origin:
            historian = await bring_in(ledger, origin)
        assert sorted(historian.left_out.values()) == [1, 1]
    assert await pool.fetchval("SELECT count(*) FROM message") == 2
    assert await pool.fetchval("SELECT opens FROM engagement") == 1


async def test_who_wanted_no_more_is_suppressed_when_told_so(ledger: Ledger, pool: Pool) -> None:
    """Also by a second import, which finds all events known. A soft bounce, and one that nobody explains, is none."""
    ann, bob, cid, dan = (
        Row(address=f"{name}@example.net", at=SENT_AT, kind="HARD") for name in ("ann", "bob", "cid", "dan")
    )
    dan = Row(address=dan.address, at=SENT_AT, kind="SOFT")
    octopus = Octopus(
        {"sent": [ann, bob, cid, dan], "opened": [ann], "clicked": []}
        | {"bounced": [cid, dan], "complained": [bob], "unsubscribed": [ann]}
    )
    async with octopus.listening() as url, asking(url, Version.OLD) as origin:
        await bring_in(ledger, origin)
        assert await pool.fetchval("SELECT count(*) FROM suppression") == 0
        for _ in range(2):
            await bring_in(ledger, origin, suppress_for="shop")
    page = await suppressions.listing(ledger, limit=10)
    assert {(one.source, one.recipient, one.reason) for one in page.suppressions} == {
        ("shop", "ann@example.net", "unsubscribed"),
        ("shop", "bob@example.net", "complained"),
        ("shop", "cid@example.net", "bounced"),
    }
    # Who wants mail again does: the old wish is older.
    await suppressions.lift(ledger, [recipient_index(IDENTITY, "ann@example.net")])
    async with octopus.listening() as url, asking(url, Version.OLD) as origin:
        await bring_in(ledger, origin, suppress_for="shop")
    assert len((await suppressions.listing(ledger, limit=10)).suppressions) == 2


async def test_addresses_are_sealed(database_url: str, pool: Pool) -> None:
    """With a key no address of history stands anywhere, and an export shows them."""
    reports = reports_of(30)
    octopus = Octopus(reports)
    async with (
        open_ledger(database_url, sealer=Sealer([b"a key of addresses made up for tests"])) as sealed,
        octopus.listening() as url,
        asking(url, Version.NEW) as origin,
    ):
        await bring_in(sealed, origin)
        assert (
            await pool.fetchval("SELECT count(*) FROM message WHERE position('example.net'::bytea IN recipient) > 0")
            == 0
        )
        again = await bring_in(sealed, origin)
    assert (again.done["messages"], again.done["events"]) == (0, 0)


async def test_years_later_everything_is_still_known(ledger: Ledger, pool: Pool) -> None:
    """Dedupe ids of hits are forgotten after 60 days; those of history are not. AMS is told nothing of it, ever."""
    reports = reports_of(120)
    octopus = Octopus(reports)
    async with octopus.listening() as url, asking(url, Version.NEW) as origin:
        await bring_in(ledger, origin)
        await pool.execute("UPDATE event_seen SET at = at - interval '3 years'")
        await forget_the_past(ledger)
        await pool.execute("UPDATE campaign SET ams_mailing = 7")
        again = await bring_in(ledger, origin)
    assert (again.done["messages"], again.done["events"]) == (0, 0)
    assert await replay_since(ledger, datetime(2020, 1, 1, tzinfo=UTC), ams_settings()) == 0


async def test_who_was_erased_stays_so(ledger: Ledger, pool: Pool) -> None:
    """An import after `forget` finds its recipient's message, learns nobody's address, and suppresses nobody by it."""
    ann = Row(address="ann@example.net", at=SENT_AT)
    empty: dict[str, list[Row]] = {report: [] for report in REPORTS}
    octopus = Octopus(empty | {"sent": [ann]})
    async with octopus.listening() as url, asking(url, Version.NEW) as origin:
        await bring_in(ledger, origin)
        index = recipient_index(IDENTITY, "ann@example.net")
        erased = await erasure.forget(ledger, index, Traces("ann@example.net"))
        assert erased.counts["messages"] == 1
        octopus.reports = empty | {"sent": [ann], "opened": [ann], "unsubscribed": [ann]}
        await bring_in(ledger, origin, suppress_for="")
    assert [row["recipient"] for row in await pool.fetch("SELECT recipient FROM message")] == [b"erased"]
    assert await pool.fetchval("SELECT first_opened_at IS NOT NULL FROM engagement")
    # What forgetting itself has written.
    assert [row["reason"] for row in await pool.fetch("SELECT reason FROM suppression")] == ["erased"]


class TestWhatIsRefused:
    """Each trouble says what to do, and no word of it holds the key."""

    async def test_a_wrong_key_and_an_unknown_campaign(self, ledger: Ledger) -> None:
        octopus = Octopus(reports_of(3))
        async with octopus.listening() as url:
            for version, name, value, words in (
                (version, *wrong)
                for version in VERSIONS
                for wrong in (("key", "eo_wrong", "refuses the API key"), ("campaign", "c", "knows no campaign c"))
            ):
                async with asking(url, version, **{name: value}) as origin:
                    with pytest.raises(OriginError, match=words) as raised:
                        await bring_in(ledger, origin)
                assert "eo_" not in str(raised.value)
        assert octopus.asked == 4
        # A wrong key leaves no campaign behind.
        assert await campaigns.campaigns(ledger, limit=1) == []

    @pytest.mark.parametrize(
        ("answer", "words"),
        [
            (lambda: web.Response(text="<html>Sign in</html>", content_type="text/html"), "else than JSON"),
            (lambda: web.json_response([]), "no list `data`"),
            (lambda: web.json_response({"data": [{"contact_id": "c1"}]}), "a row without `contact_email_address`"),
            (lambda: web.json_response({"data": [7]}), "a row without"),
            (lambda: web.json_response({"error": {"code": "CAMPAIGN_NOT_SENT"}}, status=400), "was not sent yet"),
            (lambda: web.Response(status=302, headers={"Location": "https://evil.example/"}), "points elsewhere"),
            (broken, "is in trouble"),
            (later, "asked too often"),
            (
                lambda: web.json_response(
                    {"data": [], "paging": {"next": {"starting_after": "again"}}},
                ),
                "the same page twice",
            ),
        ],
    )
    async def test_answers_that_are_none(self, answer: Any, words: str) -> None:
        octopus = Octopus(reports_of(3))
        octopus.mood = lambda _number: answer()
        async with octopus.listening() as url, asking(url, Version.NEW) as origin:
            with pytest.raises(OriginError, match=words):
                _ = [page async for page in origin.pages("sent", "")]
        # As often as it helps, and not for ever.
        assert octopus.asked <= 10

    async def test_nobody_there(self) -> None:
        async with asking("http://127.0.0.1:1", Version.OLD) as origin:
            with pytest.raises(OriginError, match=r"did not answer in 3 tries \(ClientConnectorError\)") as raised:
                _ = [page async for page in origin.pages("sent", "")]
        assert KEY not in str(raised.value)

    async def test_going_on_with_reports_in_which_nothing_stands(self, ledger: Ledger, pool: Pool) -> None:
        sent = reports_of(150)["sent"]
        octopus = Octopus({report: [] for report in REPORTS} | {"sent": sent})
        async with octopus.listening() as url, asking(url, Version.NEW) as origin:
            historian = Historian(ledger, TARGET, identity=IDENTITY, suppress_for=None, now=NOW)
            first = await anext(origin.pages("sent", ""))
            await historian._write(first.notices, report="sent", place=None, begun=list(REPORTS))
            assert set((await imports.before(ledger, TARGET)).places) == set(REPORTS[1:])
            await bring_in(ledger, origin)
        assert (await imports.before(ledger, TARGET)).places == {}
        assert ("sent", "Wzc/100") not in octopus.pages
        assert await pool.fetchval("SELECT count(*) FROM message") == 100

    async def test_opens_that_were_not_tracked(self, ledger: Ledger, pool: Pool) -> None:
        octopus = Octopus(reports_of(20))
        off = {"error": {"code": "CAMPAIGN_FEATURE_DISABLED", "message": "No open tracking."}}
        asked = itertools.count(1)
        octopus.mood = lambda _number: web.json_response(off, status=400) if next(asked) == 2 else None
        async with octopus.listening() as url, asking(url, Version.OLD) as origin:
            await bring_in(ledger, origin)
        assert not (await imports.before(ledger, TARGET)).places
        assert await pool.fetchval("SELECT count(*) FROM message") == 20


def test_the_real_addresses() -> None:
    """They are not played in any test."""
    assert BASES == {Version.OLD: "https://emailoctopus.com/api/1.6", Version.NEW: "https://api.emailoctopus.com"}
