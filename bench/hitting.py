"""Append hits to the stream in groups of a given size: what Valkey alone takes."""

import secrets
from time import perf_counter, time_ns
from typing import Any, Final

from bench.mailing import AGENTS
from bench.paired import Outcome
from ledger.events import EventType, Hit, encode_hit
from ledger.stream import FIELD, STREAM

_URL: Final = "https://shop.example.com/spring/offers?utm_source=newsletter&utm_campaign=spring&item=7"


class Hitting:
    """Appends clicks, and sees that the stream has them."""

    def __init__(self, client: Any) -> None:
        self._client = client

    async def run(self, total: int, *, group: int) -> Outcome:
        """Append *total* hits, one *group* after the other."""
        await self._client.xtrim(STREAM, maxlen=0, approximate=False)
        payloads = [_payload() for _ in range(total)]
        started = perf_counter()
        for first in range(0, total, group):
            pipe = self._client.pipeline(transaction=False)
            for payload in payloads[first : first + group]:
                pipe.xadd(STREAM, {FIELD: payload})
            await pipe.execute()
        seconds = perf_counter() - started
        kept = await self._client.xlen(STREAM)
        return Outcome(units=total, seconds=seconds, flaw=None if kept == total else f"{kept} of {total} kept")


def _payload() -> bytes:
    return encode_hit(
        Hit(
            id=secrets.token_bytes(16),
            type=EventType.CLICKED,
            key=secrets.token_bytes(16),
            at_ms=time_ns() // 1_000_000,
            link=7,
            url=_URL,
            network="192.0.2.0/24",
            user_agent=AGENTS[0],
        )
    )
