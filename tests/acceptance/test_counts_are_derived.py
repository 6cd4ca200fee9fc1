"""Promise 10: counts are derived, not incremented; drift is a metric and is 0."""

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

from prometheus_client import REGISTRY

from courier.record import Recorder
from courier.settings import AmsSettings
from ledger.campaigns import fold_counts
from ledger.events import EventType, Hit, encode_hit
from ledger.store import Ledger
from relay.settings import RelaySettings
from relay.upstream import BeforeDot, Letter, Outcome, Trouble, Verdict
from tests.conftest import Eventually
from tests.console import BEARER, Client, console
from tests.mailings import READER
from tests.relaying import Relay, relaying, submission
from tests.rows import Pool, Rows

CAMPAIGNS = ("1", "2")
STATES = ("queued", "sent", "failed", "suppressed")
BROWSER = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"
SETTINGS = RelaySettings(verdict_wait=5.0, ledger_wait=5.0, retry_first=0.05)

#: What a campaign's rows say, asked in other words than the recount's.
TRUTH = """
SELECT
    (SELECT count(*) FROM message WHERE campaign = c.id) AS accepted,
    (SELECT count(*) FROM message m JOIN delivery d ON d.message = m.id
        WHERE m.campaign = c.id AND d.status IN ('queued', 'sending')) AS queued,
    (SELECT count(*) FROM message m JOIN delivery d ON d.message = m.id
        WHERE m.campaign = c.id AND d.status = 'sent') AS sent,
    (SELECT count(*) FROM message m JOIN delivery d ON d.message = m.id
        WHERE m.campaign = c.id AND d.status = 'failed') AS failed,
    (SELECT count(*) FROM message m JOIN delivery d ON d.message = m.id
        WHERE m.campaign = c.id AND d.status = 'suppressed') AS suppressed,
    (SELECT count(*) FROM message m JOIN event e ON e.message = m.id
        WHERE m.campaign = c.id AND e.type = 'opened' AND NOT e.machine) AS opens,
    (SELECT count(DISTINCT m.id) FROM message m JOIN event e ON e.message = m.id
        WHERE m.campaign = c.id AND e.type IN ('opened', 'clicked') AND NOT e.machine) AS unique_opens,
    (SELECT count(*) FROM message m JOIN event e ON e.message = m.id
        WHERE m.campaign = c.id AND e.type = 'clicked' AND NOT e.machine) AS clicks,
    (SELECT count(DISTINCT m.id) FROM message m JOIN event e ON e.message = m.id
        WHERE m.campaign = c.id AND e.type = 'clicked' AND NOT e.machine) AS unique_clicks,
    (SELECT count(*) FROM message m JOIN event e ON e.message = m.id
        WHERE m.campaign = c.id AND e.type = 'opened' AND e.machine) AS machine_opens,
    (SELECT count(*) FROM message m JOIN event e ON e.message = m.id
        WHERE m.campaign = c.id AND e.type = 'clicked' AND e.machine) AS machine_clicks,
    (SELECT count(DISTINCT m.id) FROM message m JOIN event e ON e.message = m.id
        WHERE m.campaign = c.id AND e.type = 'unsubscribed') AS unsubscribes
FROM campaign c WHERE c.campaign_id = $1
"""

#: Whether so many connections to this database wait for an advisory lock.
WAITING = """
SELECT count(*) = $1::bigint FROM pg_stat_activity
WHERE datname = current_database() AND wait_event_type = 'Lock' AND wait_event = 'advisory'
"""


class Fickle:
    """An upstream that accepts, refuses, stumbles, or leaves its answer to the dot open."""

    name = "fickle"

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance
        self.keys: list[str] = []

    async def send(self, letter: Letter, before_dot: BeforeDot) -> Outcome:
        """Answer by chance."""
        self.keys.append(letter.key)
        luck = self._chance.random()
        if luck < 0.2:
            return Trouble(reason="connect")
        await before_dot()
        if luck < 0.3:
            return Trouble(reason="lost", doubtful=True)
        if luck < 0.45:
            return Verdict(code=550, text="5.1.1 no such user")
        return Verdict(code=250, text=f"2.0.0 Ok {letter.key}")

    async def close(self) -> None:
        """Hold nothing open."""


