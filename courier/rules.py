"""Judge hits by more than their request: whence and when they came, and what stands beside them in the ledger.

Every rule goes by the time of the hit, never by that of its recording, so any order and any batching ends alike. A hit
that was taken for a person's is told anew when it turns out to be part of a burst; nothing else takes a label back.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime

import msgspec

from courier.attribute import Found
from courier.bursts import Seen, in_bursts
from courier.classify import Judgement, OwnNetworks, Reason, Verdict, like_a_person, too_early
from courier.engagement import OWN
from courier.settings import CourierSettings
from courier.sighting import Sighting
from ledger import engagements
from ledger.engagements import StoredHit, Tally
from ledger.events import EventType
from ledger.store import Session

#: What a hit of a burst is.
IN_A_BURST = Judgement(verdict=Verdict.MACHINE, reason=Reason.BURST)

_HITS = frozenset({EventType.OPENED, EventType.CLICKED})
# By a name of this module, because a look at an enum's class takes longer than what is done with it.
_CLICKED = EventType.CLICKED


class Rules:
    """The rules as the operator has set them."""

    def __init__(self, settings: CourierSettings) -> None:
        self._links = settings.burst_links
        self._seconds = settings.burst_seconds
        self._early = settings.early_seconds
        self._own = OwnNetworks(settings.own_networks)

    def placed(self, sighting: Sighting, *, accepted_at: datetime) -> Sighting:
        """Return *sighting* as judged by whence and when it came too; its message was accepted *accepted_at*."""
        judgement = sighting.judgement
        if judgement is None or judgement.machine or sighting.type not in _HITS:
            return sighting
        if self._own.hold(sighting.network):
            reason = Reason.OWN_NETWORK
        # A provider's clock is not ours, and many count whole seconds.
        elif self._early and sighting.source == OWN and too_early(sighting.at, accepted_at, self._early):
            reason = Reason.EARLY
        else:
            return sighting
        return msgspec.structs.replace(sighting, judgement=Judgement(verdict=Verdict.MACHINE, reason=reason))

    def revised(self, hits: Sequence[StoredHit]) -> list[StoredHit]:
        """Return those of one message's *hits* that counted as a person's and belong to a burst."""
        candidates = [hit for hit in hits if like_a_person(hit.reason, machine=hit.machine)]
        found = in_bursts(map(_seen, candidates), links=self._links, seconds=self._seconds)
        return [hit for hit in candidates if hit.dedupe in found and not hit.machine]

    async def revise(
        self, session: Session, known: Iterable[tuple[Sighting, Found]], told: Mapping[int, Sequence[Tally]]
    ) -> list[StoredHit]:
        """Label the hits that belong to bursts, now that those of *known* are recorded, and return them as they were.

        *told* counts all that is recorded of their messages: it is asked first, so that only messages with clicks
        enough for a burst are read.
        """
        spans = self._spans(known, told)
        if not spans:
            return []
        hits = await engagements.hits_around(session, spans, self._seconds)
        revised = [hit for message in sorted(hits) for hit in self.revised(hits[message])]
        if revised:
            await engagements.rejudge(session, revised, IN_A_BURST.evidence)
        return revised

    def _spans(
        self, known: Iterable[tuple[Sighting, Found]], told: Mapping[int, Sequence[Tally]]
    ) -> dict[int, tuple[datetime, datetime]]:
        """Return the messages of which a burst may have become complete, with their first and last new hit."""
        candidates = {message for message, tallies in told.items() if self._enough(tallies)}
        if not candidates:
            return {}
        times: dict[int, list[datetime]] = {}
        for sighting, found in known:
            judgement, message = sighting.judgement, found.message.id
            if message not in candidates or judgement is None or sighting.type not in _HITS:
                continue
            if like_a_person(judgement.reason, machine=judgement.machine):
                times.setdefault(message, []).append(sighting.at)
        return {message: (min(at), max(at)) for message, at in times.items()}

    def _enough(self, told: Iterable[Tally]) -> bool:
        clicks = 0
        for one in told:
            if one.type is _CLICKED:
                clicks += one.amount
        return bool(self._links) and clicks >= self._links


def labelled(known: Sequence[tuple[Sighting, Found]], revised: Collection[StoredHit]) -> list[tuple[Sighting, Found]]:
    """Return *known* with the label of a burst on those that were *revised*."""
    ids = {hit.dedupe for hit in revised}
    return [
        (msgspec.structs.replace(sighting, judgement=IN_A_BURST) if sighting.id in ids else sighting, found)
        for sighting, found in known
    ]


def _seen(hit: StoredHit) -> Seen:
    clicked = hit.type is EventType.CLICKED
    # An address that nobody knows is not the same as another.
    visitor = (hit.network, hit.user_agent) if hit.network and hit.user_agent else None
    return Seen(
        id=hit.dedupe,
        source=hit.source,
        link=(hit.url or "" if hit.link is None else hit.link) if clicked else None,
        visitor=visitor,
        at=hit.occurred_at,
    )
