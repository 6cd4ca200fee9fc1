"""What an operator says of a campaign, how much it expects and when its mail may go; and its counts are kept true."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest

from ledger import campaigns
from ledger.campaigns import Campaign, CampaignRow, fold_counts
from ledger.mail import MailLedger
from ledger.windows import parse_windows
from relay.settings import RelaySettings
from tests.console import BEARER, console
from tests.relaying import Relay, relaying, submission
from tests.sink import Sink

PATIENT = RelaySettings(verdict_wait=1.0, ledger_wait=1.0, retry_first=3600.0)
OFFICE = parse_windows("Mon-Fri 08:00-20:00 UTC")
#: Noon on a Friday and on a Saturday.
OPEN, CLOSED = datetime(2026, 11, 20, 12, tzinfo=UTC), datetime(2026, 11, 21, 12, tzinfo=UTC)


@pytest.fixture
async def sink() -> AsyncIterator[Sink]:
    """Play an upstream."""
    async with Sink().listening() as sink:
        yield sink


@pytest.fixture
async def relay(database_url: str, sink: Sink) -> AsyncIterator[Relay]:
    """Run a relay."""
    async with relaying(database_url, f"smtp://127.0.0.1:{sink.port}", PATIENT) as relay:
        yield relay


async def row_of(relay: Relay, name: str = "65") -> CampaignRow:
    """Return a campaign."""
    (row,) = await campaigns.campaigns(relay.ledger, limit=2, campaign_id=name)
    return row


async def seen(relay: Relay, name: str = "65") -> Campaign:
    """Return a campaign as the API shows it."""
    return (await row_of(relay, name)).campaign


class TestWindows:
    """Outside its window a campaign's mail is accepted and waits."""

    async def test_it_closes_and_opens_by_the_clock(self, relay: Relay, sink: Sink) -> None:
        """What waits goes when the window opens; mail without a campaign is exempt."""
        await relay.pipeline.accept(submission("first@example.net"))
        await campaigns.apply_windows(relay.ledger, OFFICE, CLOSED)
        assert (await seen(relay)).state == "closed"
        assert (await relay.pipeline.accept(submission("second@example.net"))).code == 250
        await relay.pipeline.accept(submission("reset@example.net", campaign=None))
        assert [kept.recipient for kept in sink.kept] == ["first@example.net", "reset@example.net"]
        claimed = await relay.mail.claim(10)
        assert (claimed.due, claimed.passed) == ([], 1)
        assert await campaigns.apply_windows(relay.ledger, OFFICE, OPEN) == 1
        assert (await seen(relay)).state == "active"
        assert [due.recipient for due in (await relay.mail.claim(10)).due] == ["second@example.net"]

    async def test_a_new_campaign_is_made_closed(self, relay: Relay) -> None:
        """Its first message does not slip out before the window is looked at."""
        mail = MailLedger(relay.ledger, relay.mail.process, windows=OFFICE)
        await mail.campaign("default", "late", None, None, CLOSED)
        await mail.campaign("default", "early", None, None, OPEN)
        assert [(await seen(relay, name)).state for name in ("late", "early")] == ["closed", "active"]

    async def test_a_window_of_its_own_stands_before_the_setting_s(self, relay: Relay) -> None:
        """And is looked at by itself; an empty one is always."""
        await relay.pipeline.accept(submission())
        row = (await row_of(relay)).id
        await campaigns.set_window(relay.ledger, row, "Sat 10:00-14:00 UTC", OFFICE, OPEN)
        assert (await seen(relay)).state == "closed"
        await campaigns.apply_windows(relay.ledger, OFFICE, CLOSED)
        assert (await seen(relay)).state == "active"
        await campaigns.set_window(relay.ledger, row, None, OFFICE, CLOSED)
        assert (await seen(relay)).state == "closed"
        await campaigns.set_window(relay.ledger, row, "", OFFICE, CLOSED)
        await campaigns.apply_windows(relay.ledger, OFFICE, CLOSED)
        assert (await seen(relay)).state == "active"

    async def test_a_pause_outlasts_every_window(self, relay: Relay) -> None:
        """Only an operator lifts what an operator said."""
        await relay.pipeline.accept(submission())
        row = (await row_of(relay)).id
        await campaigns.hold(relay.ledger, row, paused=True)
        await relay.pipeline.accept(submission("held@example.net"))
        await relay.mail.claim(10)
        await campaigns.apply_windows(relay.ledger, OFFICE, CLOSED)
        assert await campaigns.apply_windows(relay.ledger, OFFICE, OPEN) == 0
        assert (await seen(relay)).state == "paused"
        assert (await relay.mail.claim(10)).due == []
        await campaigns.apply_windows(relay.ledger, OFFICE, CLOSED)
        await campaigns.hold(relay.ledger, row, paused=False)
        assert (await relay.mail.claim(10)).due == [], "the window is closed still"
        await campaigns.apply_windows(relay.ledger, OFFICE, OPEN)
        assert len((await relay.mail.claim(10)).due) == 1