@asynccontextmanager
async def repeating(work: Callable[[], Any]) -> AsyncIterator[None]:
    """Do *work* again and again for the time of the block; its failure is the test's."""

    async def again() -> None:
        while not done.is_set():
            await work()
            await asyncio.sleep(0)

    done = asyncio.Event()
    task = asyncio.create_task(again())
    try:
        yield
    finally:
        done.set()
        await task


def hit(chance: random.Random, key: bytes, *, machine: bool = False) -> bytes:
    """Return a hit on one of a message's URLs."""
    kind = chance.choice([EventType.OPENED, EventType.CLICKED, EventType.CLICKED, EventType.UNSUBSCRIBED])
    made = Hit(
        id=chance.randbytes(16),
        type=kind,
        key=key,
        at_ms=int(datetime.now(UTC).timestamp() * 1000),
        link=0 if kind is EventType.CLICKED else -1,
        url="https://example.com/?a=1&b=2" if kind is EventType.CLICKED else "",
        method="POST" if kind is EventType.UNSUBSCRIBED else "HEAD" if machine else "GET",
        network="192.0.2.0/24",
        user_agent=BROWSER,
    )
    return encode_hit(made)


async def act(client: Client, campaign: str, action: str) -> dict[str, Any]:
    """Act on a campaign and return the answer."""
    answer = await client.post(f"/api/campaigns/{campaign}/{action}", headers=BEARER)
    assert answer.status == 200, await answer.text()
    body: dict[str, Any] = await answer.json()
    return body


async def truth(pool: Pool, campaign: str) -> dict[str, int]:
    """Return what a campaign's rows say."""
    row = await pool.fetchrow(TRUTH, campaign)
    assert row is not None
    return dict(row)


class Traffic:
    """Mail in and hits in, by chance."""

    def __init__(self, seed: int, relay: Relay, ledger: Ledger, pool: Pool) -> None:
        self._chance = random.Random(seed)  # noqa: S311 - a scenario, not a secret
        self._relay = relay
        self._recorder = Recorder(ledger, READER, ams=AmsSettings(url="https://ams.example.com/api"))
        self._pool = pool
        self._seen: list[bytes] = []

    async def mail(self, number: int) -> None:
        """Submit a message, sometimes a repeat of an earlier one, to some of a few people."""
        people = self._chance.sample([f"r{person}@example.net" for person in range(12)], self._chance.randint(1, 4))
        message_id = f"<m{self._chance.randint(0, number)}@mailer.example.com>"
        campaign = self._chance.choice((*CAMPAIGNS, None))
        await self._relay.pipeline.accept(submission(*people, message_id=message_id, campaign=campaign))

    async def hits(self) -> None:
        """Record a batch of hits, with copies in it and copies of earlier ones."""
        keys = [row["key"] for row in await self._pool.fetch("SELECT key FROM message")]
        if not keys:
            return
        chance = self._chance
        fresh = [hit(chance, chance.choice(keys), machine=chance.random() < 0.3) for _ in range(chance.randint(1, 8))]
        batch = [*fresh, *chance.choices([*self._seen, *fresh], k=3)]
        self._seen += fresh
        await self._recorder.record([(b"", raw) for raw in batch])


