"""Promise 1, at the upstream: whatever is killed while mail flows, what was answered 250 arrives there, under one key.

Mailers push mail through a real Outrider into an upstream that keeps what it accepted, defers some and hangs up on a
few, while relays, PostgreSQL and Valkey are killed with SIGKILL. A message may come twice only where a relay was killed
between the upstream's 250 and the moment in which the row could know of it.
"""

import asyncio
import contextlib
import functools
import itertools
import os
import random
import signal
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterator
from email import message_from_bytes
from email.policy import default

import aiohttp
import aiosmtplib
import msgspec
import pytest

from injector.tokens import Keyring, Purpose
from ledger.ids import key_bytes
from tests.commands import command
from tests.conftest import Eventually
from tests.running import Outrider, short_directory
from tests.sink import Sink

#: One round kills one of these; five rounds kill them all.
VICTIMS = ("relay", "relay", "postgresql", "postgresql", "redis")
ROUNDS = pytest.mark.parametrize(
    "rounds",
    [
        pytest.param(5, marks=pytest.mark.timeout(240)),
        pytest.param(100, marks=[pytest.mark.soak, pytest.mark.timeout(2400)]),
    ],
)

#: Seconds from an upstream's 250 to the commit that says so on a busy machine, and from one try of it to the next.
COMMIT, AGAIN = 2.0, 5.0
#: Seconds until a dead relay's work is with another one, and done.
RECOVERY = 120.0

_CHANCE = random.SystemRandom()


class Copy(msgspec.Struct, kw_only=True):
    """A message that the upstream was offered: when it heard of it, and when it answered 250."""

    heard: float
    answered: float | None = None


class Kill(msgspec.Struct, kw_only=True):
    """A kill, and until when what was killed was missed."""

    victim: str
    at: float
    until: float = float("inf")


class Upstream:
    """A sink that remembers when it heard of what, defers every seventh message once, and hangs up on a few."""

    def __init__(self) -> None:
        self.sink = Sink()
        self.sink.rcpt = self._rcpt
        self.sink.dot = self._dot
        self.copies: dict[str, list[Copy]] = defaultdict(list)
        self._open: dict[str, Copy] = {}
        self._tried: set[str] = set()

    def _rcpt(self, recipient: str) -> str:
        self._open[recipient] = Copy(heard=time.monotonic())
        return "250 2.1.5 Ok"

    def _dot(self, recipient: str) -> str:
        number = int(recipient.partition("@")[0].partition(".")[2])
        if recipient not in self._tried:
            self._tried.add(recipient)
            if number % 7 == 0:
                return "450 4.2.0 Try again"
            if number % 31 == 0:
                return ""
        copy = self._open[recipient]
        copy.answered = time.monotonic()
        self.copies[recipient].append(copy)
        return f"250 2.0.0 Ok: queued as {number}N{len(self.copies[recipient])}"

    def message_ids(self) -> dict[str, set[str]]:
        """Return the Message-IDs under which each recipient's copies came."""
        found: dict[str, set[str]] = defaultdict(set)
        for kept in self.sink.kept:
            found[kept.recipient].add(str(message_from_bytes(kept.content, policy=default)["Message-ID"]))
        return found


