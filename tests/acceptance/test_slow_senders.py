"""Promise: many slow senders of large mail cost disk, not memory, and nobody else waits for them.

They all are under way at once in a real Outrider; beside them a fast mailer submits and people open mail. Everything of
theirs is measured while it lasts: the memory of the relay's processes, each small submission, each pixel.
"""

import asyncio
import shutil
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import msgspec
import pytest

from injector.tokens import Keyring, Purpose
from ledger.ids import key_bytes
from tests.playing import accepted, mail
from tests.running import ENVIRONMENT, ROOT, Outrider, short_directory
from tests.slow_mailers import Told

MEGABYTE = 1024 * 1024


class Scale(msgspec.Struct, frozen=True, kw_only=True):
    """How much is sent, and what it may cost."""

    senders: int
    #: Octets of each message.
    octets: int
    #: Seconds between two blocks of one sender.
    pause: float
    #: Octets of resident memory of all relay processes together.
    memory: int
    #: Octets of disk that it takes, with room for others.
    disk: int
    #: Seconds that a small submission may take, and the slowest pixel but one of a hundred.
    submission: float
    pixel: float


# The machine is busy with other tests in the short round: that everybody is answered is enough there. The long one
# allows three times the 50 ms of a pixel on an idle machine.
SMALL = Scale(
    senders=20, octets=4 * MEGABYTE, pause=0.2, memory=400 * MEGABYTE, disk=2**30, submission=30.0, pixel=30.0
)
FULL = Scale(
    senders=200, octets=25 * MEGABYTE, pause=1.2, memory=400 * MEGABYTE, disk=8 * 2**30, submission=2.0, pixel=0.15
)


def resident(pids: list[int]) -> int:
    """Return the octets of memory that processes hold, those of a dead one none."""
    octets = 0
    for pid in pids:
        try:
            status = Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace")
        except OSError:
            continue
        octets += sum(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmRSS:"))
    return octets


@asynccontextmanager
async def beside(work: Callable[[], Awaitable[float]], *, every: float) -> AsyncIterator[list[float]]:
    """Do *work* every so many seconds for the time of the block; yield what it returned."""
    seen: list[float] = []

    async def again() -> None:
        while not done.is_set():
            seen.append(await work())
            await asyncio.wait([waiting], timeout=every)

    done = asyncio.Event()
    waiting = asyncio.create_task(done.wait())
    task = asyncio.create_task(again())
    try:
        yield seen
    finally:
        done.set()
        await waiting
        await task


class Others:
    """A fast mailer, and people."""

    def __init__(self, target: Outrider, session: aiohttp.ClientSession) -> None:
        self._target = target
        self._session = session
        self._keyring = Keyring([(target.data_dir / "signing.key").read_bytes().strip()])
        self._key = ""
        self._number = 0

    async def submit(self) -> float:
        """Submit a small message; return the seconds that it took."""
        self._number += 1
        begun = time.monotonic()
        content = mail(f"small{self._number}@mailer.example.com")
        self._key = await accepted(self._target.smtp, content, f"small{self._number}@example.net")
        return time.monotonic() - begun

    async def look(self) -> float:
        """Ask for the pixel of the last small message; return the seconds that it took."""
        token = self._keyring.mint(Purpose.OPEN, key_bytes(self._key))
        begun = time.monotonic()
        async with self._session.get(f"http://127.0.0.1:{self._target.http}/track/o/{token}") as answer:
            assert (answer.status, len(await answer.read())) == (200, 43)
        return time.monotonic() - begun


@pytest.mark.serial
@pytest.mark.parametrize(
    "scale",
    [
        pytest.param(SMALL, id="20 of 4 MB", marks=pytest.mark.timeout(240)),
        pytest.param(FULL, id="200 of 25 MB", marks=[pytest.mark.soak, pytest.mark.timeout(1200)]),
    ],
)
async def test_slow_senders_cost_disk_and_nobody_waits_for_them(scale: Scale, free_port: Callable[[], int]) -> None:
    """All are answered 250 and sent; memory, small submissions and pixels stay within their bounds meanwhile."""
    with short_directory() as data_dir:
        if (free := shutil.disk_usage(data_dir).free) < scale.disk:
            pytest.skip(f"{free >> 20} MB of disk are free, {scale.disk >> 20} are needed to hold the large mail")
        target = Outrider(data_dir, free_port)
        words = [str(target.smtp), str(scale.senders), str(scale.octets), str(scale.pause)]
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            str(ROOT / "tests" / "slow_mailers.py"),
            *words,
            env=ENVIRONMENT,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            limit=2**24,
        )
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            upstream = int(await process.stdout.readline())
            target._settings |= {"relay.upstream": f"smtp://127.0.0.1:{upstream}?starttls=off", "relay.workers": "2"}
            await target.start()
            try:
                relays = target.processes("relay")
                before = resident(relays)

                async def memory() -> float:
                    return resident(relays)

                async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=30)) as session:
                    others = Others(target, session)
                    await others.submit()
                    begun = time.monotonic()
                    async with (
                        beside(memory, every=0.05) as octets,
                        beside(others.submit, every=0.25) as submissions,
                        beside(others.look, every=0.02) as pixels,
                    ):
                        process.stdin.write(b"go\n")
                        told = msgspec.json.decode(await process.stdout.readline(), type=Told)
                    took = time.monotonic() - begun
                assert target.processes("relay") == relays, "a relay was started anew"
            finally:
                process.stdin.write(b"enough\n")
                assert await target.stop() == 0
        finally:
            process.stdin.close()
            await process.wait()
    measured = (
        f"{took:.1f} s; memory {before / MEGABYTE:.0f} MB before, {max(octets) / MEGABYTE:.0f} MB at most;"
        f" {len(submissions)} small submissions, the slowest {max(submissions):.3f} s;"
        f" {len(pixels)} pixels, p50 {sorted(pixels)[len(pixels) // 2]:.4f} s,"
        f" p99 {sorted(pixels)[len(pixels) * 99 // 100]:.4f} s, the slowest {max(pixels):.3f} s"
    )
    sys.stdout.write(f"{measured}\n")
    assert told.replies == {"250": scale.senders}, measured
    assert told.at_once == scale.senders
    assert sum(size >= scale.octets for size in told.arrived) == scale.senders
    assert max(octets) < scale.memory, measured
    assert max(submissions) < scale.submission, measured
    assert sorted(pixels)[len(pixels) * 99 // 100] < scale.pixel, measured
