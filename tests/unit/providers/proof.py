"""What proves a request of one provider: made afresh by each file of `samples`."""

from collections.abc import Mapping

import msgspec

from providers.webhook import Trust


class Proof(msgspec.Struct, frozen=True, kw_only=True):
    """The operator's side and the provider's side of one proven request."""

    trust: Trust
    #: Names in lower case.
    headers: Mapping[str, str] = {}
    query: Mapping[str, str] = {}
    #: What the tracker would have fetched, by address.
    documents: Mapping[str, bytes] = {}
