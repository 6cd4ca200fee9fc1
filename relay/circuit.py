"""Leave an upstream alone while it is unwell, and ask it again after a pause that grows.

Pure: the clock is given. A circuit closes with the first message that gets through; while it is open, one message is
let in for each pause, to find out.
"""

from collections.abc import Callable
from typing import Final, NewType

#: Seconds until an open circuit lets a message in again: at first, and at most; each failure doubles them.
FIRST_PAUSE, LONGEST_PAUSE = 5.0, 300.0

#: So many failures without a success in between open it: one connection too many is no outage.
IN_A_ROW = 3

#: What the message that was let in brings back, with what became of it.
Permit = NewType("Permit", int)


class Circuit:
    """Of one upstream. *clock* gives seconds that only rise."""

    def __init__(
        self,
        clock: Callable[[], float],
        *,
        first_pause: float = FIRST_PAUSE,
        longest_pause: float = LONGEST_PAUSE,
        in_a_row: int = IN_A_ROW,
    ) -> None:
        self._clock: Final = clock
        self._first_pause = first_pause
        self._longest_pause = longest_pause
        self._in_a_row = in_a_row
        self._failures = 0
        self._pause = first_pause
        # While it is open: when the next message is let in.
        self._until: float | None = None
        # Counts openings and closings: what was let in before the last of them has nothing to say any more.
        self._epoch = 0

    @property
    def is_open(self) -> bool:
        """The upstream is left alone, but for one message now and then."""
        return self._until is not None

    @property
    def wait(self) -> float:
        """Seconds until a message is let in."""
        return 0.0 if self._until is None else max(0.0, self._until - self._clock())

    @property
    def pause(self) -> float:
        """Seconds from one message that is let in to the next, while it is open."""
        return self._pause

    def enter(self) -> Permit | None:
        """Let a message in, or not."""
        if self._until is not None:
            if self.wait > 0.0:
                return None
            self._until = self._clock() + self._pause
        return Permit(self._epoch)

    def succeed(self, permit: Permit) -> bool:
        """Note that the upstream is well; true when that closed the circuit."""
        if permit != self._epoch:
            return False
        self._failures = 0
        if self._until is None:
            return False
        self._until, self._pause = None, self._first_pause
        self._epoch += 1
        return True

    def fail(self, permit: Permit, *, at_once: bool) -> bool:
        """Note that the upstream is not; true when that opened the circuit. *at_once*: one such failure is enough."""
        if permit != self._epoch:
            return False
        if self._until is not None:
            self._pause = min(self._pause * 2, self._longest_pause)
            self._until = self._clock() + self._pause
            return False
        self._failures += 1
        if self._failures < self._in_a_row and not at_once:
            return False
        self._failures = 0
        self._until = self._clock() + self._pause
        self._epoch += 1
        return True

    def leave(self, permit: Permit) -> None:
        """Note that nothing was learnt: while it is open, the next one may find out at once."""
        if permit == self._epoch and self._until is not None:
            self._until = self._clock()
