"""What one transaction of the recorder has done, and the metrics that tell it."""

from collections import Counter
from collections.abc import Sequence

import msgspec
import prometheus_client

from courier.attribute import Found
from courier.sighting import Sighting
from ledger.engagements import StoredHit
from ledger.parked import ParkedEvent

RECORDED = prometheus_client.Counter(
    "outrider_recorded_events", "Events recorded, by what happened and who did it.", ["type", "verdict"]
)
MATCHED = prometheus_client.Counter(
    "outrider_matched_events", "Events whose message was found, by who told them and by which id.", ["source", "step"]
)
REVISED = prometheus_client.Counter(
    "outrider_revised_events", "Events told as a person's and then found to be of a burst, by what happened.", ["type"]
)
NOT_AMS = prometheus_client.Counter(
    "outrider_not_ams_events", "Events recorded of mail that AMS does not know: it hears nothing of them."
)
PARKED = prometheus_client.Counter(
    "outrider_parked_events", "Events parked, by who told them and the reason.", ["source", "reason"]
)


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What one transaction has done."""

    recorded: Sequence[tuple[Sighting, Found]] = ()
    parked: Sequence[ParkedEvent] = ()
    #: Recorded earlier, and told as a machine's since.
    revised: Sequence[StoredHit] = ()


def count(outcome: Outcome) -> None:
    """Tell the metrics: each counter once for all that it counts, because telling costs more than counting."""
    told = [(sighting, found.step) for sighting, found in outcome.recorded]
    recorded = ((one.type, "" if one.judgement is None else one.judgement.verdict) for one, _ in told)
    # Tried once more in vain is parked once.
    parked = ((event.source, event.reason) for event in outcome.parked if event.parked_at is None)
    for metric, labels in (
        (RECORDED, recorded),
        (MATCHED, ((one.source, step) for one, step in told)),
        (REVISED, ((hit.type,) for hit in outcome.revised)),
        (PARKED, parked),
    ):
        for values, amount in Counter(labels).items():
            metric.labels(*values).inc(amount)
    NOT_AMS.inc(sum(found.message.mailing is None for _, found in outcome.recorded))
