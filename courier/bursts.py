"""Find bursts among the hits of one message: more of its links followed at once than a person follows.

A pure function of the set of hits, by the times at which they happened. Another hit only ever makes bursts, and only
of hits within the same seconds, so nothing that was found is lost when more becomes known.
"""

from collections import Counter, defaultdict, deque
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import TypeVar

import msgspec

_Key = TypeVar("_Key")


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """What of an open or a click says whether it belongs to a burst; equal `id` means the same hit."""

    id: bytes
    #: Who saw it: two that see one reader must not make a burst of him.
    source: str
    #: Which link of the message was clicked, by its number or else by its destination; none for an open.
    link: int | str | None
    #: Network and program, as far as they are known; none where they say nothing.
    visitor: tuple[str, str] | None
    at: datetime


def in_bursts(hits: Iterable[Seen], *, links: int, seconds: float) -> set[bytes]:
    """Return the ids of those of one message's *hits* that belong to a burst; none when *links* is 0.

    A burst is clicks on at least so many different links within so many seconds, first to last. An open belongs to it
    when one of its visitors made it within them too.
    """
    by_source: defaultdict[str, dict[bytes, Seen]] = defaultdict(dict)
    for hit in hits:
        by_source[hit.source][hit.id] = hit
    found: set[bytes] = set()
    if links:
        for known in by_source.values():
            found |= _Sweep(links, timedelta(seconds=seconds)).over(sorted(known.values(), key=lambda hit: hit.at))
    return found


class _Sweep:
    """A window of some seconds that moves over the hits; each enters, leaves and is found once."""

    def __init__(self, links: int, length: timedelta) -> None:
        self._links = links
        self._length = length
        self._found: set[bytes] = set()
        # What is in the window: clicks by link and by visitor; clicks and opens that are not found yet, oldest first.
        self._clicked: Counter[int | str] = Counter()
        self._clicking: Counter[tuple[str, str]] = Counter()
        self._clicks: deque[Seen] = deque()
        self._opens: defaultdict[tuple[str, str], deque[Seen]] = defaultdict(deque)
        # Visitors who clicked and opened, whose opens are not found yet.
        self._both: set[tuple[str, str]] = set()

    def over(self, hits: Sequence[Seen]) -> set[bytes]:
        """Return the ids of those of *hits*, in the order of their times, that belong to a burst."""
        oldest = 0
        for hit in hits:
            while hit.at - hits[oldest].at > self._length:
                self._leave(hits[oldest])
                oldest += 1
            self._enter(hit)
            if len(self._clicked) >= self._links:
                self._find()
        return self._found

    def _enter(self, hit: Seen) -> None:
        if hit.link is not None:
            self._clicked[hit.link] += 1
            self._clicks.append(hit)
            if hit.visitor is not None:
                self._clicking[hit.visitor] += 1
        elif hit.visitor is not None:
            self._opens[hit.visitor].append(hit)
        if hit.visitor is not None:
            self._pair(hit.visitor)

    def _leave(self, hit: Seen) -> None:
        if hit.link is not None:
            _drop(hit, self._clicks)
            _less(self._clicked, hit.link)
            if hit.visitor is not None:
                _less(self._clicking, hit.visitor)
        elif hit.visitor is not None:
            _drop(hit, self._opens[hit.visitor])
        if hit.visitor is not None:
            self._pair(hit.visitor)

    def _pair(self, visitor: tuple[str, str]) -> None:
        if visitor in self._clicking and self._opens.get(visitor):
            self._both.add(visitor)
        else:
            self._both.discard(visitor)

    def _find(self) -> None:
        self._found.update(hit.id for hit in self._clicks)
        self._clicks.clear()
        for visitor in self._both:
            self._found.update(hit.id for hit in self._opens.pop(visitor))
        self._both.clear()


def _drop(hit: Seen, waiting: deque[Seen]) -> None:
    # What is found does not wait any more.
    if waiting and waiting[0] is hit:
        waiting.popleft()


def _less(counter: Counter[_Key], key: _Key) -> None:
    counter[key] -= 1
    if not counter[key]:
        del counter[key]