class Load:
    """Mailers and people, who write down what they were answered."""

    def __init__(self, target: Outrider) -> None:
        self._target = target
        self._numbers: Iterator[int] = itertools.count(1)
        #: The recipients of what was answered 250, with the key that it named.
        self.accepted: dict[tuple[str, ...], str] = {}
        #: What was submitted and never answered.
        self.unanswered: list[int] = []

    def has_got_on(self, by: int) -> Callable[[], bool]:
        """Return the condition that so many more were accepted than until now."""
        enough = len(self.accepted) + by
        return lambda: len(self.accepted) >= enough

    async def run(self, stopping: asyncio.Event) -> None:
        await asyncio.gather(*(self._mailer(stopping) for _ in range(5)), self._people(stopping))

    async def _mailer(self, stopping: asyncio.Event) -> None:
        while not stopping.is_set():
            with contextlib.suppress(aiosmtplib.SMTPException, OSError):
                async with self._session() as client:
                    while not stopping.is_set():
                        number = next(self._numbers)
                        self.unanswered.append(number)
                        await self._submit(client, number)
            await asyncio.sleep(0.02)

    async def try_again(self) -> bool:
        """Submit what was never answered, as a mailer does; tell whether all of it is answered now."""
        with contextlib.suppress(aiosmtplib.SMTPException, OSError):
            async with self._session() as client:
                for number in list(self.unanswered):
                    await self._submit(client, number)
        return not self.unanswered

    @contextlib.asynccontextmanager
    async def _session(self) -> AsyncIterator[aiosmtplib.SMTP]:
        client = aiosmtplib.SMTP(hostname="127.0.0.1", port=self._target.smtp, timeout=30, start_tls=False)
        await client.connect()
        try:
            yield client
        finally:
            client.close()

    async def _submit(self, client: aiosmtplib.SMTP, number: int) -> None:
        recipients = [f"{who}.{number}@example.net" for who in ("ann", "bob", "cyd")[: 1 + 2 * (number % 5 == 0)]]
        campaign = f"X-Id-Mail: {70 + number % 3}\r\n" if number % 3 else ""
        content = (
            f"From: shop@example.com\r\nTo: everybody@example.net\r\nSubject: {number}\r\n{campaign}"
            f"Message-ID: <load{number}@example.com>\r\nDate: Sun, 22 Nov 2026 10:00:00 +0000\r\n"
            "MIME-Version: 1.0\r\nContent-Type: text/html\r\n\r\n"
            '<html><body><a href="https://example.com/">x</a></body></html>\r\n'
        )
        refused, text = await client.sendmail("shop@example.com", recipients, content)
        assert not refused
        self.unanswered.remove(number)
        self.accepted[tuple(recipients)] = text.rsplit(maxsplit=1)[-1]

    async def _people(self, stopping: asyncio.Event) -> None:
        """Open what was sent to one person, so that counts move from both sides."""
        keyring = Keyring([(self._target.data_dir / "signing.key").read_bytes().strip()])
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=5)) as session:
            while not stopping.is_set():
                alone = [key for recipients, key in self.accepted.items() if len(recipients) == 1]
                if alone:
                    token = keyring.mint(Purpose.OPEN, key_bytes(_CHANCE.choice(alone)))
                    with contextlib.suppress(aiohttp.ClientError, OSError, TimeoutError):
                        async with session.get(f"http://127.0.0.1:{self._target.http}/track/o/{token}") as answer:
                            await answer.read()
                await asyncio.sleep(0.02)


def _running(target: Outrider, name: str) -> list[int]:
    try:
        return target.processes(name)
    except AssertionError:
        # It was killed, and is not back yet.
        return []


def _kill(target: Outrider, victim: str) -> Kill:
    """Kill one relay; of PostgreSQL and Valkey all that belongs to it, or its first process alone."""
    pids = target.processes(victim)
    if victim == "relay":
        pids = [_CHANCE.choice(pids)]
    elif _CHANCE.random() < 0.5:
        pids = pids[:1]
    kill = Kill(victim=victim, at=time.monotonic())
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return kill


def _excused(copy: Copy, until: float, kills: list[Kill]) -> bool:
    """Tell whether the row could not know of *copy* before *until*, when the next one was begun.

    A relay was killed before it could commit the verdict: at once, or while PostgreSQL was away, or away again.
    """
    assert copy.answered is not None
    committed = copy.answered + COMMIT
    for kill in kills:
        if kill.victim == "postgresql" and kill.at <= committed:
            committed = max(committed, kill.until + AGAIN + COMMIT)
    return any(copy.heard <= kill.at <= min(committed, until) for kill in kills if kill.victim == "relay")


