"""What Event Grid posts about mail of Azure Communication Services, in both schemas."""

import secrets

from providers.webhook import Trust
from tests.unit.providers.proof import Proof

KEY = "a2b3c4d5e6f7g2h3i4j5k6l7m4"
MESSAGE_ID = f"{KEY}@example.org"
TOPIC = (
    "/subscriptions/00000000-0000-0000-0000-000000000000/resourcegroups/mail"
    "/providers/microsoft.communication/communicationservices/example"
)
DELIVERY = "Microsoft.Communication.EmailDeliveryReportReceived"
ENGAGEMENT = "Microsoft.Communication.EmailEngagementTrackingReportReceived"

_DELIVERED: dict[str, object] = {
    "sender": "news@example.org",
    "recipient": "ann@example.net",
    "messageId": "11111111-aaaa-4bbb-8ccc-000000000001",
    "internetMessageId": f"<{MESSAGE_ID}>",
    "status": "Delivered",
    "deliveryStatusDetails": {
        "statusMessage": "250 2.0.0 accepted",
        "recipientMailServerHostName": "mx.example.net",
    },
    "deliveryAttemptTimeStamp": "2026-01-02T03:04:04.1234567+00:00",
}
_CLICKED: dict[str, object] = {
    "sender": "news@example.org",
    "recipient": "ann@example.net",
    # Not the one of the delivery report: Azure names the same message differently here.
    "messageId": "22222222-dddd-4eee-8fff-000000000002",
    "internetMessageId": f"<{MESSAGE_ID}>",
    "userActionTimeStamp": "2026-01-02T03:00:59Z",
    "engagementType": "click",
    "engagementContext": "https://example.org/page?a=1",
    "userAgent": "Mozilla/5.0 (example)",
}


def grid(kind: str, properties: dict[str, object], *, identity: str = "e-1") -> dict[str, object]:
    """Return one event in Event Grid's own schema."""
    return {
        "id": identity,
        "topic": TOPIC,
        "subject": "sender/news@example.org/message/11111111-aaaa-4bbb-8ccc-000000000001",
        "data": properties,
        "eventType": kind,
        "dataVersion": "1.0",
        "metadataVersion": "1",
        "eventTime": "2026-01-02T03:04:05.7654321Z",
    }


def cloud(kind: str, properties: dict[str, object], *, identity: str = "e-1") -> dict[str, object]:
    """Return the same as a CloudEvent 1.0."""
    return {
        "specversion": "1.0",
        "id": identity,
        "source": TOPIC,
        "subject": "sender/news@example.org/message/11111111-aaaa-4bbb-8ccc-000000000001",
        "type": kind,
        "time": "2026-01-02T03:04:05.7654321Z",
        "data": properties,
    }


def delivery(**changed: object) -> dict[str, object]:
    """Return the properties of a delivery report; a value of None leaves the field out."""
    return {name: value for name, value in (_DELIVERED | changed).items() if value is not None}


def engagement(**changed: object) -> dict[str, object]:
    """Return the properties of an engagement report; a value of None leaves the field out."""
    return {name: value for name, value in (_CLICKED | changed).items() if value is not None}


def told(message: str) -> dict[str, object]:
    """Return `deliveryStatusDetails` as an object."""
    return {"statusMessage": message}


def validation(**properties: object) -> dict[str, object]:
    """Return the event with which a new subscription introduces itself."""
    return grid("Microsoft.EventGrid.SubscriptionValidationEvent", properties)


VALIDATION_URL = "https://rp-westeurope.eventgrid.azure.net:553/eventsubscriptions/s/validate?id=1&t=2026-01-02&token=x"

EVENTS: list[tuple[str, object]] = [
    ("delivered", [grid(DELIVERY, delivery())]),
    ("delivered as CloudEvent", cloud(DELIVERY, delivery())),
    ("delivered, other spelling", [grid(DELIVERY, {
        "Recipient": "ann@example.net", "MessageId": "m-1", "InternetMessageId": MESSAGE_ID, "Status": "DELIVERED",
        "DeliveryStatusDetails": "250 2.0.0 accepted", "deliveryAttemptTimestamp": "2026-01-02T03:04:04Z",
    })]),
    ("delivered, no details", [grid(DELIVERY, delivery(deliveryStatusDetails=None))]),
    ("expanded", [grid(DELIVERY, delivery(status="Expanded", deliveryStatusDetails=None))]),
    ("bounced", [grid(DELIVERY, delivery(status="Bounced", deliveryStatusDetails=told("550 5.1.1 no such user")))]),
    ("bounced by policy", [
        grid(DELIVERY, delivery(status="Bounced", deliveryStatusDetails=told("550 5.7.1 sender is listed")))
    ]),
    ("bounced, full", [grid(DELIVERY, delivery(status="Bounced", deliveryStatusDetails=told("552 5.2.2 over quota")))]),
    ("failed", [grid(DELIVERY, delivery(status="Failed", deliveryStatusDetails=None))]),
    ("failed for a while", [grid(DELIVERY, delivery(status="Failed", deliveryStatusDetails=told("451 4.4.7 old")))]),
    ("suppressed", [
        grid(DELIVERY, delivery(status="Suppressed", internetMessageId=None, deliveryStatusDetails=told("on the list")))
    ]),
    ("quarantined", [grid(DELIVERY, delivery(status="Quarantined"))]),
    ("filtered", [grid(DELIVERY, delivery(status="FilteredSpam", deliveryStatusDetails={}))]),
    ("another status", [grid(DELIVERY, delivery(status="Teleported", deliveryStatusDetails=None))]),
    ("viewed", [grid(ENGAGEMENT, engagement(engagementType="view", engagementContext=None))]),
    ("viewed, as the SDK spells it", cloud(ENGAGEMENT, engagement(
        engagementType=None, engagement="View", engagementContext="", recipient=None,
        userActionTimeStamp=None, userActionTimestamp="2026-01-02T03:00:59+00:00",
    ))),
    ("clicked", [grid(ENGAGEMENT, engagement())]),
    ("clicked as CloudEvent", cloud(ENGAGEMENT, engagement())),
    ("another engagement", [grid(ENGAGEMENT, engagement(engagementType="forward"))]),
    ("batch", [grid(ENGAGEMENT, engagement(), identity="e-2"), grid(DELIVERY, delivery(), identity="e-3")]),
    ("batch of CloudEvents", [cloud(ENGAGEMENT, engagement(), identity="e-2"), cloud(DELIVERY, delivery())]),
    ("text message", [grid("Microsoft.Communication.SMSDeliveryReportReceived", {"messageId": "s-1"})]),
    ("handshake", [validation(validationCode="code-1", validationUrl=VALIDATION_URL)]),
    ("handshake by address", [validation(validationUrl=VALIDATION_URL)]),
    ("subscription deleted", [
        grid("Microsoft.EventGrid.SubscriptionDeletedEvent", {"eventSubscriptionId": f"{TOPIC}/eventSubscriptions/s"})
    ]),
]  # fmt: skip


def proof(body: bytes, now: float) -> Proof:  # noqa: ARG001 - a secret proves any body at any time
    """Return a fresh secret, and the address that holds it."""
    secret = secrets.token_urlsafe(24)
    return Proof(trust=Trust(secrets=(secret,)), query={"key": secret})
