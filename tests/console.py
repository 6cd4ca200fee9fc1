"""What the console's tests share: a console on a real socket, over a real ledger."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp.test_utils import TestClient, TestServer
from aiohttp.web import Application, Request

from ledger.store import open_ledger
from sidecar.console.app import make_console
from sidecar.readiness import Readiness
from tests.rows import IDENTITY

TOKEN = "a-console-token-made-up-for-tests"
BEARER = {"Authorization": f"Bearer {TOKEN}"}
PUBLIC_URL = "https://click.example.com"

#: A ledger that nobody can reach: what a console answers then, it answers by itself.
NOWHERE = "postgresql://postgres:hunter2@127.0.0.1:1/nowhere"

Client = TestClient[Request, Application]


@asynccontextmanager
async def console(
    database_url: str,
    *,
    capture_dir: Path | None = None,
    hosts: tuple[str, ...] = ("127.0.0.1",),
    readiness: Readiness | None = None,
) -> AsyncIterator[Client]:
    """Serve a console for the time of the block; the client keeps no cookies and follows no redirect by itself."""
    async with open_ledger(database_url, connections=4) as ledger:
        app = make_console(
            ledger=ledger,
            identity_key=IDENTITY,
            token=TOKEN,
            capture_dir=capture_dir,
            public_url=PUBLIC_URL,
            readiness=readiness or Readiness(),
            hosts=hosts,
        )
        async with TestClient(TestServer(app), cookie_jar=aiohttp.DummyCookieJar()) as client:
            yield client


async def get(client: Client, path: str, status: int = 200) -> Any:
    """Return the JSON of an answer that has this status."""
    answer = await client.get(path, headers=BEARER)
    assert answer.status == status, await answer.text()
    assert answer.content_type == "application/json"
    return await answer.json()
