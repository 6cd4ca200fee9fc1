"""Send to AMS again: what it refused, and what happened while it was switched off."""

from datetime import datetime

from courier.classify import Reason
from courier.outbox import OPEN
from courier.settings import AmsSettings
from ledger import outbox
from ledger.store import Ledger


async def replay_parked(ledger: Ledger) -> int:
    """Let every parked item wait for AMS again, try held mailings at once, and return the number of items."""
    return await outbox.unpark(ledger)


async def replay_since(ledger: Ledger, since: datetime, settings: AmsSettings) -> int:
    """Queue items for the events recorded since *since* (aware), and return their number.

    Meant for a time in which AMS was off: what was delivered since then is sent once more. Events whose items still
    wait are left alone, so running it twice in a row queues nothing twice.
    """
    return await outbox.rebuild(
        ledger,
        since,
        open_url=OPEN,
        unsubscribe_url=settings.unsubscribe_action,
        machines=settings.machines == "include",
        never=Reason.HEAD_REQUEST,
    )
