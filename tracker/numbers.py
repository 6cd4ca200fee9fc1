"""Number the hits of this process, so that the ledger can tell when one of them never came.

A hit carries its own number and how far everything before it is settled: in the stream, or known to be lost. What is
under way or waits in the journal is not, so it holds that mark back; nothing that merely waits may look lost.
"""

from collections import deque

import msgspec

from ledger.events import Hit


class Numbers:
    """The numbers of one start of one tracker, which *writer* names: 8 bytes that no other start has."""

    def __init__(self, writer: bytes) -> None:
        self._writer = writer
        self._last = 0
        self._lost = 0
        # Under way, in order; those behind the first that have ended already.
        self._open: deque[int] = deque()
        self._ended: set[int] = set()
        # The first that went into the journal since it was last empty.
        self._journaled: int | None = None

    def numbered(self, hit: Hit) -> Hit:
        """Return *hit* with the next number; say what became of it with one of the three below."""
        self._last += 1
        self._open.append(self._last)
        unsettled = self._open[0] if self._journaled is None else min(self._open[0], self._journaled)
        return msgspec.structs.replace(
            hit, writer=self._writer, number=self._last, settled=unsettled - 1, lost=self._lost
        )

    def streamed(self, hit: Hit) -> None:
        """The stream has *hit*."""
        self._end(hit.number)

    def journaled(self, hit: Hit) -> None:
        """The journal has *hit*."""
        if self._journaled is None or hit.number < self._journaled:
            self._journaled = hit.number
        self._end(hit.number)

    def lost(self, hit: Hit) -> None:
        """Nothing has *hit*."""
        self._lost += 1
        self._end(hit.number)

    def drained(self) -> None:
        """The stream has all that was journaled."""
        self._journaled = None

    def _end(self, number: int) -> None:
        self._ended.add(number)
        while self._open and self._open[0] in self._ended:
            self._ended.remove(self._open.popleft())
