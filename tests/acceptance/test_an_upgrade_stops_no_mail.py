"""Promise 12 through an upgrade: two versions take mail side by side, on one ledger, while its shape changes.

The newer version is this one with migrations of its own, so both are real: processes of their own, from trees of their
own. A migration that expands leaves the older version at work, also after a crash; one that contracts keeps it out.
"""

import asyncio
import contextlib
import itertools
import shutil
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from email import message_from_bytes
from email.policy import default
from pathlib import Path

import aiosmtplib
import pytest

from ledger.schema import migrate, read_migrations
from tests.conftest import ROOT, Eventually
from tests.running import ENVIRONMENT
from tests.sink import Sink

_PACKAGES = ("relay", "tracker", "courier", "injector", "providers", "ledger", "sidecar", "migrations")
_KEYS = {"keys.signing": "s" * 32, "keys.identity": "i" * 32}
_KNOWN = len(read_migrations())
_EXPANDED = f"{_KNOWN + 1:04d}_expands.sql"
_CONTRACTED = f"{_KNOWN + 2:04d}_contracts.sql"


def _newer(place: Path, *, contracts: bool = False) -> Path:
    """Return a tree of this version with migrations that are not in it."""
    for package in _PACKAGES:
        shutil.copytree(ROOT / package, place / package, ignore=shutil.ignore_patterns("__pycache__"))
    (place / "migrations" / _EXPANDED).write_text(
        "ALTER TABLE message ADD COLUMN told text;\n"
        "ALTER TABLE delivery ADD COLUMN weight integer NOT NULL DEFAULT 0;\n"
        "CREATE INDEX message_told_idx ON message (told) WHERE told IS NOT NULL;\n"
    )
    if contracts:
        (place / "migrations" / _CONTRACTED).write_text(
            f"-- needs: {_KNOWN + 1:04d}\nALTER TABLE message DROP COLUMN told;\n"
        )
    return place


class Relay:
    """A relay alone, of the version in *tree*."""

    def __init__(
        self, tree: Path, port: int, data_dir: Path, settings: dict[str, str], servers: dict[str, str]
    ) -> None:
        self._tree = tree
        self.port = port
        self._words = ["--data-dir", str(data_dir)]
        for name, value in (settings | {"relay.listen": f"127.0.0.1:{port}"}).items():
            self._words += ["--set", f"{name}={value}"]
        self._environment = ENVIRONMENT | servers | {"PYTHONPATH": str(tree)}
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        """Start it, and wait for nothing."""
        self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "sidecar", "relay", *self._words),
            cwd=self._tree,
            env=self._environment,
            stderr=asyncio.subprocess.PIPE,
        )

    async def greets(self) -> bool:
        """Tell whether its door is open."""
        with contextlib.suppress(OSError):
            reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
            banner = await reader.readline()
            writer.close()
            return banner.startswith(b"220")
        return False

    async def end(self, *, kill: bool = False) -> tuple[int, str]:
        """End it; return its exit code and what it said."""
        assert self._process is not None
        if self._process.returncode is None:
            (self._process.kill if kill else self._process.terminate)()
        _, err = await self._process.communicate()
        assert self._process.returncode is not None
        return self._process.returncode, err.decode()

    async def said(self) -> tuple[int, str]:
        """Wait until it ends by itself."""
        assert self._process is not None
        async with asyncio.timeout(30):
            _, err = await self._process.communicate()
        assert self._process.returncode is not None
        return self._process.returncode, err.decode()


class Mailer:
    """Submits without a pause; what is not answered 250 fails the test."""

    def __init__(self) -> None:
        self._numbers = itertools.count(1)
        self.answered: dict[int, str] = {}

    @asynccontextmanager
    async def at_work(self, port: int) -> AsyncIterator[None]:
        """Submit for the time of the block; a session that breaks is begun anew."""
        stopping = asyncio.Event()
        work = asyncio.create_task(self._run(port, stopping))
        try:
            yield
        finally:
            stopping.set()
            await work

    def has_got_on(self) -> Callable[[], bool]:
        """Return the condition that ten more were answered than until now."""
        enough = len(self.answered) + 10
        return lambda: len(self.answered) >= enough

    async def submit(self, client: aiosmtplib.SMTP, number: int) -> str:
        """Submit a message, the same for the same number, and return the last word of the answer."""
        _, text = await client.sendmail(
            "shop@example.com",
            [f"ann.{number}@example.net"],
            f"From: shop@example.com\r\nX-Id-Mail: 71\r\nMessage-ID: <load{number}@example.com>\r\n"
            "Date: Sun, 22 Nov 2026 10:00:00 +0000\r\n\r\nHello\r\n",
        )
        return text.rsplit(maxsplit=1)[-1]

    async def _run(self, port: int, stopping: asyncio.Event) -> None:
        async with aiosmtplib.SMTP(hostname="127.0.0.1", port=port, timeout=30, start_tls=False) as client:
            while not stopping.is_set():
                number = next(self._numbers)
                self.answered[number] = await self.submit(client, number)


@pytest.mark.timeout(120)
async def test_two_versions_share_a_ledger_while_its_shape_changes(
    database_url: str, redis_url: str, tmp_path: Path, free_port: Callable[[], int], eventually: Eventually
) -> None:
    """Mail flows through both; a submission to one is a repeat at the other; what is contracted keeps the older out."""
    servers = {"DATABASE_URL": database_url, "REDIS_URL": redis_url}
    mailer = Mailer()
    async with Sink().listening() as sink, contextlib.AsyncExitStack() as stack:
        settings = _KEYS | {"relay.upstream": f"smtp://127.0.0.1:{sink.port}?starttls=off"}
        older = Relay(ROOT, free_port(), tmp_path / "older", settings, servers)
        newer = Relay(_newer(tmp_path / "next"), free_port(), tmp_path / "newer", settings, servers)
        await older.start()
        await eventually(older.greets, timeout=30)
        async with mailer.at_work(older.port):
            await eventually(mailer.has_got_on())
            await newer.start()
            await eventually(newer.greets, timeout=30)
            async with mailer.at_work(newer.port):
                await eventually(mailer.has_got_on())
        stack.push_async_callback(newer.end)
        # The shape is the newer one now, and the older version comes back after a crash.
        await older.end(kill=True)
        await older.start()
        await eventually(older.greets, timeout=30)
        async with mailer.at_work(older.port), mailer.at_work(newer.port):
            await eventually(mailer.has_got_on())
        for relay in (older, newer):
            async with aiosmtplib.SMTP(hostname="127.0.0.1", port=relay.port, start_tls=False) as client:
                for number in (1, len(mailer.answered)):
                    assert await mailer.submit(client, number) == mailer.answered[number]
        code, said = await older.end()
        assert code == 0
        assert "ledger_is_newer" in said
        stamped = {kept.recipient: message_from_bytes(kept.content, policy=default)["Message-ID"] for kept in sink.kept}
        assert len(sink.kept) == len(mailer.answered)
        assert stamped == {f"ann.{n}@example.net": f"<{key}@example.com>" for n, key in mailer.answered.items()}
        contracted = _newer(tmp_path / "after", contracts=True)
        assert await migrate(database_url, contracted / "migrations") == [_CONTRACTED]
        await older.start()
        code, said = await older.said()
        assert code == 1
        assert f"{_CONTRACTED}, which this version cannot work beside" in said
