"""Which identities this process has in hand: one submission of an identity at a time, the next one waits.

Inside a process a repeat waits here; between processes the ledger's rows and leases say who works on what.
"""

import asyncio
from collections.abc import Iterable, Sequence

from ledger.ids import MessageKey


class Hands:
    """A lock for each identity, by the key of its first generation."""

    def __init__(self) -> None:
        self._held: dict[MessageKey, asyncio.Event] = {}

    async def take(self, keys: Iterable[MessageKey], *, patience: float) -> Sequence[MessageKey] | None:
        """Take all of *keys* and return them; none, and nothing taken, when one stayed taken for *patience* seconds."""
        # In one order for everybody, so that two submissions never wait for each other.
        wanted = sorted(set(keys))
        if self._held.keys().isdisjoint(wanted):
            # Nearly always: no clock is needed.
            self._held.update((key, asyncio.Event()) for key in wanted)
            return wanted
        taken: list[MessageKey] = []
        try:
            async with asyncio.timeout(patience):
                for key in wanted:
                    while (held := self._held.get(key)) is not None:
                        await held.wait()
                    self._held[key] = asyncio.Event()
                    taken.append(key)
        except TimeoutError:
            self.release(taken)
            return None
        except BaseException:
            self.release(taken)
            raise
        return taken

    def release(self, keys: Iterable[MessageKey]) -> None:
        """Let the next ones have *keys*."""
        for key in keys:
            self._held.pop(key).set()
