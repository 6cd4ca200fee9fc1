"""What an origin of history offers: pages of what happened, each with the place where the next begins.

Whatever it reads, it speaks in providers' notices, so that history means what events of today mean.
"""

from collections import Counter
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime
from typing import Protocol

import msgspec

from providers.notice import Notice
from sidecar.answers import mailbox

#: Why a row was left out, in the words of the summary.
NO_ADDRESS = "without an address that mail can go to"


class OriginError(Exception):
    """History could not be read: the text says why, and what to do, to the person who typed the command."""


class Page(msgspec.Struct, frozen=True, kw_only=True):
    """What one read gave."""

    notices: Sequence[Notice]
    #: How many rows it had, with those that are left out; one may tell several things.
    rows: int
    #: Where the next page begins, in the origin's own words; None: there is no more.
    following: str | None
    #: Rows that tell of nobody, by the reason.
    left_out: Counter[str]


class Origin(Protocol):
    """Where history comes from."""

    #: What stands in the ledger as its name.
    name: str

    def pages(self, report: str, place: str) -> AsyncIterator[Page]:
        """Yield a report from *place* on; empty: from its beginning. Raises `OriginError`."""
        ...


def address_of(text: str) -> str | None:
    """Return the address that *text* is, without white space around it; none for what is no address."""
    try:
        return mailbox(text.strip())
    except ValueError:
        return None


def milliseconds(text: str) -> int | None:
    """Return the time that *text* names in ISO 8601, UTC where it names no zone, in milliseconds since the epoch."""
    try:
        found = datetime.fromisoformat(text.strip())
    except ValueError:
        return None
    aware = found if found.tzinfo is not None else found.replace(tzinfo=UTC)
    try:
        at_ms = round(aware.timestamp() * 1000)
    except (OverflowError, ValueError):
        return None
    # What is from before the epoch is no e-mail's time.
    return at_ms if at_ms >= 0 else None
