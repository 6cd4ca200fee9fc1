"""Promise 7, beside AMS: a webhook hears of every event, and listmonk of each bounce once.

Whatever is killed, and however a receiver fails: nothing is lost, and what listmonk may have counted is not told again.
"""

from collections import Counter
from collections.abc import AsyncIterator, Callable
from typing import Any

import asyncpg
import pytest
import pytest_asyncio
from redis.asyncio import Redis

from courier.replay import replay_sink_parked
from courier.settings import ListmonkSettings, SinkSettings
from ledger.events import EventType, encode_hit
from ledger.ids import key_bytes
from ledger.store import open_ledger
from ledger.stream import FIELD, STREAM
from providers.notice import Bounce, Name, Notice, Step, What, encode_notice
from sidecar.standin_ams import StandinAms
from tests.conftest import Eventually
from tests.courier_process import Orders, courier, release_entries
from tests.mailings import NOON_MS, ams_settings, hit
from tests.receiver import SECRET, TAKEN, Listmonk, Receiver, Reply
from tests.rows import Pool, Row, Rows

CAMPAIGN = "1f3cbf60-30a5-4b53-9c8f-4c4e9b6a1b2c"
#: Messages of one round; each is clicked, and every other bounces.
SHARE = 20


@pytest_asyncio.fixture
async def pool(database_url: str) -> AsyncIterator[Pool]:
    """Return a look of the test's own."""
    async with asyncpg.create_pool(database_url, min_size=1, max_size=2) as opened:
        yield opened


def bounce(message: Row) -> bytes:
    """Return what a provider says of a message that came back."""
    return encode_notice(
        Notice(
            provider="ses",
            what=What.BOUNCED,
            dedupe=message.key,
            at_ms=NOON_MS,
            names=(Name(Step.TOKEN, message.key),),
            bounce=Bounce.HARD,
        )
    )


class Scene:
    """AMS, a webhook and listmonk, told by one courier after the other."""

    def __init__(self, pool: Pool, redis: Redis, receiver: Receiver, listmonk: Listmonk) -> None:
        self.pool = pool
        self._redis = redis
        self.receiver = receiver
        self.listmonk = listmonk
        self._rows = Rows(pool)
        self._campaign = 0
        self.messages: list[Row] = []

    async def happen(self) -> None:
        """Let people click what came, and mail come back."""
        # A campaign of both: AMS's by its number, listmonk's by its id.
        self._campaign = self._campaign or await self._rows.campaign(CAMPAIGN, ams_mailing=42)
        for number in range(SHARE):
            message = await self._rows.message(f"r{len(self.messages)}@example.net", campaign=self._campaign)
            subscriber = len(self.messages).to_bytes(16, "big")
            await self.pool.execute("UPDATE message SET subscriber = $1 WHERE id = $2", subscriber, message.id)
            self.messages.append(message)
            click = hit(key_bytes(message.key), EventType.CLICKED, url=f"https://example.com/{message.id}")
            raws = [encode_hit(click)] + ([bounce(message)] if number % 2 else [])
            for raw in raws:
                await self._redis.xadd(STREAM, {FIELD: raw})

    async def next_courier(self) -> None:
        """Let what a dead courier held go at once: the waiting is tested elsewhere."""
        await self.pool.execute("UPDATE lease SET lease_until = now() - interval '1 second'")
        await self.pool.execute("UPDATE ams_mailing SET next_at = now()")
        await self.pool.execute("UPDATE sink SET next_at = now()")
        await release_entries(self._redis)

    def asked_again(self) -> Callable[[], bool]:
        """Return the condition that each was asked twice more than by now."""
        hooks, bounces = self.receiver.calls, self.listmonk.calls
        return lambda: self.receiver.calls > hooks + 1 and self.listmonk.calls > bounces + 1

    async def everybody_has_heard(self) -> bool:
        """Whether every event is recorded, and nothing waits for anybody."""
        events = len(self.messages) * 3 // 2
        if await self.pool.fetchval("SELECT count(*) FROM event") < events:
            return False
        waiting = "SELECT (SELECT count(*) FROM outbox) + (SELECT count(*) FROM sink_item WHERE parked_at IS NULL)"
        return not await self.pool.fetchval(waiting)


def failing(reply: Reply) -> Any:
    """Return a receiver that takes its first request, and answers the others so."""
    seen: list[int] = []

    def judge(items: list[dict[str, Any]]) -> Reply:
        seen.append(len(items))
        return TAKEN if len(seen) == 1 else reply

    return judge


@pytest.mark.parametrize("rounds", [2, pytest.param(30, marks=[pytest.mark.soak, pytest.mark.timeout(900)])])
async def test_no_kill_and_no_fault_loses_an_event_or_tells_listmonk_twice(
    database_url: str, redis_url: str, pool: Pool, redis: Redis, eventually: Eventually, rounds: int
) -> None:
    """Kill -9 with requests out, again and again: all arrive, listmonk counts none twice, AMS is told as ever."""
    faults = [Reply(silent=True), Reply(lost=True), TAKEN, Reply(status=503), Reply(status=410), Reply(status=400)]
    async with StandinAms(api_key="K-1") as ams, Receiver() as receiver, Listmonk() as listmonk:
        orders = Orders(
            database_url=database_url,
            redis_url=redis_url,
            ams=ams_settings(url=ams.url),
            sinks={"crm": SinkSettings(url=receiver.url, secret=(SECRET,), max_batch=5, interval=0.05, timeout=1.0)},
            listmonk=ListmonkSettings(url=listmonk.base, user="outrider", token="T-1", interval=0.05, timeout=1.0),
        )
        scene = Scene(pool, redis, receiver, listmonk)
        for position in range(rounds):
            receiver.judge, listmonk.judge = (failing(faults[position % len(faults)]) for _ in range(2))
            await scene.happen()
            with courier(orders) as process:
                await eventually(scene.asked_again(), timeout=20)
                process.kill()
                process.wait(timeout=10)
            await scene.next_courier()
        receiver.judge = listmonk.judge = lambda _: TAKEN
        # A receiver that took one event and then refused each other alone has those set aside.
        async with open_ledger(database_url) as ledger:
            await replay_sink_parked(ledger, "crm")
        with courier(orders):
            await eventually(scene.everybody_has_heard, timeout=30)
        bounced = scene.messages[1::2]
        heard = Counter((event["key"], event["type"]) for event in receiver.events.values())
        assert heard == Counter(
            [(message.key, "clicked") for message in scene.messages] + [(message.key, "bounced") for message in bounced]
        )
        # A copy is what was out at a kill or behind a lost answer: a batch each.
        assert receiver.taken.total() - len(receiver.taken) <= 2 * 5 * rounds
        assert {(item.email, item.url) for item in ams.received} == {
            (f"r{number}@example.net", f"https://example.com/{message.id}")
            for number, message in enumerate(scene.messages)
        }
        posted = Counter(bounce["meta"]["message_id"] for bounce in listmonk.bounces)
        assert max(posted.values()) == 1
        doubtful = await pool.fetch(
            "SELECT m.message_id FROM sink_item i JOIN message m ON m.id = i.message WHERE i.reason LIKE 'in doubt: %'"
        )
        assert {*posted, *(row["message_id"] for row in doubtful)} == {message.message_id for message in bounced}
        # In doubt is at most what was out at each kill, and each answer that was lost before it.
        assert len(doubtful) <= 2 * rounds