class TestExpected:
    """Progress is a share of what the campaign will have, once somebody said how many that is."""

    async def test_a_header_says_it_and_does_not_leave(self, relay: Relay, sink: Sink) -> None:
        """A later, different word counts; nonsense says nothing."""
        await relay.pipeline.accept(submission("a@example.net"))
        assert ((await seen(relay)).to_send, (await seen(relay)).progress_pct) == (None, 100.0)
        await relay.pipeline.accept(submission("b@example.net", extra="X-Outrider-To-Send: 8\r\n"))
        assert ((await seen(relay)).to_send, (await seen(relay)).progress_pct) == (8, 25.0)
        for nonsense in ("many", "-1", "0", "1e3", "99999999999"):
            await relay.pipeline.accept(
                submission(f"{len(nonsense)}@example.net", extra=f"X-Outrider-To-Send: {nonsense}\r\n")
            )
        assert (await seen(relay)).to_send == 8
        assert not any(b"X-Outrider-To-Send" in kept.content for kept in sink.kept)

    async def test_the_console_takes_it(self, relay: Relay, database_url: str) -> None:
        """As a number or null; anything else is named, and a window too."""
        await relay.pipeline.accept(submission())
        async with console(database_url) as client:

            async def told(path: str, body: object) -> tuple[int, dict[str, object]]:
                answer = await client.post(f"/api/campaigns/65/{path}", json=body, headers=BEARER)
                return answer.status, await answer.json()

            status, campaign = await told("to-send", {"to_send": 4})
            assert (status, campaign["to_send"], campaign["progress_pct"]) == (200, 4, 25.0)
            assert (await told("to-send", {"to_send": None}))[1]["to_send"] is None
            wrongs: list[object] = [{"to_send": 0}, {"to_send": "4"}, {}, {"to_send": 1, "more": 2}, []]
            for wrong in wrongs:
                assert (await told("to-send", wrong))[0] == 400
            status, campaign = await told("window", {"window": "daily 00:00-24:00 UTC"})
            assert (status, campaign["send_window"], campaign["state"]) == (200, "daily 00:00-24:00 UTC", "active")
            status, problem = await told("window", {"window": "tomorrow"})
            assert status == 400
            assert "is no window" in str(problem)
            assert (await client.post("/api/campaigns/65/window", json={"window": None})).status == 401


async def test_only_what_changed_is_recounted(relay: Relay) -> None:
    """A drift is found, put right and told; the next look finds nothing to do."""
    await relay.pipeline.accept(submission())
    await fold_counts(relay.ledger)
    row = (await row_of(relay)).id
    assert list(await campaigns.reconcile(relay.ledger, limit=10)) == [row]
    assert await campaigns.reconcile(relay.ledger, limit=10) == {}
    async with relay.ledger.session() as session:
        await session._connection.execute(
            "INSERT INTO campaign_delta (campaign, counter, amount) VALUES ($1, 'sent', 5)", row
        )
    await fold_counts(relay.ledger)
    found = await campaigns.reconcile(relay.ledger, limit=10)
    assert {one.counter: one.drift for one in found[row] if one.drift} == {"sent": 5}
    assert (await seen(relay)).sent == 1


async def test_recounts_beside_traffic_find_no_drift(relay: Relay) -> None:
    """Invariant: counts change in the transaction that changes the state."""
    busy = asyncio.create_task(_traffic(relay))
    drift = 0
    deadline = datetime.now(UTC) + timedelta(seconds=20)
    while not busy.done() and datetime.now(UTC) < deadline:
        await fold_counts(relay.ledger)
        found = await campaigns.reconcile(relay.ledger, limit=10)
        drift += sum(abs(one.drift) for recounts in found.values() for one in recounts)
    await busy
    assert drift == 0


async def _traffic(relay: Relay) -> None:
    for number in range(40):
        await relay.pipeline.accept(submission(f"{number}@example.net", f"x{number}@example.net"))
