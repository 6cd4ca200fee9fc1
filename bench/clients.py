"""HTTP clients in a process of their own: they send prepared requests over kept connections, and look at each answer.

They parse no more of an answer than its status and its length, so that what is measured is the server.
"""

import asyncio
import contextlib
import sys
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from time import perf_counter
from typing import Final, cast

import msgspec

_ROOT: Final = Path(__file__).resolve().parents[1]
_SECONDS: Final = 300.0
_MICROSECONDS: Final = 1_000_000
_LENGTH: Final = b"content-length: "
#: A line of what they say holds all latencies.
_LINE_LIMIT: Final = 64 * 1024 * 1024


class Orders(msgspec.Struct, frozen=True, kw_only=True):
    """What the clients are told."""

    port: int
    #: A file of whole requests, in MessagePack, that are sent in turn, again from the first when they have run out.
    requests: str
    total: int
    connections: int
    #: What every answer begins with: `HTTP/1.1 200`.
    expected: str


class Driven(msgspec.Struct, frozen=True, kw_only=True):
    """How it went."""

    #: From the first request to the last answer.
    seconds: float
    #: Answers as expected.
    answered: int
    latencies_us: list[float]
    #: The beginning of an answer that was another, or what ended a connection.
    flaw: str | None = None


async def drive(
    port: int, requests: Sequence[bytes], *, total: int | None = None, connections: int, expected: str
) -> Driven:
    """Send each of *requests*, or *total* of them in turn, to *port* of 127.0.0.1 over so many *connections*."""
    with tempfile.NamedTemporaryFile(prefix="outrider-bench-") as file:
        file.write(msgspec.msgpack.encode(list(requests)))
        file.flush()
        orders = Orders(
            port=port,
            requests=file.name,
            total=len(requests) if total is None else total,
            connections=connections,
            expected=expected,
        )
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "bench.clients",
            cwd=_ROOT,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            limit=_LINE_LIMIT,
        )
        try:
            said, _ = await process.communicate(msgspec.json.encode(orders))
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
    if process.returncode != 0:
        # Not needed by the clients themselves, who start faster without it.
        from bench.servers import BenchError

        raise BenchError("the HTTP clients ended; their reason stands above")
    return msgspec.json.decode(said, type=Driven)


class _Round:
    """What all connections share."""

    def __init__(self, orders: Orders, requests: Sequence[bytes]) -> None:
        self.expected = orders.expected.encode("ascii")
        self.latencies: list[float] = []
        self.flaw: str | None = None
        self.done = asyncio.Event()
        self._left = iter(range(orders.total))
        self._requests = requests
        self._waiting = orders.total

    def next(self) -> bytes | None:
        """Return the next request; None when there is none left."""
        number = next(self._left, None)
        return None if number is None else self._requests[number % len(self._requests)]

    def answered(self, latency_us: float) -> None:
        self.latencies.append(latency_us)
        self._waiting -= 1
        if not self._waiting:
            self.done.set()

    def fail(self, flaw: str) -> None:
        self.flaw = self.flaw or flaw
        self.done.set()


class _Client(asyncio.Protocol):
    """One connection: the next request goes out when the answer to the last is here, whole."""

    def __init__(self, shared: _Round) -> None:
        self._shared = shared
        self._received = b""
        self._sent_at = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's are no subclass of asyncio's.
        self._transport = cast("asyncio.Transport", transport)

    def send(self) -> None:
        request = self._shared.next()
        if request is not None:
            self._sent_at = perf_counter()
            self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        received = self._received + data if self._received else data
        end = received.find(b"\r\n\r\n")
        if end < 0 or len(received) < (whole := end + 4 + _length(received[:end])):
            self._received = received
            return
        if len(received) > whole or not received.startswith(self._shared.expected):
            self._shared.fail(received[:end].partition(b"\r\n")[0].decode("latin-1"))
            return
        self._received = b""
        self._shared.answered((perf_counter() - self._sent_at) * _MICROSECONDS)
        self.send()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._shared.done.is_set():
            self._shared.fail(f"a connection ended: {type(exc).__name__}")


def _length(head: bytes) -> int:
    _, _, rest = head.lower().partition(_LENGTH)
    return int(rest.partition(b"\r")[0] or 0)


async def _run(orders: Orders, requests: Sequence[bytes]) -> Driven:
    shared = _Round(orders, requests)
    loop = asyncio.get_running_loop()
    clients = [
        (await loop.create_connection(lambda: _Client(shared), "127.0.0.1", orders.port))[1]
        for _ in range(min(orders.connections, orders.total))
    ]
    started = perf_counter()
    for client in clients:
        client.send()
    try:
        async with asyncio.timeout(_SECONDS):
            await shared.done.wait()
    except TimeoutError:
        shared.fail(f"{len(shared.latencies)} of {orders.total} were answered within {_SECONDS:g} s")
    return Driven(
        seconds=perf_counter() - started,
        answered=len(shared.latencies),
        latencies_us=shared.latencies,
        flaw=shared.flaw,
    )


def request(path: str, *, method: str = "GET", headers: Iterable[tuple[str, str]] = (), body: bytes = b"") -> bytes:
    """Return a whole request, as it is spelled on a kept connection."""
    lines = [f"{method} {path} HTTP/1.1", "Host: track.example.com", *(f"{name}: {value}" for name, value in headers)]
    lines += [f"Content-Length: {len(body)}"] if body else []
    return "\r\n".join([*lines, "", ""]).encode("ascii") + body


def _main() -> None:
    orders = msgspec.json.decode(sys.stdin.buffer.read(), type=Orders)
    requests = msgspec.msgpack.decode(Path(orders.requests).read_bytes(), type=list[bytes])
    factory = None
    with contextlib.suppress(ImportError):
        import uvloop

        factory = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        sys.stdout.buffer.write(msgspec.json.encode(runner.run(_run(orders, requests))))


if __name__ == "__main__":
    _main()
