"""Promise 12, at its end: Redis is away and the tracker's own disk is full.

People still arrive where they wanted to go. What could be kept nowhere is counted to the last hit, an unsubscribe is
told so, and what was answered as kept is there when Redis is back.
"""

import re
from collections.abc import Callable
from pathlib import Path

import aiohttp
from yarl import URL

from injector.tokens import Keyring, Purpose
from tests.conftest import Eventually
from tests.faults import Role, small_disk
from tests.proxy import proxied, redis_at, redis_through
from tests.tracker_support import streamed

SIGNING, IDENTITY = "a signing key made up for faults", "an identity key made up for faults"
#: Visits; the disk is full after a third of them.
_TIMES = 150


class Visitor:
    """Somebody who clicks and unsubscribes, one thing at a time, and asks the tracker how it is."""

    def __init__(self, session: aiohttp.ClientSession, port: int, admin: int) -> None:
        self._session = session
        self._base, self._admin = f"http://127.0.0.1:{port}", f"http://127.0.0.1:{admin}"
        self._keyring = Keyring([SIGNING.encode()])
        self.clicked: set[str] = set()
        #: The keys, in hex, of the messages whose unsubscribing was answered as done.
        self.left: set[str] = set()

    async def clicks(self, number: int) -> None:
        """Follow a link; it leads where it led, whatever else."""
        url = f"https://shop.example.com/{number}"
        token = self._keyring.mint(Purpose.CLICK, number.to_bytes(16, "big"), 0, url)
        address = URL(f"{self._base}/track/c/{token}", encoded=True)
        async with self._session.get(address, allow_redirects=False) as answer:
            assert (answer.status, answer.headers["Location"]) == (302, url)
        self.clicked.add(url)

    async def leaves(self, number: int) -> None:
        """Unsubscribe; it is done, or could not be."""
        key = number.to_bytes(16, "big")
        address = URL(f"{self._base}/unsubscribe/{self._keyring.mint(Purpose.UNSUBSCRIBE, key)}", encoded=True)
        async with self._session.post(address, data={"List-Unsubscribe": "One-Click"}) as answer:
            assert answer.status in {200, 503}
            if answer.status == 200:
                self.left.add(key.hex())

    async def is_ready(self) -> bool:
        """Say whether the tracker calls itself ready."""
        async with self._session.get(f"{self._base}/readyz") as answer:
            return answer.status == 200

    async def is_healthy(self) -> bool:
        """Say whether the tracker answers and lacks nothing."""
        try:
            async with self._session.get(f"{self._base}/readyz") as answer:
                return bool((await answer.json())["degraded"] == [])
        except aiohttp.ClientError:
            return False

    async def unrecorded(self) -> dict[str, int]:
        """Return how many hits the tracker says that it could keep nowhere."""
        async with self._session.get(f"{self._admin}/metrics") as answer:
            text = await answer.text()
        counted = re.findall(r'^outrider_hits_unrecorded_total\{type="(\w+)"\} ([0-9.]+)$', text, re.MULTILINE)
        return {name: int(float(value)) for name, value in counted if float(value)}


async def test_a_full_disk_is_answered_and_every_loss_is_counted(
    redis_url: str, free_port: Callable[[], int], tmp_path: Path, eventually: Eventually
) -> None:
    """With Redis away and its disk full a tracker still redirects; unsubscribing says that it could not be kept."""
    disk = tmp_path / "disk"
    disk.mkdir()
    port, admin = free_port(), free_port()
    async with proxied(redis_at(redis_url)) as way, aiohttp.ClientSession() as session:
        tracker = Role(
            "tracker",
            {
                "redis_url": redis_through(redis_url, way),
                "database_url": "postgresql://127.0.0.1:1/nobody",
                "keys.signing": SIGNING,
                "keys.identity": IDENTITY,
                "data_dir": str(disk),
                "tracker.listen": f"127.0.0.1:{port}",
                "tracker.admin_listen": f"127.0.0.1:{admin}",
            },
            tmp_path,
            before=await small_disk(disk, "24k"),
        )
        visitor = Visitor(session, port, admin)
        async with tracker.kept():
            await eventually(visitor.is_healthy, timeout=30)
            await way.shut()
            for number in range(_TIMES):
                await visitor.clicks(number)
                await visitor.leaves(number)
            assert 20 < len(visitor.left) < _TIMES - 20
            assert not await visitor.is_ready()
            lost = await visitor.unrecorded()
            await way.heal()
            await eventually(visitor.is_healthy, timeout=30)
    # A file may be moved twice: copies have one id.
    found = {hit.url or hit.key.hex() for hit in await streamed(redis_url)}
    assert len({hit.id for hit in await streamed(redis_url)}) == len(found)
    assert visitor.left <= found
    assert found <= visitor.left | visitor.clicked
    assert {"clicked": len(visitor.clicked - found), "unsubscribed": _TIMES - len(visitor.left)} == lost
