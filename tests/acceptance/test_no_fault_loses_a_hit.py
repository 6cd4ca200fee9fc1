"""Promise 7, under fire: whatever goes wrong between a click and AMS, AMS hears exactly what was answered.

A real tracker and a real courier work under load while the ways to Redis, PostgreSQL and AMS are cut, stalled, slowed,
half-closed and clipped, while processes and servers are killed with SIGKILL or hang, and while clocks jump. At the end
the set of (recipient, url) at the stand-in AMS is that of the answered hits: none is missing and none invented.
"""

import asyncio
import itertools
import os
import random
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import msgspec
import pytest
from redis.exceptions import RedisError
from yarl import URL

from injector.tokens import Keyring, Purpose
from ledger.numbers import account, fold_numbers
from ledger.store import UNAVAILABLE, open_ledger
from ledger.stream import GROUP, STREAM, connect
from sidecar.standin_ams import Fault, StandinAms
from tests.conftest import Eventually
from tests.faults import Faults, Planned, Role, plan
from tests.mailings import Seeded, connected, make_campaign, seed
from tests.proxy import Address, Proxy, postgresql_at, postgresql_through, proxied, redis_at, redis_through

pytestmark = pytest.mark.serial

ROUNDS = pytest.mark.parametrize(
    "rounds",
    [
        pytest.param(10, marks=pytest.mark.timeout(240)),
        pytest.param(200, marks=[pytest.mark.soak, pytest.mark.timeout(3600)]),
    ],
)
SIGNING, IDENTITY = "a signing key made up for faults", "an identity key made up for faults"
ACTION = "Unsubscribe_Click:DC,AE{|;"
#: Items that one call may hold: so many may be told twice by one crash.
BATCH = 20
PER_ROUND = 60
#: Seconds in which everything must be told once nothing is wrong any more.
RECOVERY = 120.0


class Load:
    """People who come back until they are answered, and write down what they were answered."""

    def __init__(self, port: int, messages: list[Seeded]) -> None:
        self._base = f"http://127.0.0.1:{port}"
        self._messages = messages
        self._numbers = itertools.count()
        self._keyring = Keyring([SIGNING.encode()])
        self.answered: set[tuple[str, str]] = set()
        #: Requests that got no answer, or were told that they could not be kept: each may have been kept all the same.
        self.unanswered = 0

    async def run(self, stopping: asyncio.Event) -> None:
        # A connection each: on one that is used again the library would ask twice, and tell nobody.
        connector = aiohttp.TCPConnector(force_close=True)
        timeout = aiohttp.ClientTimeout(total=5)
        async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
            session._retry_connection = False
            await asyncio.gather(*(self._person(session, stopping) for _ in range(4)))

    def more_than(self, hits: int) -> Callable[[], bool]:
        """Return the condition that so many more were answered than until now."""
        enough = len(self.answered) + hits
        return lambda: len(self.answered) >= enough

    async def _person(self, session: aiohttp.ClientSession, stopping: asyncio.Event) -> None:
        while not stopping.is_set():
            number = next(self._numbers)
            message = self._messages[number % len(self._messages)]
            # Each recipient opens and leaves once: a second time would hide that the first was lost.
            told, ask = self._visit(message, number)
            while not await self._answers(session, *ask):  # noqa: ASYNC110 - who comes back later waits for nothing
                await asyncio.sleep(0.05)
            self.answered.add((message.recipient, told))
            await asyncio.sleep(0.02)

    def _visit(self, message: Seeded, number: int) -> tuple[str, tuple[str, str]]:
        kind = number % 8 if number < len(self._messages) else 7
        if kind == 0:
            return "open_trace", ("GET", f"/track/o/{self._keyring.mint(Purpose.OPEN, message.key)}")
        if kind == 1:
            return ACTION, ("POST", f"/unsubscribe/{self._keyring.mint(Purpose.UNSUBSCRIBE, message.key)}")
        url = f"https://shop.example.com/{number}?a=1&b=2"
        return url, ("GET", f"/track/c/{self._keyring.mint(Purpose.CLICK, message.key, 0, url)}")

    async def _answers(self, session: aiohttp.ClientSession, method: str, path: str) -> bool:
        body = {"List-Unsubscribe": "One-Click"} if method == "POST" else None
        address = URL(self._base + path, encoded=True)
        try:
            async with session.request(method, address, data=body, allow_redirects=False) as answer:
                await answer.read()
                if answer.status in {200, 302}:
                    return True
        except aiohttp.ClientConnectorError:
            # Nobody was there, so nobody kept it.
            return False
        except (aiohttp.ClientError, OSError, TimeoutError):
            pass
        self.unanswered += 1
        return False


