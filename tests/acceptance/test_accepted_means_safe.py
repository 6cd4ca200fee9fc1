"""Promise 1: what was answered 250 is sent, and what was answered to a browser is recorded, whatever is killed.

The load runs against a real Outrider while it, or one of its processes, is killed with SIGKILL. Afterwards every
message that was answered 250 must be in the ledger as sent and among the captured files, and every answered click must
be exactly one event.
"""

import asyncio
import contextlib
import os
import random
import signal
from collections.abc import Callable

import aiohttp
import aiosmtplib
import pytest
from yarl import URL

from injector.tokens import Keyring, Purpose
from ledger.ids import key_bytes
from tests.conftest import Eventually
from tests.running import Outrider, descendants, is_running, short_directory

ROUNDS = pytest.mark.parametrize("rounds", [2, pytest.param(15, marks=[pytest.mark.soak, pytest.mark.timeout(1200)])])


_CHANCE = random.SystemRandom()


class Load:
    """Mailers and browsers that write down what they were answered."""

    def more_than(self, accepted: int, clicked: int) -> Callable[[], bool]:
        """Return the condition that so many more were answered than until now."""
        wanted = len(self.accepted) + accepted, len(self.clicked) + clicked
        return lambda: len(self.accepted) > wanted[0] and len(self.clicked) > wanted[1]

    def __init__(self, target: Outrider) -> None:
        self._target = target
        self.accepted: list[str] = []
        self.clicked: list[str] = []
        self._number = 0

    async def run(self, stopping: asyncio.Event) -> None:
        await asyncio.gather(*(self._mailer(stopping) for _ in range(4)), *(self._browser(stopping) for _ in range(2)))

    async def _mailer(self, stopping: asyncio.Event) -> None:
        while not stopping.is_set():
            client = aiosmtplib.SMTP(hostname="127.0.0.1", port=self._target.smtp, timeout=20, start_tls=False)
            with contextlib.suppress(aiosmtplib.SMTPException, OSError):
                await client.connect()
                while not stopping.is_set():
                    await self._submit(client)
            client.close()
            await asyncio.sleep(0.02)

    async def _submit(self, client: aiosmtplib.SMTP) -> None:
        self._number += 1
        number = self._number
        content = (
            f"From: shop@example.com\r\nTo: ann@example.net\r\nSubject: {number}\r\nX-Id-Mail: 65\r\n"
            f"Message-ID: <load{number}@example.com>\r\nDate: Sun, 22 Nov 2026 10:00:00 +0000\r\n"
            "MIME-Version: 1.0\r\nContent-Type: text/html\r\n\r\n"
            '<html><body><a href="https://example.com/">x</a></body></html>\r\n'
        )
        _, text = await client.sendmail("shop@example.com", [f"ann{number}@example.net"], content)
        self.accepted.append(text.rsplit(maxsplit=1)[-1])

    async def _browser(self, stopping: asyncio.Event) -> None:
        keyring = Keyring([(self._target.data_dir / "signing.key").read_bytes().strip()])
        timeout = aiohttp.ClientTimeout(total=5)
        async with aiohttp.ClientSession(timeout=timeout) as session:
            while not stopping.is_set():
                if not self.accepted:
                    await asyncio.sleep(0.02)
                    continue
                self._number += 1
                url = f"https://example.com/click/{self._number}"
                token = keyring.mint(Purpose.CLICK, key_bytes(_CHANCE.choice(self.accepted)), 0, url)
                address = URL(f"http://127.0.0.1:{self._target.http}/track/c/{token}", encoded=True)
                try:
                    async with session.get(address, allow_redirects=False) as answer:
                        if answer.status == 302:
                            self.clicked.append(url)
                except (aiohttp.ClientError, OSError, TimeoutError):
                    await asyncio.sleep(0.02)


def _none_of(pids: set[int]) -> Callable[[], bool]:
    return lambda: not any(map(is_running, pids))


