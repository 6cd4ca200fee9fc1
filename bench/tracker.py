"""Measure the tracker's pixel and redirect beside a bare handler: the same clients, the same loop, one process each.

Every hit is verified, and is durable before its answer; afterwards each that was answered has to be in the stream.
"""

import asyncio
from collections.abc import Sequence
from contextlib import AsyncExitStack
from functools import partial
from typing import Any, Final

import msgspec

from bench import programs
from bench.bare import bare_handler
from bench.clients import Driven, drive, request
from bench.nginx import nginx
from bench.paired import Bar, Load, Outcome
from bench.report import Found, of_loads
from bench.servers import free_port, outrider, role, stores
from bench.stage import Stage
from injector.tokens import Keyring, Purpose
from ledger.events import EventType, decode_hit
from ledger.stream import FIELD, STREAM, connect
from sidecar.keys import load_keys
from sidecar.settings import Settings
from tracker.settings import TrackerSettings

_ROUNDS: Final = 5
_PACKAGES: Final = ("aiohttp", "hiredis", "msgspec", "uvloop")
_CONNECTIONS: Final = 64
_REQUESTS: Final = 30_000
#: So many recipients open and click.
_TOKENS: Final = 2_000
_LINK: Final = "https://shop.example.com/spring/offers?utm_source=newsletter&utm_campaign=spring&item={}"
_AGENT: Final = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"
#: What a hit that went to the journal has to come back from it.
_STREAM_SECONDS: Final = 30.0
_PAGE: Final = 10_000

_BARE: Final = "bare aiohttp handler"
_PIXEL: Final = "pixel, durable"
_CLICK: Final = "click, verified and durable"
_PAIR: Final = "pixel, two processes"
_NGINX: Final = "nginx, empty_gif"


class _Target(msgspec.Struct, frozen=True, kw_only=True):
    """Who is asked, for what, and what the answer begins with."""

    port: int
    requests: Sequence[bytes]
    expected: str = "HTTP/1.1 200"
    #: Kept in the stream once it is answered; None: nothing is.
    kept: EventType | None = None


async def bench(stage: Stage) -> Found:
    """Measure the tracker, a bare handler, and nginx where it is here."""
    async with AsyncExitStack() as stack:
        place = await stack.enter_async_context(stores(stage.servers))
        base = await stack.enter_async_context(outrider(place))
        settings = _listening(base)
        keyring = Keyring(load_keys(settings).signing)
        opens = [_asked(f"/track/o/{keyring.mint(Purpose.OPEN, key)}") for key in _keys()]
        clicks = [
            _asked(f"/track/c/{keyring.mint(Purpose.CLICK, key, at % 20, _LINK.format(at % 20))}")
            for at, key in enumerate(_keys())
        ]
        bare_port = free_port()
        bare_pid = await stack.enter_async_context(bare_handler(bare_port))
        port = _port(settings)
        one = await stack.enter_async_context(role(settings, "tracker"))
        both = _listening(settings)
        pair = await stack.enter_async_context(role(both, "tracker", processes=2))
        course = _Course(settings.redis_url, total=stage.scaled(_REQUESTS))
        pixel = _Target(port=port, requests=opens, kept=EventType.OPENED)
        click = _Target(port=port, requests=clicks, expected="HTTP/1.1 302", kept=EventType.CLICKED)
        bare = _Target(port=bare_port, requests=[_asked("/pixel.gif")])
        shared = _Target(port=_port(both), requests=opens, kept=EventType.OPENED)
        loads = [
            Load(name=_BARE, run=partial(course.run, bare), pids=(bare_pid,)),
            Load(name=_PIXEL, run=partial(course.run, pixel), pids=one, baseline=_BARE, bar=Bar(times=0.85, p99_ms=10)),
            Load(name=_CLICK, run=partial(course.run, click), pids=one, baseline=_BARE, bar=Bar(times=0.85)),
            Load(name=_PAIR, run=partial(course.run, shared), pids=pair, baseline=_BARE),
        ]
        versions: dict[str, str] = {}
        left_out: list[str] = []
        if "nginx" in stage.against:
            if (program := programs.find("nginx")) is None:
                left_out.append("nginx: not installed")
            else:
                versions["nginx"] = await programs.version(program, "-v")
                peer_port = free_port()
                pid = await stack.enter_async_context(nginx(program, place.directory / "nginx", peer_port))
                peer = _Target(port=peer_port, requests=[_asked("/pixel.gif")])
                loads.append(Load(name=_NGINX, run=partial(course.run, peer), pids=(pid,), baseline=_BARE))
        for load in loads:
            # What is loaded, connected and compiled on first use is nobody's round.
            await load.run()
        return await of_loads(
            loads, rounds=stage.rounds or _ROUNDS, packages=_PACKAGES, programs=versions, left_out=left_out
        )


class _Course:
    """Runs clients, and looks at what the stream has of it."""

    def __init__(self, redis_url: str, *, total: int) -> None:
        self._redis_url = redis_url
        self._total = total

    async def run(self, target: _Target) -> Outcome:
        """Have all requests answered; whatever is to be kept has to be in the stream."""
        client = connect(self._redis_url)
        try:
            # Not deleted: a stream that begins anew is one that was lost, and the journal would be moved again.
            await client.xtrim(STREAM, maxlen=0, approximate=False)
            driven = await drive(
                target.port,
                target.requests,
                total=self._total,
                connections=_CONNECTIONS,
                expected=target.expected,
            )
            flaw = driven.flaw
            if target.kept is not None:
                flaw = flaw or await self._missing(client, driven, target.kept)
        finally:
            await client.aclose()
        return Outcome(units=driven.answered, seconds=driven.seconds, latencies_us=driven.latencies_us, flaw=flaw)

    async def _missing(self, client: Any, driven: Driven, kind: EventType) -> str | None:
        """Return what the stream lacks of what was answered, or has too much; hits in the journal come within time."""
        try:
            async with asyncio.timeout(_STREAM_SECONDS):
                while await client.xlen(STREAM) < driven.answered:  # noqa: ASYNC110 - another process does it
                    await asyncio.sleep(0.05)
        except TimeoutError:
            pass
        # One that the stream took too late went to the journal as well; the ledger knows a hit by its id.
        ids: set[bytes] = set()
        last = b"-"
        while page := await client.xrange(STREAM, min=last, count=_PAGE):
            hits = [decode_hit(fields[FIELD.encode()]) for _, fields in page]
            ids.update(hit.id for hit in hits if hit.type is kind)
            last = b"(" + page[-1][0]
        return None if len(ids) == driven.answered else f"{driven.answered} answered, {len(ids)} hits in the stream"


def _keys() -> list[bytes]:
    return [at.to_bytes(16, "big") for at in range(_TOKENS)]


def _asked(path: str) -> bytes:
    return request(path, headers=[("User-Agent", _AGENT), ("Accept", "image/*,*/*;q=0.8")])


def _listening(settings: Settings) -> Settings:
    """Return *settings* of a tracker with a port of its own."""
    return msgspec.structs.replace(settings, tracker=TrackerSettings(listen=f"127.0.0.1:{free_port()}"))


def _port(settings: Settings) -> int:
    return int(settings.tracker.listen.rpartition(":")[2])
