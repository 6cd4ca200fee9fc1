"""Decide what AMS hears next: which events become items, what goes into a call, and what a refusal leads to.

Pure: a plan yields the calls it wants made and is sent their answers; `deliver` makes them. An item is lost by no
path: it is delivered, or waits, or is parked with the answer that refused it while it stood alone.
"""

from collections.abc import Generator, Sequence
from typing import Generic, Literal, TypeAlias, TypeVar

import msgspec

from courier.answer import NO_ANSWER, Accepted, Answer, Refused, Unanswered, alike, worded
from courier.classify import Reason
from courier.settings import AmsSettings
from courier.sighting import Sighting
from ledger.events import EventType

#: The url under which AMS counts an open.
OPEN = "open_trace"
#: The email of an item whose recipient is not known.
NO_EMAIL = "no_email"

_BACKOFF_FIRST = 1.0
_BACKOFF_MOST = 900.0

# The JSON around an address and a url: `{"email":"","url":""},`.
_ITEM_FRAME = 24


#: What is told: an item of AMS's, or another sink's.
T = TypeVar("T")


class Item(msgspec.Struct, frozen=True, kw_only=True):
    """One element of a call."""

    id: int
    email: str
    url: str


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """How delivery of a mailing went before this turn."""

    failures: int = 0
    last_error: str | None = None
    held: str | None = None


class Ending(msgspec.Struct, Generic[T], frozen=True, kw_only=True):
    """How a turn ended; what was accepted has been delivered already."""

    #: Items to set aside, each with the answer that refused it.
    parked: tuple[tuple[T, str], ...] = ()
    #: Why the mailing waits before it is tried again; none when it went well.
    error: str | None = None
    #: Why the whole mailing is held; none when it is not.
    held: str | None = None


#: What a plan asks for: a call with these items, or whether AMS is healthy.
Step: TypeAlias = Sequence[T] | Literal["probe"]
Plan: TypeAlias = Generator[Step[T], Answer, Ending[T]]


def ams_url(sighting: Sighting, ams: AmsSettings, *, injected: bool) -> str | None:
    """Return the url under which AMS hears of *sighting*; none when it does not.

    A click is told as a click alone: no open is made up for it. What a provider saw of a message with our own pixel
    and links (*injected*) we saw too, and it is told once.
    """
    judgement = sighting.judgement
    if not ams.url or (judgement is not None and judgement.reason is Reason.HEAD_REQUEST):
        return None
    if sighting.machine and ams.machines == "exclude":
        return None
    theirs = injected and sighting.notice is not None
    match sighting.type:
        case EventType.OPENED:
            return None if theirs else OPEN
        case EventType.CLICKED:
            return None if theirs else sighting.url or None
        case EventType.UNSUBSCRIBED:
            return ams.unsubscribe_action
        case _:
            return None


def email_of(recipient: bytes | None) -> str | None:
    """Return the address as AMS is told it, `no_email` where there is none, or none when JSON cannot carry it."""
    if not recipient:
        return NO_EMAIL
    try:
        return recipient.decode("utf-8")
    except UnicodeDecodeError:
        return None


def fill(items: Sequence[Item], *, max_batch: int, max_bytes: int) -> Sequence[Item]:
    """Return the items at the head of *items* that fit into one call: always one, never more than both limits let."""
    room = max_bytes
    for count, item in enumerate(items[:max_batch]):
        room -= _ITEM_FRAME + len(item.email.encode()) + len(item.url.encode())
        if room < 0 and count:
            return items[:count]
    return items[:max_batch]


def backoff(failures: int, jitter: float) -> float:
    """Return seconds to wait after so many failures in a row; *jitter* is a random number in [0, 1)."""
    return jitter * min(_BACKOFF_MOST, _BACKOFF_FIRST * 2.0 ** min(failures - 1, 20))


def failures_after(standing: Standing, error: str) -> int:
    """Return how often in a row a mailing has failed, now that *error* came.

    A refusal after an outage is a first failure again, and so is an outage after refusals: each kind backs off anew.
    """
    before = standing.last_error
    if before is not None and before.startswith(NO_ANSWER) == error.startswith(NO_ANSWER):
        return standing.failures + 1
    return 1