async def test_counts_equal_the_rows_at_every_pause_and_reconcile(
    database_url: str, pool: Pool, eventually: Eventually
) -> None:
    """Under mail, retries, hits, repeats and folding at once: no recount ever finds drift, and the sums are right."""
    chance = random.Random(20)  # noqa: S311 - a scenario, not a secret
    drifts: list[dict[str, int]] = []
    accepted = dict.fromkeys(CAMPAIGNS, 0)
    async with (
        relaying(database_url, Fickle(chance), SETTINGS) as relay,
        console(database_url) as client,
    ):
        traffic = Traffic(21, relay, relay.ledger, pool)

        async def audit() -> None:
            for campaign in CAMPAIGNS:
                listed = await client.get(f"/api/campaigns/{campaign}", headers=BEARER)
                if listed.status == 404:
                    continue
                count = (await listed.json())["accepted"]
                # A fold in between loses nothing and counts nothing twice: messages only come.
                assert count >= accepted[campaign]
                accepted[campaign] = count
                for action in ("pause", "sync-counts", "resume"):
                    answer = await act(client, campaign, action)
                    drifts.append(answer["drift"])

        stopping = asyncio.Event()
        queue = asyncio.create_task(relay.run_queue(stopping))
        async with repeating(audit), repeating(lambda: fold_counts(relay.ledger)), repeating(traffic.hits):
            for number in range(25):
                await asyncio.gather(*(traffic.mail(number) for _ in range(3)))

        async def settled() -> bool:
            await pool.execute("UPDATE delivery SET next_at = now() WHERE status = 'queued'")
            return not await pool.fetchval("SELECT count(*) FROM delivery WHERE status IN ('queued', 'sending')")

        await eventually(settled, timeout=30.0)
        stopping.set()
        await queue
        await audit()
        await fold_counts(relay.ledger)
        assert await pool.fetchval("SELECT count(*) FROM campaign_delta") == 0
        assert len(drifts) > 6
        assert [drift for drift in drifts if any(drift.values())] == []
        seen: set[str] = set()
        for campaign in CAMPAIGNS:
            answer = await (await client.get(f"/api/campaigns/{campaign}", headers=BEARER)).json()
            expected = await truth(pool, campaign)
            assert {counter: answer[counter] for counter in expected} == expected
            assert answer["accepted"] == sum(answer[state] for state in STATES)
            seen |= {counter for counter, value in expected.items() if value}
        # The scenario was worth something: every counter but that of an empty queue moved.
        assert seen == set(expected) - {"queued"}


async def test_drift_is_reported_put_right_once_and_counted(
    database_url: str, pool: Pool, eventually: Eventually
) -> None:
    """A spoilt counter is named with by how much, and right afterwards; three recounts correct it once."""
    rows = Rows(pool)
    campaign = await rows.campaign("42", counts={"accepted": 2, "sent": 7, "opens": 0, "ams_delivered": 5})
    ann = await rows.message(campaign=campaign)
    await rows.message("bob@example.net", campaign=campaign, status="failed")
    await rows.engagement(ann, opens=3, clicks=1, first_opened_at=datetime.now(UTC), first_clicked_at=datetime.now(UTC))
    before = REGISTRY.get_sample_value("outrider_count_drift") or 0.0
    async with console(database_url) as client:
        async with pool.acquire() as other, other.transaction():
            # Another recount is under way: these wait for it, and then for each other.
            await other.execute("SELECT pg_advisory_xact_lock(1869968500)")
            recounts = [asyncio.create_task(act(client, "42", "sync-counts")) for _ in range(3)]
            await eventually(lambda: pool.fetchval(WAITING, len(recounts)))
        answers = await asyncio.gather(*recounts)
        found = [answer["drift"] for answer in answers if any(answer["drift"].values())]
        assert [{counter: drift for counter, drift in one.items() if drift} for one in found] == [
            {"sent": 6, "failed": -1, "opens": -3, "clicks": -1, "unique_opens": -1, "unique_clicks": -1}
        ]
        after = await act(client, "42", "pause")
        assert (after["accepted"], after["sent"], after["failed"], after["opens"]) == (2, 1, 1, 3)
        assert not any(after["drift"].values())
        # What rows cannot tell is left as it was.
        assert after["ams"]["delivered"] == 5
    assert REGISTRY.get_sample_value("outrider_count_drift") == before + 13
