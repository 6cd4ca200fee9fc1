"""Submit mail as a mailer does that gives each message a Message-ID of its own, and take the time of each.

With one Message-ID for all, their aliases would stand side by side in the ledger's index, which costs next to nothing.
"""

import asyncio
import itertools
from collections.abc import Iterator, Sequence
from time import perf_counter
from typing import Final

from bench import mails
from bench.mailer import Batch, Submitted

_ID: Final = b"campaign.42.1@"
_TIMEOUT: Final = 300.0
_LINE: Final = "<p>A line about the autumn garden, the copper kettle and the linen on the oak table.</p>\r\n"
_LINK: Final = (
    '<p><a href="https://shop.example.com/autumn/offers/{}?utm_source=news&amp;utm_campaign=42">See</a></p>\r\n'
)

#: Each load's recipients and Message-IDs are nobody else's.
_loads: Iterator[int] = itertools.count(1)


def plain(octets: int, *, links: int) -> bytes:
    """Return a message with an HTML page of about *octets* and so many *links*, spread over it."""
    anchors = [_LINK.format(number) for number in range(links)]
    lines = max(0, octets - sum(map(len, anchors))) // len(_LINE)
    each, rest = divmod(lines, links + 1)
    page = _LINE * (each + rest) + "".join(anchor + _LINE * each for anchor in anchors)
    return mails.message(f"<html><body>\r\n{page}</body></html>\r\n".encode(), "8bit")


async def submit_letters(batch: Batch, *, port: int) -> Submitted:
    """Submit *batch* to *port* over connections that are kept; its content has to come from `mails` or from here."""
    tag = next(_loads)
    before, _, after = batch.content.partition(_ID)
    numbers = iter(range(batch.messages))
    latencies: list[float] = []

    async def session() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        await _answered(reader, b"2")
        await _say(reader, writer, b"EHLO mailer.example\r\n")
        for number in numbers:
            started = perf_counter()
            name = f"{number}.{tag}"
            commands = [f"MAIL FROM:<{batch.sender}>"]
            commands += [f"RCPT TO:<r{at}.{name}@example.net>" for at in range(batch.recipients)]
            for command in commands:
                await _say(reader, writer, f"{command}\r\n".encode("ascii"))
            await _say(reader, writer, b"DATA\r\n", expected=b"3")
            writer.writelines([before, f"letter.{name}@".encode("ascii"), after])
            await _say(reader, writer, b".\r\n")
            latencies.append((perf_counter() - started) * 1_000_000)
        writer.write(b"QUIT\r\n")
        await reader.read()
        writer.close()

    started = perf_counter()
    async with asyncio.timeout(_TIMEOUT):
        sessions = (session() for _ in range(min(batch.sessions, batch.messages)))
        ended = await asyncio.gather(*sessions, return_exceptions=True)
    flaws = [str(each) or type(each).__name__ for each in ended if each is not None]
    return Submitted(seconds=perf_counter() - started, latencies_us=latencies, flaw=_first(flaws))


class _RefusedError(Exception):
    """A relay did not take a message; the text is its answer."""


async def _say(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, octets: bytes, *, expected: bytes = b"2"
) -> None:
    writer.write(octets)
    await writer.drain()
    await _answered(reader, expected)


async def _answered(reader: asyncio.StreamReader, expected: bytes) -> None:
    line = await reader.readuntil(b"\n")
    while line[3:4] == b"-":
        line = await reader.readuntil(b"\n")
    if not line.startswith(expected):
        raise _RefusedError(line.decode("utf-8", "replace").strip())


def _first(flaws: Sequence[str]) -> str | None:
    return flaws[0] if flaws else None
