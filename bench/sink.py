"""An SMTP server that takes everything and counts it: what a relay under test forwards to.

A process of its own, told what to do on its standard input: `begin` forgets, `report` answers with what came since, as
one line of JSON. It reads content by blocks, so that it costs next to nothing beside what is measured.
"""

import asyncio
import base64
import contextlib
import re
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path
from typing import Final, cast

import msgspec

_ROOT: Final = Path(__file__).resolve().parents[1]

_MESSAGE_ID: Final = re.compile(rb"^Message-ID:\s*(\S+)", re.IGNORECASE | re.MULTILINE)
_ADDRESS: Final = re.compile(rb"<([^>]*)>")
_END: Final = b"\r\n.\r\n"
_EHLO: Final = b"250-sink.example\r\n250-PIPELINING\r\n250-SIZE 52428800\r\n250-8BITMIME\r\n250 ENHANCEDSTATUSCODES\r\n"
#: Nothing that names a message stands behind so many octets of its header.
_HEADER_OCTETS: Final = 8_192
_START_SECONDS: Final = 20.0

# As long as Postfix's: an upstream's own ids are kept beside each message, so that its events find it.
_IDS: Final = count(1)


class Arrived(msgspec.Struct, frozen=True, kw_only=True):
    """What came since `begin`."""

    messages: int
    #: Different recipients and different Message-IDs; a message without one counts as none.
    recipients: int
    message_ids: int
    octets: int
    #: The last content as it came, dots not taken off, in base64.
    last: str

    @property
    def content(self) -> bytes:
        """The last content."""
        return base64.b64decode(self.last)


class _Counts:
    def __init__(self) -> None:
        self.begin()

    def begin(self) -> None:
        self.messages = 0
        self.octets = 0
        self.recipients: set[bytes] = set()
        self.message_ids: set[bytes] = set()
        self.last = b""

    def add(self, recipients: list[bytes], content: bytes) -> None:
        self.messages += 1
        self.octets += len(content)
        self.recipients.update(recipients)
        found = _MESSAGE_ID.search(content, 0, _HEADER_OCTETS)
        if found is not None:
            self.message_ids.add(found[1])
        self.last = content

    def report(self) -> bytes:
        return msgspec.json.encode(
            Arrived(
                messages=self.messages,
                recipients=len(self.recipients),
                message_ids=len(self.message_ids),
                octets=self.octets,
                last=base64.b64encode(self.last).decode("ascii"),
            )
        )


class _Session(asyncio.Protocol):
    """One connection: commands by lines, content by blocks."""

    def __init__(self, counts: _Counts) -> None:
        self._counts = counts
        self._lines = b""
        #: The blocks of a content; None between two.
        self._blocks: list[bytes] | None = None
        #: The end of what came, in which the final dot may have begun.
        self._tail = b""
        self._recipients: list[bytes] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Greet."""
        # uvloop's are no subclass of asyncio's.
        self._transport = cast("asyncio.Transport", transport)
        self._transport.write(b"220 sink.example ESMTP\r\n")

    def data_received(self, data: bytes) -> None:
        """Take commands or content, whatever is due."""
        while data:
            data = self._commands(data) if self._blocks is None else self._content(self._blocks, data)

    def _commands(self, data: bytes) -> bytes:
        """Answer every whole line; return what stands behind a DATA."""
        lines = self._lines + data
        answers = []
        start = 0
        while (end := lines.find(b"\n", start)) >= 0:
            line = lines[start:end]
            start = end + 1
            answers.append(self._answer(line))
            if self._blocks is not None:
                break
        self._lines, rest = (lines[start:], b"") if self._blocks is None else (b"", lines[start:])
        if answers:
            self._transport.write(b"".join(answers))
        return rest

    def _answer(self, line: bytes) -> bytes:
        match line[:4].upper():
            case b"EHLO":
                return _EHLO
            case b"MAIL":
                self._recipients = []
            case b"RCPT":
                found = _ADDRESS.search(line)
                if found is not None:
                    self._recipients.append(found[1])
            case b"DATA":
                # A content may begin with its final dot.
                self._blocks, self._tail = [], b"\r\n"
                return b"354 Go\r\n"
            case b"QUIT":
                self._transport.write(b"221 Bye\r\n")
                self._transport.close()
                return b""
        return b"250 2.0.0 Ok\r\n"

    def _content(self, blocks: list[bytes], data: bytes) -> bytes:
        """Take content up to its final dot; return what stands behind it."""
        seam = self._tail + data[: len(_END) - 1]
        if (at := seam.find(_END)) >= 0:
            end = at + len(_END) - len(self._tail)
        elif (at := data.find(_END)) >= 0:
            end = at + len(_END)
        else:
            blocks.append(data)
            self._tail = (self._tail + data[-len(_END) :])[1 - len(_END) :]
            return b""
        blocks.append(data[:end])
        self._counts.add(self._recipients, b"".join(blocks).removesuffix(b".\r\n"))
        self._blocks = None
        self._transport.write(b"250 2.0.0 Ok: queued as %010X\r\n" % next(_IDS))
        return data[end:]


class Sink:
    """A running sink."""

    def __init__(self, process: asyncio.subprocess.Process, port: int) -> None:
        self._process = process
        self.port = port

    async def begin(self) -> None:
        """Forget what came so far."""
        await self._say(b"begin\n")

    async def report(self) -> Arrived:
        """Return what came since `begin`."""
        return msgspec.json.decode(await self._say(b"report\n"), type=Arrived)

    async def _say(self, word: bytes) -> bytes:
        assert self._process.stdin is not None  # noqa: S101 - it was started so
        assert self._process.stdout is not None  # noqa: S101 - the same
        self._process.stdin.write(word)
        return await self._process.stdout.readline()


@asynccontextmanager
async def sink() -> AsyncIterator[Sink]:
    """Run a sink for the time of the block."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "bench.sink",
        cwd=_ROOT,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        # A report holds a whole message.
        limit=64 * 1024 * 1024,
    )
    try:
        assert process.stdout is not None  # noqa: S101 - it was started so
        async with asyncio.timeout(_START_SECONDS):
            port = int(await process.stdout.readline())
        yield Sink(process, port)
    finally:
        assert process.stdin is not None  # noqa: S101 - it was started so
        process.stdin.close()
        await process.wait()


async def _main() -> None:
    counts = _Counts()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: _Session(counts), "127.0.0.1", 0, backlog=1024)
    _print(str(server.sockets[0].getsockname()[1]).encode("ascii"))
    words = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(words), sys.stdin.buffer)
    while word := await words.readline():
        if word == b"begin\n":
            counts.begin()
            _print(b"")
        else:
            _print(counts.report())
    # Whoever started us has gone.
    server.close()


def _print(line: bytes) -> None:
    sys.stdout.buffer.write(line + b"\n")
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    factory = None
    with contextlib.suppress(ImportError):
        import uvloop

        factory = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(_main())
