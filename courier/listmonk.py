"""Write a bounce or a complaint as listmonk's `/webhooks/bounce` takes it. Pure.

listmonk counts what it is told and blocks subscribers by the count, and cannot tell a copy: each is one request.
The subscriber is named by UUID alone, and taken out of a server's words, so that no address leaves.
"""

import base64
import uuid
from datetime import datetime

import msgspec

from courier.answer import nameless
from ledger.sinks import Waiting

#: Below listmonk's own address.
PATH = "/webhooks/bounce"

_encode = msgspec.json.Encoder().encode


class _Bounce(msgspec.Struct, frozen=True, kw_only=True):
    subscriber_uuid: str
    campaign_uuid: str
    source: str
    #: `hard`, `soft` or `complaint`.
    type: str
    meta: dict[str, str]
    created_at: datetime


def compose(event: Waiting) -> bytes:
    """Return one bounce as JSON; its message is one of listmonk's."""
    meta = {
        "message_id": event.message_id,
        "code": event.smtp_code,
        "enhanced_code": event.enhanced_code,
        "description": nameless(event.description or ""),
    }
    return _encode(
        _Bounce(
            subscriber_uuid=str(uuid.UUID(bytes=event.subscriber)),
            campaign_uuid=event.campaign_id or "",
            source=f"outrider/{event.teller}",
            type=event.kind,
            meta={name: text for name, text in meta.items() if text},
            created_at=event.occurred_at,
        )
    )


def headers(user: str, token: str) -> dict[str, str]:
    """Return the headers of a request of *user*'s."""
    credentials = base64.b64encode(f"{user}:{token}".encode()).decode("ascii")
    return {"Content-Type": "application/json", "Authorization": f"Basic {credentials}"}