async def _lost(target: Outrider, load: Load, upstream: Upstream, kills: list[Kill]) -> dict[str, list[str]]:
    """Return what does not hold, by what it is; nothing when all is accounted for."""
    async with target.ledger() as ledger, ledger.session() as session:
        rows = await session._connection.fetch(
            "SELECT convert_from(m.recipient, 'utf8') AS recipient, d.status || ' ' || coalesce(d.reply, '') AS said,"
            " d.doubts FROM message m JOIN delivery d ON d.message = m.id"
        )
    said = {row["recipient"]: row["said"] for row in rows}
    doubts = {row["recipient"]: row["doubts"] for row in rows}
    accepted = [recipient for recipients in load.accepted for recipient in recipients]
    keys = {recipients[0]: key for recipients, key in load.accepted.items() if len(recipients) == 1}
    message_ids = upstream.message_ids()
    copies = [
        (recipient, *pair) for recipient, all_of in upstream.copies.items() for pair in itertools.pairwise(all_of)
    ]
    wrong = {
        "not answered": [str(number) for number in load.unanswered],
        "not in the ledger": [one for one in accepted if one not in said],
        "twice in the ledger": [] if len(said) == len(rows) else ["recipients have several rows"],
        "not sent": [f"{one}: {what}" for one, what in said.items() if not what.startswith("sent ")],
        "not at the upstream": [one for one in accepted if one not in upstream.copies],
        "under several Message-IDs": [f"{one}: {ids}" for one, ids in message_ids.items() if len(ids) != 1],
        "under another key": [
            f"{one}: {message_ids[one]}"
            for one, key in keys.items()
            if one in message_ids and message_ids[one] != {f"<{key}@example.com>"}
        ],
        "again without a kill": [
            f"{recipient}: heard {first.heard:.3f}, answered {first.answered}, again {again.heard:.3f}"
            for recipient, first, again in copies
            if not _excused(first, again.heard, kills)
        ],
        "again and not counted": [
            f"{one}: {len(all_of)} copies, {doubts.get(one)} doubts"
            for one, all_of in upstream.copies.items()
            if len(all_of) - 1 > doubts.get(one, 0)
        ],
    }
    return {what: which for what, which in wrong.items() if which}


async def _is_settled(target: Outrider) -> bool:
    async with target.ledger() as ledger, ledger.session() as session:
        return not await session._connection.fetchval(
            "SELECT count(*) FROM delivery WHERE status IN ('accepted', 'queued', 'sending')"
        )


async def _drift(target: Outrider) -> dict[str, dict[str, int]]:
    """Return what a recount has to correct, by campaign."""
    ended = await command("sync-counts", "--json", "--data-dir", str(target.data_dir))
    assert ended.code == 0, ended.err
    campaigns = msgspec.json.decode(ended.out)["campaigns"]
    assert {one["campaign_id"] for one in campaigns} == {"71", "72"}
    found = {one["campaign_id"]: {name: off for name, off in one["drift"].items() if off} for one in campaigns}
    return {campaign: drift for campaign, drift in found.items() if drift}


@pytest.mark.serial
@ROUNDS
async def test_kill_of_relays_and_servers_loses_nothing_and_repeats_only_what_was_in_flight(
    rounds: int, free_port: Callable[[], int], eventually: Eventually
) -> None:
    """Every 250 arrives, copies share a key, each has a kill and a doubt to explain it, and no count has drifted."""
    upstream = Upstream()
    victims = [one for _ in range(rounds // len(VICTIMS)) for one in _CHANCE.sample(VICTIMS, len(VICTIMS))]
    kills: list[Kill] = []
    with short_directory() as data_dir:
        async with upstream.sink.listening() as sink:
            target = Outrider(
                data_dir,
                free_port,
                relay__upstream=f"smtp://127.0.0.1:{sink.port}?starttls=off",
                relay__workers="2",
                relay__retry_first="0.2",
            )
            load = Load(target)
            await target.start()
            stopping = asyncio.Event()
            running = asyncio.create_task(load.run(stopping))
            try:
                for victim in victims:
                    await eventually(load.has_got_on(_CHANCE.randint(15, 40)), timeout=RECOVERY)
                    if kills:
                        kills[-1].until = time.monotonic()
                    await eventually(functools.partial(_running, target, victim), timeout=RECOVERY)
                    kills.append(_kill(target, victim))
                await eventually(load.has_got_on(15), timeout=RECOVERY)
                kills[-1].until = time.monotonic()
                stopping.set()
                await running
                await eventually(load.try_again, timeout=RECOVERY)
                with contextlib.suppress(pytest.fail.Exception):
                    await eventually(lambda: _is_settled(target), timeout=RECOVERY)
                assert await _lost(target, load, upstream, kills) == {}
                assert await _drift(target) == {}
            finally:
                stopping.set()
                await running
                assert await target.stop() == 0
