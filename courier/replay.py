"""Send again, to AMS or to another sink: what it refused, and what happened while it was switched off."""

from datetime import datetime

from courier.classify import Reason
from courier.outbox import OPEN
from courier.settings import AmsSettings
from courier.sinks import Rule, tellings
from ledger import outbox, sinks
from ledger.store import Ledger

#: Events looked at in one transaction.
_PAGE = 1000


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


async def replay_sink_parked(ledger: Ledger, name: str) -> int:
    """Let every parked item of a sink wait again, also those in doubt, try it at once, and return their number."""
    return await sinks.unpark(ledger, name)


async def replay_sink_since(ledger: Ledger, since: datetime, rule: Rule) -> int:
    """Queue items for a sink for the events recorded since *since* (aware) that *rule* lets through; return how many.

    What was told since then is told once more, but for what a sink is told once; what still waits is left alone.
    """
    queued, behind = 0, None
    while True:
        async with ledger.transaction() as session:
            events, behind = await sinks.events_since(session, since, behind, _PAGE)
            if asked := tellings([rule], events):
                queued += await sinks.queue(session, asked)
        if behind is None:
            return queued
