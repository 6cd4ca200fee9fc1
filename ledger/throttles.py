"""What an operator said about how fast a campaign's mail may leave, as it stands with each of its messages.

It is read where a message is correlated and where it is claimed, so that a new word holds for the next message.
"""

import msgspec

from ledger.store import Record

#: Of a campaign that has no limit whatever the setting says.
UNLIMITED = "none"


class Throttle(msgspec.Struct, frozen=True, kw_only=True):
    """A campaign and the rate of its own."""

    #: The campaign's row.
    campaign: int
    #: As the operator wrote it, `none` for no limit; None: the setting's.
    rate: str | None
    #: Another one voids all turns that were given out before.
    epoch: int


def throttle_of(row: Record) -> Throttle | None:
    """Return what holds for the message of *row*; None for mail without a campaign."""
    if row["campaign"] is None:
        return None
    return Throttle(campaign=row["campaign"], rate=row["rate"], epoch=row["rate_epoch"] or 0)