class Scene(msgspec.Struct, frozen=True, kw_only=True):
    """Everything between a click and AMS."""

    faults: Faults
    ams: StandinAms
    load: Load
    ways: dict[str, Proxy]
    database_url: str
    redis_url: str

    def told(self) -> Counter[tuple[str, str]]:
        """Return what AMS took, and how often."""
        return Counter((item.email, item.url) for item in self.ams.received)


@asynccontextmanager
async def scene(
    database_url: str, redis_url: str, free_port: Callable[[], int], directory: Path, recipients: int
) -> AsyncIterator[Scene]:
    """Put a tracker and a courier behind proxies, with so many messages to visit."""
    async with connected(database_url) as look:
        # The servers of the tests answer before a commit is written, and a kill would lose what an operator's keeps.
        await look.execute(f'ALTER DATABASE "{urlsplit(database_url).path.strip("/")}" SET synchronous_commit = on')
        messages = await seed(look, await make_campaign(look), *(f"r{n}@example.net" for n in range(recipients)))
    port = free_port()
    async with AsyncExitStack() as stack:
        ams = await stack.enter_async_context(StandinAms(api_key="K-1"))
        # The courier hears nothing of what becomes of a call that it gave up.
        ways = {
            name: await stack.enter_async_context(proxied(target))
            for name, target in {
                "redis": redis_at(redis_url),
                "postgresql": postgresql_at(database_url),
                "ams": Address(port=urlsplit(ams.url).port or 0),
            }.items()
        }
        common = {
            "redis_url": redis_through(redis_url, ways["redis"]),
            "database_url": postgresql_through(database_url, ways["postgresql"]),
            "keys.signing": SIGNING,
            "keys.identity": IDENTITY,
        }
        roles = {
            "tracker": Role(
                "tracker",
                common | {"data_dir": str(directory / "tracker"), "tracker.listen": f"127.0.0.1:{port}"},
                directory,
            ),
            "courier": Role(
                "courier",
                common
                | {
                    "data_dir": str(directory / "courier"),
                    "courier.batch": str(BATCH),
                    "ams.url": f"http://127.0.0.1:{ways['ams'].port}/api/v1",
                    "ams.api_key": "K-1",
                    "ams.interval": "0.05",
                    "ams.timeout": "0.5",
                    "ams.max_batch": str(BATCH),
                },
                directory,
            ),
        }
        for role in roles.values():
            await stack.enter_async_context(role.kept())
        yield Scene(
            faults=Faults(ways=ways, roles=roles, ams=ams, servers="OUTRIDER_TEST_DATABASE_URL" not in os.environ),
            ams=ams,
            load=Load(port, messages),
            ways=ways,
            database_url=database_url,
            redis_url=redis_url,
        )


async def _hasten(one: Scene) -> None:
    """Give what dead couriers hold to the living at once: the waiting for it is tested elsewhere."""
    try:
        async with connected(one.database_url) as look:
            await look.execute("UPDATE lease SET lease_until = now() - interval '1 second' WHERE name LIKE 'ams:%'")
            await look.execute("UPDATE ams_mailing SET next_at = now()")
    except UNAVAILABLE:
        return
    redis = connect(one.redis_url)
    try:
        # The library types every protocol's shape at once.
        pending: Any = await redis.xpending(STREAM, GROUP)
        for consumer in pending["consumers"]:
            held: Any = await redis.xpending_range(STREAM, GROUP, "-", "+", 1000, consumer["name"])
            ids = [entry["message_id"] for entry in held]
            await redis.xclaim(STREAM, GROUP, consumer["name"], 0, ids, idle=120_000, justid=True)
    except (RedisError, OSError):
        return
    finally:
        await redis.aclose()


