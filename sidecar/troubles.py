"""Say which stage between a click and AMS is unwell, and why. Pure; the limits are those of deploy/alerts.yml."""

from collections.abc import Iterator

from courier.stream import Backlog
from ledger.standing import Standing

#: Seconds from which on a wait is more than a retry.
LONG_QUEUED, LONG_UNTOLD = 3600.0, 1800.0
#: Hits in the stream from which on the courier does not keep up.
MANY_HITS = 100_000


def troubles(standing: Standing, backlog: Backlog | None) -> list[str]:
    """Return a line for each stage that is unwell, in the order of the pipe; *backlog* is none where Redis is away."""
    return [*_mail(standing), *_hits(standing, backlog), *_told(standing)]


def _mail(standing: Standing) -> Iterator[str]:
    for one in standing.upstreams:
        if one.left_since is not None:
            yield f"upstream {one.upstream} is left alone ({one.reason}): its mail waits"
    if standing.queued and not standing.processes.get("relay"):
        yield "no relay runs: queued mail waits"
    elif standing.oldest_seconds > LONG_QUEUED:
        yield f"the oldest queued message has waited for {standing.oldest_seconds / 3600:.1f} h"


def _hits(standing: Standing, backlog: Backlog | None) -> Iterator[str]:
    if backlog is None:
        yield "Redis does not answer: hits wait in the trackers' journals"
    waiting = 0 if backlog is None else backlog.hits
    if (waiting or standing.ams_pending) and not standing.processes.get("courier"):
        yield "no courier runs: hits are not recorded, and AMS hears nothing"
    elif waiting > MANY_HITS:
        yield f"{waiting} hits wait to be recorded: the courier does not keep up"
    if standing.hits.missing:
        yield f"{standing.hits.missing} hits were kept by a tracker and never came"


def _told(standing: Standing) -> Iterator[str]:
    if standing.ams_oldest_seconds > LONG_UNTOLD:
        why = "" if standing.ams_error is None else f" ({standing.ams_error})"
        yield f"AMS has not heard of the oldest event for {standing.ams_oldest_seconds / 3600:.1f} h{why}"
    if standing.ams_parked:
        yield f"AMS refused {standing.ams_parked} items, which are parked"
    for sink in standing.sinks:
        if sink.held is not None:
            yield f"sink {sink.name} is held: {sink.held}"
        elif sink.oldest_seconds > LONG_UNTOLD:
            why = "" if sink.last_error is None else f" ({sink.last_error})"
            yield f"sink {sink.name} has not heard of the oldest event for {sink.oldest_seconds / 3600:.1f} h{why}"
