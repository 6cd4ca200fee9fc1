"""What becomes of a provider's request, and the status that makes the provider do the right thing about it.

A provider reads statuses as orders: 401 and 400 may end its retries, 503 and 500 ask for one. What merely matches no
message of ours is none of these.
"""

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType

from aiohttp import web

from tracker.pages import plain

_RETRY = MappingProxyType({"Retry-After": "30"})


class Outcome(StrEnum):
    """What became of a request; the label `answer` of the metric."""

    RECORDED = "recorded"
    #: Its word was used before: it is recorded already.
    REPEATED = "repeated"
    PROBED = "probed"
    METHOD = "method"
    UNAUTHENTIC = "unauthentic"
    MALFORMED = "malformed"
    TOO_LARGE = "too_large"
    TOO_SLOW = "too_slow"
    #: Packed with a Content-Encoding, which no provider does.
    PACKED = "packed"
    #: Too much is being read at once, or another request with the same word is.
    BUSY = "busy"
    #: The document that would prove it could not be had.
    UNPROVABLE = "unprovable"
    NOT_KEPT = "not_kept"
    #: A fault of ours.
    FAILED = "failed"


_REFUSALS: Mapping[Outcome, tuple[int, str, Mapping[str, str]]] = MappingProxyType(
    {
        Outcome.METHOD: (405, "Method Not Allowed", {"Allow": "HEAD, POST"}),
        # SNS sends the credentials of its URL only to who asks for them so.
        Outcome.UNAUTHENTIC: (401, "Unauthorized", {"WWW-Authenticate": 'Basic realm="webhooks"'}),
        Outcome.MALFORMED: (400, "Bad Request", {}),
        Outcome.TOO_LARGE: (413, "Request Entity Too Large", {}),
        Outcome.TOO_SLOW: (408, "Request Timeout", {}),
        Outcome.PACKED: (415, "Unsupported Media Type", {"Accept-Encoding": "identity"}),
        Outcome.BUSY: (503, "Service Unavailable", _RETRY),
        Outcome.UNPROVABLE: (503, "Service Unavailable", _RETRY),
        Outcome.NOT_KEPT: (503, "Service Unavailable", _RETRY),
        Outcome.FAILED: (500, "Internal Server Error", {}),
    }
)


class RefusedError(Exception):
    """The request is refused, as `outcome` says."""

    def __init__(self, outcome: Outcome) -> None:
        super().__init__(outcome.value)
        self.outcome = outcome


def refusal(outcome: Outcome) -> web.Response:
    """Return the answer to a request that is refused: its status, and nothing of what was sent."""
    status, phrase, headers = _REFUSALS[outcome]
    response = plain(status, f"{status} {phrase}")
    response.headers.update(headers)
    if outcome in {Outcome.TOO_LARGE, Outcome.TOO_SLOW, Outcome.PACKED, Outcome.BUSY}:
        # The rest of the body is nothing that we want to read.
        response.force_close()
    return response
