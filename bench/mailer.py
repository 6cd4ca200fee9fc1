"""Submit mail as fast as a relay takes it: with Postfix's smtp-source where it is here, else by ourselves.

Every submission has recipients of its own, so that none is a repeat; the content is the same, as in a campaign.
"""

import asyncio
import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from time import perf_counter
from typing import Final

import msgspec

from bench import programs
from bench.mails import MESSAGE_ID

SENDER: Final = "bounce@example.com"
_DOMAIN: Final = "example.net"
_TIMEOUT: Final = 120.0

#: Each load's recipients are nobody else's.
_loads: Iterator[int] = itertools.count(1)


class Batch(msgspec.Struct, frozen=True, kw_only=True):
    """What is submitted: so many messages over so many sessions."""

    #: The message, its lines ending CRLF, no line beginning with a dot.
    content: bytes
    messages: int
    sessions: int
    #: Of each message.
    recipients: int = 1
    #: One message after the other on a connection; else each on a fresh one.
    reuse: bool = True
    sender: str = SENDER
    #: Each message has a Message-ID of its own. With one for all, their aliases stand side by side in the ledger's
    #: index, which costs next to nothing. Only our own mailer can do that.
    own_ids: bool = False

    def named(self, name: str) -> bytes:
        """Return the content of the message called *name*."""
        return self.content.replace(MESSAGE_ID, f"letter.{name}@".encode("ascii"), 1) if self.own_ids else self.content

    @property
    def units(self) -> int:
        """How many recipients get a message."""
        return self.messages * self.recipients


class Submitted(msgspec.Struct, frozen=True, kw_only=True):
    """How it went."""

    seconds: float
    #: What single messages took, from MAIL (or the connection, where it is fresh) to the last answer.
    latencies_us: Sequence[float] = ()
    #: Why not all of them were taken.
    flaw: str | None = None


def smtp_source() -> str | None:
    """Return the path of smtp-source; None when it is not here."""
    return programs.find("smtp-source")


async def submit(batch: Batch, *, port: int, directory: Path) -> Submitted:
    """Submit *batch* to *port* with smtp-source, or by ourselves where it is not here."""
    program = smtp_source()
    if program is None:
        return await submit_watched(batch, port=port)
    # It ends lines by itself.
    file = directory / "content"
    file.write_bytes(batch.content.replace(b"\r\n", b"\n"))
    argv = [program, "-4", "-N", "-M", "mailer.example", "-F", str(file), "-f", batch.sender]
    argv += ["-t", f"x{next(_loads)}@{_DOMAIN}", "-s", str(batch.sessions), "-m", str(batch.messages)]
    argv += ["-r", str(batch.recipients)] if batch.recipients > 1 else []
    argv += ["-d"] if batch.reuse else []
    started = perf_counter()
    flaw = await programs.finished([*argv, f"127.0.0.1:{port}"], seconds=_TIMEOUT)
    return Submitted(seconds=perf_counter() - started, flaw=flaw)


async def submit_watched(batch: Batch, *, port: int, seconds: float = _TIMEOUT) -> Submitted:
    """Submit *batch* by ourselves in at most so many *seconds*, and take the time of each message."""
    tag = next(_loads)
    numbers = iter(range(batch.messages))
    latencies: list[float] = []
    flaws: list[str] = []

    async def session() -> None:
        connection = None
        for number in numbers:
            started = perf_counter()
            try:
                if connection is None:
                    connection = await _Connection.opened(port)
                recipients = [f"{number * batch.recipients + at}x{tag}@{_DOMAIN}" for at in range(batch.recipients)]
                await connection.send(batch.sender, recipients, batch.named(f"{number}.{tag}"))
            except (OSError, asyncio.IncompleteReadError, _RefusedError) as error:
                flaws.append(str(error) or type(error).__name__)
                return
            latencies.append((perf_counter() - started) * 1_000_000)
            if not batch.reuse:
                await connection.close()
                connection = None
        if connection is not None:
            await connection.close()

    started = perf_counter()
    async with asyncio.timeout(seconds):
        await asyncio.gather(*(session() for _ in range(min(batch.sessions, batch.messages))))
    return Submitted(seconds=perf_counter() - started, latencies_us=latencies, flaw=flaws[0] if flaws else None)


class _RefusedError(Exception):
    """A relay did not take a message; the text is its answer."""


class _Connection:
    """One session, greeted; each command waits for its answer, as smtp-source's do."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def opened(cls, port: int) -> "_Connection":
        connection = cls(*await asyncio.open_connection("127.0.0.1", port))
        await connection._answered(b"2")
        await connection._say(b"EHLO mailer.example\r\n", b"2")
        return connection

    async def send(self, sender: str, recipients: Sequence[str], content: bytes) -> None:
        await self._say(f"MAIL FROM:<{sender}>\r\n".encode("ascii"), b"2")
        for recipient in recipients:
            await self._say(f"RCPT TO:<{recipient}>\r\n".encode("ascii"), b"2")
        await self._say(b"DATA\r\n", b"3")
        await self._say(content + b".\r\n", b"2")

    async def close(self) -> None:
        self._writer.write(b"QUIT\r\n")
        await self._reader.read()
        self._writer.close()

    async def _say(self, octets: bytes, expected: bytes) -> None:
        self._writer.write(octets)
        await self._answered(expected)

    async def _answered(self, expected: bytes) -> None:
        line = await self._reader.readuntil(b"\n")
        while line[3:4] == b"-":
            line = await self._reader.readuntil(b"\n")
        if not line.startswith(expected):
            raise _RefusedError(line.decode("utf-8", "replace").strip())
