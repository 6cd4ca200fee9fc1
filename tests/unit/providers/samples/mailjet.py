"""What Mailjet posts."""

import secrets

from providers.webhook import Trust
from tests.unit.providers.proof import Proof

KEY = "m2b3c4d5e6f7g2h3i4j5k6l7m4"
# Beyond 2^53: as a float it would be another message's.
MESSAGE = 1152921500000000001
GUID = "1ab23cd4-e567-8901-2345-6789f0a1b2c3"


def event(kind: str, **other: object) -> dict[str, object]:
    """Return an event of one kind."""
    common: dict[str, object] = {
        "event": kind,
        "time": 1767323045,
        "MessageID": MESSAGE,
        "Message_GUID": GUID,
        "email": "ann@example.net",
        "mj_campaign_id": 5,
        "mj_contact_id": 6,
        "customcampaign": "spring",
        "CustomID": KEY,
        "Payload": '{"color": "blue"}',
    }
    return common | other


def refused(kind: str, error: str, related: str, *, hard: bool | None = None, comment: str = "") -> dict[str, object]:
    """Return a bounce or a refusal."""
    flags = {} if hard is None else {"blocked": hard, "hard_bounce": hard}
    return event(kind, error_related_to=related, error=error, comment=comment, **flags)


_READER: dict[str, object] = {"ip": "192.0.2.7", "geo": "RS", "agent": "Mozilla/5.0 (example)"}

EVENTS: list[tuple[str, object]] = [
    ("sent", event("sent", mj_message_id=str(MESSAGE), smtp_reply="sent (250 2.0.0 OK 1767323045 fa5si855896wjc.199)")),
    ("open", [event("open", **_READER)]),
    ("click", event("click", url="https://example.org/page?a=1", **_READER)),
    ("spam", event("spam", source="JMRPP")),
    ("unsub", event("unsub", mj_list_id=1, **_READER)),
    ("bounce: user unknown", refused("bounce", "user unknown", "recipient", hard=True, comment="550 5.1.1 no user")),
    ("bounce: not hard", refused("bounce", "mailbox inactive", "recipient", hard=False)),
    ("bounce: quota exceeded", refused("bounce", "quota exceeded", "recipient", hard=False)),
    ("bounce: no flag", refused("bounce", "invalid domain", "domain")),
    ("bounce: no reason", event("bounce")),
    ("bounce: greylisted", refused("bounce", "greylisted", "domain", hard=False)),
    ("bounce: greylisted for good", refused("bounce", "greylisted", "domain", hard=True)),
    ("bounce: content blocked", refused("bounce", "content blocked", "content", hard=True)),
    ("bounce: blacklisted", refused("bounce", "blacklisted", "recipient", hard=False)),
    ("blocked: user unknown", refused("blocked", "user unknown", "recipient")),
    ("blocked: preblocked", refused("blocked", "preblocked", "mailjet")),
    ("blocked: sender blocked", refused("blocked", "sender blocked", "spam")),
    ("blocked: typofix", refused("blocked", "typofix", "domain")),
    ("blocked: duplicate", refused("blocked", "duplicate in campaign", "mailjet")),
    ("blocked: template", refused("blocked", "error in template language", "mailjet")),
    ("blocked: no reason", event("blocked")),
    ("another event", event("teleported")),
    (
        "grouped",
        [event("open"), event("click", url="https://example.org/"), "no event", event("open", time=1767323046)],
    ),
    ("key in the payload", event("open", CustomID="order 7", Payload=f'{{"outrider": "{KEY}", "nr": 7}}')),
    ("a text for a payload", event("open", CustomID="", Payload="anything")),
    ("a trial", event("open", MessageID=0, Message_GUID="", email="", CustomID="", Payload="", customcampaign="")),
    ("a number that lost its end", event("sent", MessageID=18859015918863550, mj_message_id="18859015918863553")),
]


def proof(body: bytes, now: float) -> Proof:  # noqa: ARG001 - a secret proves any body at any time
    """Return a fresh secret, and the address that holds it."""
    secret = secrets.token_urlsafe(24)
    return Proof(trust=Trust(secrets=(secret,)), query={"key": secret})