async def _lost(target: Outrider, load: Load) -> dict[str, list[str]]:
    """Return what was answered and is not (yet) kept, by where it is missing; nothing when all is accounted for."""
    async with target.ledger() as ledger, ledger.session() as session:
        rows = await session._connection.fetch(
            "SELECT m.key, d.status || ' ' || coalesce(d.reply, '') AS outcome"
            " FROM message m JOIN delivery d ON d.message = m.id WHERE m.key = ANY($1::bytea[])",
            [key_bytes(key) for key in load.accepted],
        )
        clicks = await session._connection.fetch(
            "SELECT url, count(*) AS n FROM event WHERE url IS NOT NULL GROUP BY url"
        )
    captured = {path.stem for path in (target.data_dir / "capture").glob("*.eml")}
    counted = {row["url"]: row["n"] for row in clicks}
    assert all(count == 1 for count in counted.values()), "a click was recorded twice"
    assert len({row["key"] for row in rows}) == len(rows), "a message stands in the ledger twice"
    known = {key_bytes(key): key for key in load.accepted}
    outcomes = {known[bytes(row["key"])]: row["outcome"] for row in rows}
    lost = {
        "not in the ledger": [key for key in load.accepted if key not in outcomes],
        "not sent": [f"{key}: {said}" for key, said in outcomes.items() if not said.startswith("sent ")],
        "not captured": [key for key in load.accepted if key not in captured],
        "not recorded": [url for url in load.clicked if url not in counted],
    }
    return {where: what for where, what in lost.items() if what}


async def _all_accounted_for(target: Outrider, load: Load, eventually: Eventually) -> None:
    """Wait until every answer is kept: messages sent and captured, clicks recorded once each."""

    async def nothing_lost() -> bool:
        return not await _lost(target, load)

    # What a killed process held is taken over once its lease has run out.
    with contextlib.suppress(pytest.fail.Exception):
        await eventually(nothing_lost, timeout=100)
    assert await _lost(target, load) == {}


@pytest.mark.serial
@pytest.mark.timeout(240)
@ROUNDS
async def test_kill_of_the_command_loses_nothing_and_leaves_nothing(
    rounds: int, free_port: Callable[[], int], eventually: Eventually
) -> None:
    """With kill -9 of `run`, under load, again and again: no process stays, and the next start has everything."""
    with short_directory() as data_dir:
        target = Outrider(data_dir, free_port, relay__retry_first="0.2")
        load = Load(target)
        for _ in range(rounds):
            await target.start()
            enough = load.more_than(40, 20)
            stopping = asyncio.Event()
            running = asyncio.create_task(load.run(stopping))
            await eventually(enough, timeout=60)
            below = await target.kill()
            stopping.set()
            await running
            await eventually(_none_of(below), timeout=10)
        await target.start()
        try:
            await _all_accounted_for(target, load, eventually)
        finally:
            assert await target.stop() == 0


@pytest.mark.serial
@pytest.mark.timeout(240)
@ROUNDS
async def test_kill_of_any_process_loses_nothing(
    rounds: int, free_port: Callable[[], int], eventually: Eventually
) -> None:
    """With kill -9 of whichever process, a server or a role: it comes back by itself, and nothing was lost."""
    with short_directory() as data_dir:
        target = Outrider(data_dir, free_port, relay__retry_first="0.2")
        load = Load(target)
        await target.start()
        stopping = asyncio.Event()
        running = asyncio.create_task(load.run(stopping))
        try:
            for _ in range(rounds * 2):
                await eventually(load.more_than(20, 10), timeout=60)
                victim = _CHANCE.choice(sorted(descendants(target.pid)))
                with contextlib.suppress(ProcessLookupError):
                    os.kill(victim, signal.SIGKILL)
            stopping.set()
            await running
            await _all_accounted_for(target, load, eventually)
        finally:
            stopping.set()
            await running
            assert await target.stop() == 0