async def _hastening(one: Scene) -> None:
    while True:
        await asyncio.sleep(1)
        await _hasten(one)


def _doubtful(one: Scene, faults: Sequence[Planned], first: int) -> int:
    """Return how many items AMS took in calls of which the courier or the ledger may not have heard.

    Those are the calls around a fault: from the one before it, which was under way when it began.
    """
    if not any(planned.whom.partition(" ")[0] in {"ams", "courier", "postgresql"} for planned in faults):
        return 0
    taken = {Fault.NONE, Fault.ANSWER_LOST}
    return sum(call.items for call in one.ams.calls[max(0, first - 1) :] if call.fault in taken)


async def _settled(one: Scene) -> bool:
    """Say whether all that was kept is recorded and told."""
    try:
        async with connected(one.database_url) as look:
            if await look.fetchval("SELECT count(*) FROM outbox"):
                return False
        redis = connect(one.redis_url)
        try:
            group: Any = (await redis.xinfo_groups(STREAM))[0]
            return not group["pending"] and not group["lag"] and one.load.answered <= one.told().keys()
        finally:
            await redis.aclose()
    except (*UNAVAILABLE, RedisError):
        return False


@ROUNDS
async def test_ams_hears_what_was_answered_whatever_goes_wrong(
    rounds: int,
    database_url: str,
    redis_url: str,
    free_port: Callable[[], int],
    tmp_path: Path,
    eventually: Eventually,
    record_property: Callable[[str, object], None],
) -> None:
    """Seeded rounds of faults under load; OUTRIDER_TEST_SEED draws those of an earlier run again."""
    drawn = int(os.environ.get("OUTRIDER_TEST_SEED") or random.SystemRandom().randrange(2**32))
    sys.stdout.write(f"OUTRIDER_TEST_SEED={drawn}\n")
    doubtful = 0
    async with scene(database_url, redis_url, free_port, tmp_path, rounds * PER_ROUND) as one:
        stopping = asyncio.Event()
        running = [asyncio.create_task(one.load.run(stopping)), asyncio.create_task(_hastening(one))]
        try:
            await eventually(one.told, timeout=60)
            for number, faults in enumerate(plan(drawn, rounds), 1):
                sys.stdout.write(f"{number}. {' · '.join(map(str, faults))}\n")
                enough, calls = one.load.more_than(PER_ROUND // 3), len(one.ams.calls)
                await asyncio.gather(*map(one.faults.make, faults))
                await eventually(enough, timeout=60)
                doubtful += _doubtful(one, faults, calls)
            stopping.set()
            await running[0]
            await eventually(lambda: _settled(one), timeout=RECOVERY)
        finally:
            stopping.set()
            for task in running:
                task.cancel()
            await asyncio.wait(running)
        told, load = one.told(), one.load
        assert one.ams.fault is Fault.NONE
        assert set(told) == load.answered
        repeats = told.total() - len(told)
        facts = {"answered": len(told), "repeats": repeats, "unanswered": load.unanswered, "doubtful": doubtful}
        for name, value in facts.items():
            record_property(name, value)
        sys.stdout.write(f"{facts}, killed: {one.faults.kills}\n")
        # Told again is what a person asked for again, and what stood in a call around a fault.
        assert repeats <= load.unanswered + doubtful
    async with open_ledger(database_url) as ledger:
        await fold_numbers(ledger, patience=0)
        numbers = await account(ledger)
    sys.stdout.write(f"{numbers}\n")
    assert len(told) <= numbers.recorded <= len(told) + load.unanswered
    # What a tracker had in hand when it was killed was never answered.
    assert numbers.missing + numbers.lost <= load.unanswered