def turn(batch: Sequence[T], standing: Standing, *, secret: str) -> Plan[T]:
    """Plan one mailing's turn: send *batch*, and find out whose fault a refusal is.

    A mailing that is held sends one item as a scout, another each time. *secret* is kept out of every reason.
    """
    vouched = False
    if standing.held is not None:
        scout = batch[standing.failures % len(batch)]
        answer = yield [scout]
        if not isinstance(answer, Accepted):
            reason = worded(answer, secret=secret)
            return Ending(error=reason, held=reason if isinstance(answer, Refused) else standing.held)
        vouched = True
        batch = [item for item in batch if item is not scout]
        if not batch:
            return Ending()
    answer = yield batch
    if isinstance(answer, Accepted):
        return Ending()
    reason = worded(answer, secret=secret)
    if isinstance(answer, Unanswered):
        return Ending(error=reason)
    if not vouched:
        # Once may be a moment's trouble inside AMS; twice the same, while it is healthy, is about what we sent.
        if not alike(standing.last_error, reason):
            return Ending(error=reason)
        if not isinstance((yield "probe"), Accepted):
            return Ending(error=reason)
        if len(batch) == 1:
            # Nothing has shown that AMS takes this mailing at all, so its one item may be innocent.
            return Ending(error=reason, held=reason)
    return (yield from _Bisection(batch, reason, vouched=vouched, secret=secret).run())


class _Bisection(Generic[T]):
    """The search for the items that a refused batch was refused for.

    *vouched* says that AMS has taken something of this mailing in this turn: only then is a refusal about an item.
    """

    def __init__(self, batch: Sequence[T], reason: str, *, vouched: bool, secret: str) -> None:
        # Parts that hold a bad item; the reason is none where that is inferred and not yet heard.
        self._suspects: list[tuple[Sequence[T], str | None]] = [(batch, reason)]
        self._bad: list[tuple[T, str]] = []
        # How many of `_bad` were found before AMS last took something: those are beyond doubt.
        self._sure = 0
        self._vouched = vouched
        self._secret = secret
        self._last_reason = reason
        self._refusals = 0
        # A search needs two refusals a level; more in a row means that AMS takes nothing of this mailing any more.
        self._patience = 2 * len(batch).bit_length() + 2

    def run(self) -> Plan[T]:
        while self._suspects:
            part, reason = self._suspects.pop()
            ending = yield from (self._alone(part, reason) if len(part) == 1 else self._halve(part))
            if ending is not None:
                return ending
            if self._refusals > self._patience and self._suspects:
                return self._end(held=True)
        return Ending(parked=tuple(self._bad))

    def _alone(self, part: Sequence[T], reason: str | None) -> Generator[Step[T], Answer, Ending[T] | None]:
        if reason is None:
            answer = yield part
            reason = self._heard(answer)
            if isinstance(answer, Unanswered):
                return self._end(held=False)
        if reason is not None:
            self._bad.append((part[0], reason))
        return None

    def _halve(self, part: Sequence[T]) -> Generator[Step[T], Answer, Ending[T] | None]:
        middle = len(part) // 2
        left, right = part[:middle], part[middle:]
        answer = yield left
        first = self._heard(answer)
        if isinstance(answer, Unanswered):
            return self._end(held=False)
        if first is None:
            self._suspects.append((right, None))
            return None
        answer = yield right
        second = self._heard(answer)
        if isinstance(answer, Unanswered):
            return self._end(held=False)
        if second is not None:
            if alike(first, second) and not self._vouched:
                return self._end(held=True)
            self._suspects.append((right, second))
        self._suspects.append((left, first))
        return None

    def _heard(self, answer: Answer) -> str | None:
        if isinstance(answer, Accepted):
            self._vouched = True
            self._sure = len(self._bad)
            self._refusals = 0
            return None
        self._refusals += 1
        self._last_reason = worded(answer, secret=self._secret)
        return self._last_reason

    def _end(self, *, held: bool) -> Ending[T]:
        reason = self._last_reason
        return Ending(parked=tuple(self._bad[: self._sure]), error=reason, held=reason if held else None)
