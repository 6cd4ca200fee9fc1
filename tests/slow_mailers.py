"""Many slow senders of large mail, and an upstream that reads what comes and keeps nothing, in a process of their own.

`python tests/slow_mailers.py PORT SENDERS OCTETS PAUSE` says the upstream's port in a line, waits for a line, sends,
and says in a last line of JSON what became of it; each sender writes a block, then pauses for PAUSE seconds.
"""

import asyncio
import sys
from collections import Counter

import msgspec

BLOCK = 1024 * 1024
#: Seconds in which everything is sent and answered.
PATIENCE = 900.0

_LINE = b"QUJD" * 19 + b"\r\n"
_HEAD = (
    b"From: shop@example.com\r\nTo: b@example.net\r\nSubject: large\r\nMessage-ID: <large%d@example.com>\r\n"
    b'X-Id-Mail: 65\r\nMIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary="b"\r\n\r\n'
    b"--b\r\nContent-Type: text/html; charset=utf-8\r\n\r\n"
    b'<html><body><a href="https://example.com/">x</a></body></html>\r\n'
    b"--b\r\nContent-Type: application/octet-stream\r\nContent-Transfer-Encoding: base64\r\n\r\n"
)
_TAIL = b"--b--\r\n"


class Told(msgspec.Struct, frozen=True, kw_only=True):
    """What became of it."""

    #: How many senders got each reply to their final dot, by its code.
    replies: dict[str, int]
    #: Octets of each message that the upstream accepted.
    arrived: list[int]
    #: How many were under way at once, at most.
    at_once: int


class Upstream:
    """An SMTP server that reads contents and keeps their sizes."""

    def __init__(self) -> None:
        self.arrived: list[int] = []

    async def talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Hold one session."""
        writer.write(b"220 sink.example ESMTP\r\n")
        try:
            while verb := (await reader.readline())[:4]:
                if verb == b"DATA":
                    writer.write(b"354 Go\r\n")
                    self.arrived.append(await _swallowed(reader))
                writer.write(b"221 Bye\r\n" if verb == b"QUIT" else b"250 Ok\r\n")
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()


async def _swallowed(reader: asyncio.StreamReader) -> int:
    octets, tail = 0, b""
    while not tail.endswith(b"\r\n.\r\n"):
        block = await reader.read(BLOCK)
        if not block:
            raise ConnectionResetError
        octets += len(block)
        tail = (tail + block[-5:])[-5:]
    return octets


class Senders:
    """Senders that are all under way before the first one ends."""

    def __init__(self, port: int, count: int, octets: int, pause: float) -> None:
        self._port = port
        self._count = count
        self._octets = octets
        self._pause = pause
        self._block = _LINE * (BLOCK // len(_LINE))
        self._under_way = 0
        self._all_there = asyncio.Event()
        self.at_once = 0
        self.replies: Counter[str] = Counter()

    async def run(self) -> None:
        """Send it all."""
        await asyncio.gather(*map(self._one, range(self._count)))

    async def _one(self, number: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        writer.write(b"EHLO client.example\r\n")
        writer.write(b"MAIL FROM:<shop@example.com>\r\nRCPT TO:<r%d@example.net>\r\nDATA\r\n" % number)
        while not (line := await reader.readline()).startswith(b"354"):
            assert line[:1] == b"2", line
        head = _HEAD % number
        writer.write(head)
        left = self._octets - len(head) - len(_TAIL)
        self._under_way += 1
        self.at_once = max(self.at_once, self._under_way)
        while left >= len(self._block):
            writer.write(self._block)
            await writer.drain()
            left -= len(self._block)
            await asyncio.sleep(self._pause)
        if self._under_way == self._count:
            self._all_there.set()
        await self._all_there.wait()
        writer.write(_LINE * (left // len(_LINE)) + _TAIL + b".\r\n")
        self.replies[(await reader.readline()).decode("ascii", "replace")[:3]] += 1
        self._under_way -= 1
        writer.close()


async def _main(port: int, count: int, octets: int, pause: float) -> None:
    upstream = Upstream()
    senders = Senders(port, count, octets, pause)
    async with await asyncio.start_server(upstream.talk, "127.0.0.1", 0, limit=2 * BLOCK) as server:
        sys.stdout.write(f"{server.sockets[0].getsockname()[1]}\n")
        sys.stdout.flush()
        await asyncio.to_thread(sys.stdin.readline)
        async with asyncio.timeout(PATIENCE):
            await senders.run()
        told = Told(replies=dict(senders.replies), arrived=upstream.arrived, at_once=senders.at_once)
        sys.stdout.buffer.write(msgspec.json.encode(told) + b"\n")
        sys.stdout.flush()
        # Until then an upstream is needed: the fast sender's mail goes there too.
        await asyncio.to_thread(sys.stdin.readline)


if __name__ == "__main__":
    asyncio.run(_main(int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])))
