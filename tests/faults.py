"""Everything that may go wrong between a click and AMS: a seeded plan of faults, and how each is made.

A plan is a function of its seed alone. What is killed is started again by whoever keeps it, as an operator's supervisor
does; every other fault ends by itself after its time.
"""

import asyncio
import contextlib
import os
import random
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import BinaryIO

import msgspec
import pytest

from sidecar.standin_ams import Fault, StandinAms
from tests.proxy import Proxy
from tests.running import ENVIRONMENT, ROOT, arguments, descendants
from tests.stepped_clock import step

STORES = ("redis", "postgresql", "ams")
ROLES = ("tracker", "courier")

#: What may happen on the way to a store.
_ON_THE_WAY = ("cut", "stall", "delay", "clip", "refuse", "half-close at us", "half-close at it")
#: What AMS may answer.
_AMS = (Fault.HTML, Fault.BROKEN, Fault.ERROR, Fault.SILENT, Fault.ANSWER_LOST, Fault.OTHER_ID)
_SERVERS = {"postgresql": "postgres", "redis": "valkey-server"}

#: The longest that a fault lasts, in seconds: longer than a courier waits for AMS in these tests.
LONGEST = 0.9


class Planned(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that goes wrong."""

    what: str
    whom: str
    seconds: float

    def __str__(self) -> str:
        return f"{self.whom}: {self.what} for {self.seconds:.1f} s"


def plan(seed: int, rounds: int) -> list[tuple[Planned, ...]]:
    """Return what goes wrong in each round: one thing, in every third two at once."""
    chance = random.Random(seed)  # noqa: S311 - guards nothing
    return [tuple(_drawn(chance) for _ in range(2 if chance.random() < 1 / 3 else 1)) for _ in range(rounds)]


def _drawn(chance: random.Random) -> Planned:
    seconds = round(chance.uniform(0.2, LONGEST), 1)
    kind = chance.choice(["way", "way", "way", "killed", "killed", "frozen", "ams", "clock"])
    match kind:
        case "way":
            return Planned(what=chance.choice(_ON_THE_WAY), whom=chance.choice(STORES), seconds=seconds)
        case "killed":
            whom = chance.choice([*ROLES, *ROLES, "postgresql", "postgresql backend", "redis"])
            return Planned(what="killed", whom=whom, seconds=0.2)
        case "frozen":
            return Planned(what="frozen", whom=chance.choice([*ROLES, *_SERVERS]), seconds=seconds)
        case "ams":
            return Planned(what=chance.choice(_AMS), whom="ams itself", seconds=seconds)
        case _:
            hours = chance.choice([-72, -1, -0.02, 0.02, 1, 72])
            return Planned(what=f"{hours:+g} h", whom=f"clock of the {chance.choice(ROLES)}", seconds=seconds)


class Role:
    """One role in a process of its own, started again whenever it ends. *before* are words that stand before it."""

    def __init__(self, name: str, settings: Mapping[str, str], directory: Path, *, before: Sequence[str] = ()) -> None:
        self.name = name
        self._before = before
        self.clock = directory / f"{name}.clock"
        #: What it said on standard error, over every start.
        self.log = directory / f"{name}.log"
        self._words = [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]
        self._process: asyncio.subprocess.Process | None = None

    @property
    def pid(self) -> int | None:
        """Its process, while it runs."""
        return self._process.pid if self._process is not None and self._process.returncode is None else None

    @asynccontextmanager
    async def kept(self) -> AsyncIterator[None]:
        """Keep it running for the time of the block; at the end it is told to stop, and does."""
        step(self.clock, 0)
        with self.log.open("ab") as log:
            await self._start(log)
            keeping = asyncio.create_task(self._keep(log))
            try:
                yield
            finally:
                keeping.cancel()
                await asyncio.wait([keeping])
                await self._stop()

    async def _start(self, log: BinaryIO) -> None:
        program = str(ROOT / "tests" / "stepped_clock.py")
        self._process = await asyncio.create_subprocess_exec(
            *(*self._before, sys.executable, program, str(self.clock), self.name, *self._words),
            cwd="/",
            env=ENVIRONMENT,
            stderr=log,
        )

    async def _keep(self, log: BinaryIO) -> None:
        while True:
            assert self._process is not None
            await self._process.wait()
            await self._start(log)

    async def _stop(self) -> None:
        if self._process is None or self._process.returncode is not None:
            return
        self._process.send_signal(signal.SIGCONT)
        self._process.terminate()
        async with asyncio.timeout(40):
            assert await self._process.wait() == 0, self.log.read_text(errors="replace")[-2000:]


class Faults:
    """Makes what is planned. *servers* says whether PostgreSQL and Redis are our own, so that they may be killed."""

    def __init__(self, *, ways: Mapping[str, Proxy], roles: Mapping[str, Role], ams: StandinAms, servers: bool) -> None:
        self._ways = ways
        self._roles = roles
        self._ams = ams
        self._servers = servers
        #: How many processes were killed, by what they are.
        self.kills: dict[str, int] = {}

    async def make(self, planned: Planned) -> None:
        """Make one thing go wrong, wait, and put it right."""
        if planned.what in _ON_THE_WAY:
            await self._on_the_way(self._ways[planned.whom], planned)
        elif planned.what == "killed":
            self._kill(planned.whom)
            await asyncio.sleep(planned.seconds)
        elif planned.what == "frozen":
            with self._frozen(planned.whom):
                await asyncio.sleep(planned.seconds)
        elif planned.whom == "ams itself":
            self._ams.fault = Fault(planned.what)
            await asyncio.sleep(planned.seconds)
            self._ams.fault = Fault.NONE
        else:
            clock = self._roles[planned.whom.rpartition(" ")[2]].clock
            step(clock, float(planned.what.removesuffix(" h")) * 3600)
            await asyncio.sleep(planned.seconds)
            step(clock, 0)

    async def _on_the_way(self, way: Proxy, planned: Planned) -> None:
        made: Mapping[str, Callable[[], Awaitable[None] | None]] = {
            "cut": way.cut,
            "stall": way.stall,
            "delay": lambda: way.delay(0.03),
            "clip": lambda: way.clip(100),
            "refuse": way.shut,
            "half-close at us": lambda: way.half_close("client"),
            "half-close at it": lambda: way.half_close("server"),
        }
        waiting = made[planned.what]()
        if waiting is not None:
            await waiting
        await asyncio.sleep(planned.seconds)
        await way.heal()

    def _kill(self, whom: str) -> None:
        pids = self._pids(whom)
        self.kills[whom] = self.kills.get(whom, 0) + bool(pids)
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    @contextlib.contextmanager
    def _frozen(self, whom: str) -> Iterator[None]:
        pids = self._pids(whom)
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGCONT)

    def _pids(self, whom: str) -> list[int]:
        """Return what runs of a role or a server; nothing of one that is just coming back, or is not ours."""
        if whom in self._roles:
            pid = self._roles[whom].pid
            return [] if pid is None else [pid]
        if not self._servers:
            return []
        name, _, part = whom.partition(" ")
        first = next((pid for pid in sorted(descendants(os.getpid())) if _program(pid) == _SERVERS[name]), None)
        if first is None:
            return []
        below = sorted(descendants(first))
        # One backend that is killed makes PostgreSQL end all the others, and recover by itself.
        return below[-1:] if part else [first, *below]


def _program(pid: int) -> str:
    return Path(next(iter(arguments(pid)), "")).name


async def small_disk(directory: Path, size: str) -> list[str]:
    """Return the words that run a command with a disk of *size* at *directory*, which nobody else sees.

    Skips the test where such a mount is not permitted.
    """
    mount = f'mount -t tmpfs -o size={size},mode=0700 tmpfs "{directory}" && exec "$@"'
    for apart in (["unshare", "--mount"], ["unshare", "--user", "--map-root-user", "--mount"]):
        words = [*apart, "sh", "-c", mount, "sh"]
        with contextlib.suppress(FileNotFoundError):
            tried = await asyncio.create_subprocess_exec(
                *words, "true", stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL
            )
            if await tried.wait() == 0:
                return words
    pytest.skip("mounting a small tmpfs is not permitted here")
