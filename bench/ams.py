"""A stand-in for AMS that costs next to nothing: it reads each call whole, takes it, and counts.

A process of its own that prints its port, and ends with its input; `GET /counted` says what it has taken.
"""

import asyncio
import contextlib
import sys
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import aiohttp
import msgspec
from aiohttp import web

_ROOT: Final = Path(__file__).resolve().parents[1]
_START_SECONDS: Final = 20.0
_MAX_BODY: Final = 64 * 1024 * 1024


class _Item(msgspec.Struct):
    email: str
    url: str


class _Params(msgspec.Struct):
    mailing: int = msgspec.field(name="mailingID")
    items: list[_Item] = msgspec.field(name="opensClicksData")


class _Call(msgspec.Struct):
    id: str
    method: str
    params: _Params


class Counted(msgspec.Struct, frozen=True, kw_only=True):
    """What was taken of one mailing."""

    items: int = 0
    #: Different pairs of address and url.
    different: int = 0
    calls: int = 0


class Ams:
    """A running stand-in."""

    def __init__(self, port: int, session: aiohttp.ClientSession) -> None:
        self.url = f"http://127.0.0.1:{port}/api/v1"
        self._ask = f"http://127.0.0.1:{port}/counted/"
        self._session = session

    async def counted(self, mailing: int) -> Counted:
        """Return what it has taken of a mailing."""
        async with self._session.get(f"{self._ask}{mailing}") as response:
            return msgspec.json.decode(await response.read(), type=Counted)


@asynccontextmanager
async def ams() -> AsyncIterator[Ams]:
    """Run it for the time of the block."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "bench.ams",
        cwd=_ROOT,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        assert process.stdout is not None  # noqa: S101 - it was started so
        async with asyncio.timeout(_START_SECONDS):
            port = int(await process.stdout.readline())
        async with aiohttp.ClientSession() as session:
            yield Ams(port, session)
    finally:
        assert process.stdin is not None  # noqa: S101 - it was started so
        process.stdin.close()
        await process.wait()


class _Taken:
    def __init__(self) -> None:
        self._decode = msgspec.json.Decoder(_Call).decode
        self._items: Counter[int] = Counter()
        self._calls: Counter[int] = Counter()
        # Their hashes, which are smaller: of a million pairs two have the same once in forty million runs.
        self._different: dict[int, set[int]] = {}

    async def take(self, request: web.Request) -> web.Response:
        call = self._decode(await request.read())
        mailing, items = call.params.mailing, call.params.items
        self._calls[mailing] += 1
        self._items[mailing] += len(items)
        self._different.setdefault(mailing, set()).update(hash((item.email, item.url)) for item in items)
        answer = {"jsonrpc": "2.0", "result": "OK", "id": int(call.id)}
        return web.Response(body=msgspec.json.encode(answer), content_type="application/json")

    async def tell(self, request: web.Request) -> web.Response:
        mailing = int(request.match_info["mailing"])
        counted = Counted(
            items=self._items[mailing],
            different=len(self._different.get(mailing, ())),
            calls=self._calls[mailing],
        )
        return web.Response(body=msgspec.json.encode(counted), content_type="application/json")


async def _main() -> None:
    taken = _Taken()
    app = web.Application(client_max_size=_MAX_BODY)
    app.router.add_post("/api/v1", taken.take)
    app.router.add_get("/counted/{mailing}", taken.tell)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    sys.stdout.write(f"{runner.addresses[0][1]}\n")
    sys.stdout.flush()
    end = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(end), sys.stdin.buffer)
    await end.read()
    await runner.cleanup()


if __name__ == "__main__":
    factory = None
    with contextlib.suppress(ImportError):
        import uvloop

        factory = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=factory) as main:
        main.run(_main())
