"""What the rules make of visits when all of them are known: the definition, without a database."""

from collections import defaultdict
from collections.abc import Iterable

import msgspec

from courier.classify import Reason
from courier.rules import Rules
from courier.settings import CourierSettings
from courier.sighting import Sighting
from ledger.engagements import StoredHit
from ledger.events import EventType, encode_hit
from tests.mailings import READER
from tests.visitors import ACCEPTED, OWN_NETWORK, Visit


class Told(msgspec.Struct, frozen=True, kw_only=True):
    """A visit and what was made of it."""

    visit: Visit
    machine: bool
    reason: str


def stored(sighting: Sighting, number: int) -> StoredHit:
    """Return a hit as the ledger would have it."""
    judgement = sighting.judgement
    assert judgement is not None
    return StoredHit(
        message=1,
        id=number,
        recorded_at=ACCEPTED,
        occurred_at=sighting.at,
        type=sighting.type,
        source=sighting.source,
        link=sighting.link,
        machine=judgement.machine,
        reason=judgement.evidence,
        url=sighting.url,
        network=sighting.network,
        user_agent=sighting.user_agent,
        dedupe=sighting.id,
    )


def judge_all(log: Iterable[Visit], *, links: int = 4, seconds: float = 60) -> list[Told]:
    """Return what is made of each visit once all of them are known."""
    settings = CourierSettings(own_networks=(OWN_NETWORK,), burst_links=links, burst_seconds=seconds, early_seconds=1.0)
    rules = Rules(settings)
    by_message = defaultdict(list)
    for number, visit in enumerate(log):
        sighting = READER.read(encode_hit(visit.hit))
        assert sighting is not None
        row = stored(rules.placed(sighting, accepted_at=ACCEPTED), number)
        by_message[visit.hit.key].append((visit, row))
    told: list[Told] = []
    for known in by_message.values():
        revised = {row.id for row in rules.revised([row for _, row in known if row.type is not EventType.UNSUBSCRIBED])}
        for visit, row in known:
            reason = Reason.BURST if row.id in revised else (row.reason or "").partition("/")[0]
            told.append(Told(visit=visit, machine=row.machine or row.id in revised, reason=reason))
    return told
