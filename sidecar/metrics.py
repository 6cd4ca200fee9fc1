"""Write the counters of this process, or of all processes that count together, as Prometheus reads them.

Processes count together when PROMETHEUS_MULTIPROC_DIR names a directory before the first counter is declared; then any
of them answers for all.
"""

import os

from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, CollectorRegistry, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

#: The Content-Type of `exposition`.
CONTENT_TYPE = CONTENT_TYPE_LATEST

_SHARED = "PROMETHEUS_MULTIPROC_DIR"


def exposition() -> bytes:
    """Return every counter in Prometheus' text format."""
    if not os.environ.get(_SHARED):
        return generate_latest(REGISTRY)
    shared = CollectorRegistry()
    # Reads the files of every process, also of those that have ended: a counter never falls.
    MultiProcessCollector(shared)  # type: ignore[no-untyped-call]  # the library gives no types here
    return generate_latest(shared)
