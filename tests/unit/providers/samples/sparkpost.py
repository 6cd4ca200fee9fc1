"""What SparkPost posts."""

import secrets

from providers.webhook import Trust
from tests.unit.providers.proof import Proof

KEY = "s2b3c4d5e6f7g2h3i4j5k6l7m4"
SUPPRESSED = "554 5.7.1 recipient address suppressed due to customer policy"

_COMMON: dict[str, object] = {
    "event_id": "92356927693813856",
    "timestamp": "1767323045",
    "message_id": "000443ee14578172be22",
    "transmission_id": "65832150921904138",
    "rcpt_to": "ann@example.net",
    "raw_rcpt_to": "Ann@example.net",
    "rcpt_meta": {"outrider": KEY, "color": "blue"},
    "rcpt_tags": ["spring", "welcome"],
    "campaign_id": "spring",
    "subject": "Hello",
    "friendly_from": "news@example.org",
    "ip_address": "192.0.2.7",
}
_READER: dict[str, object] = {
    "user_agent": "Mozilla/5.0 (example)",
    "user_agent_parsed": {"agent_family": "Example", "is_mobile": False, "is_proxy": True, "is_prefetched": False},
    "geo_ip": {"country": "RS"},
}


def event(kind: str, of: str = "message_event", **other: object) -> dict[str, object]:
    """Return an event of one kind in its class."""
    return {"msys": {of: _COMMON | {"type": kind} | other}}


def track(kind: str, **other: object) -> dict[str, object]:
    """Return what a reader did."""
    return event(kind, "track_event", **(_READER | other))


def refused(kind: str, bounce_class: int, reason: str = "550 5.1.1 unknown") -> dict[str, object]:
    """Return a bounce of one class."""
    return event(kind, bounce_class=str(bounce_class), error_code=reason[:3], raw_reason=reason, reason=reason)


_PREFETCHED: dict[str, object] = {"user_agent_parsed": {"is_prefetched": True}}
_LINK = "https://example.org/page?a=1"

#: Every class of a bounce.
CLASSES = (1, 10, 20, 21, 22, 23, 24, 25, 30, 40, 50, 51, 52, 53, 54, 60, 70, 80, 90, 100)

EVENTS: list[tuple[str, object]] = [
    ("injection", [event("injection")]),
    ("delivery", [event("delivery")]),
    ("delay", [refused("delay", 20, "451 4.7.1 later")]),
    *((f"bounce {number}", [refused("bounce", number)]) for number in CLASSES),
    ("bounce of a new class", [refused("bounce", 999)]),
    ("bounce without a class", [event("bounce")]),
    ("bounce of a suppressed address", [refused("bounce", 25, SUPPRESSED)]),
    ("out_of_band", [refused("out_of_band", 10)]),
    ("policy_rejection", [refused("policy_rejection", 25, "550 5.7.1 refused")]),
    ("policy_rejection of a suppressed address", [refused("policy_rejection", 25, SUPPRESSED)]),
    ("policy_rejection without a class", [event("policy_rejection")]),
    ("spam_complaint", [event("spam_complaint", fbtype="abuse", report_by="example.net")]),
    ("open", [track("open")]),
    ("open, prefetched", [track("open", **_PREFETCHED)]),
    ("initial_open", [track("initial_open")]),
    ("amp_open", [track("amp_open")]),
    ("amp_initial_open", [track("amp_initial_open")]),
    ("click", [track("click", target_link_url=_LINK, target_link_name="page")]),
    ("amp_click", [track("amp_click", target_link_url=_LINK)]),
    ("list_unsubscribe", [event("list_unsubscribe", "unsubscribe_event", mailfrom="ann@example.net")]),
    ("link_unsubscribe", [event("link_unsubscribe", "unsubscribe_event", target_link_url=_LINK, **_READER)]),
    ("generation_failure", [event("generation_failure", "gen_event", error_code="550", raw_reason="no field")]),
    ("generation_rejection", [event("generation_rejection", "gen_event", raw_reason="no such domain")]),
    ("another event", [event("teleported", "beam_event")]),
    ("a batch", [event("delivery"), {"msys": {}}, track("open", event_id="2"), "no event", {"what": 1}]),
    ("a trial", [{"msys": {}}]),
    ("a trial, alone", {"msys": {}}),
    ("mail to us", [{"msys": {"relay_message": {"rcpt_to": "in@example.org", "content": {"subject": "Hello"}}}}]),
    ("a class that is no event", [{"msys": {"track_event": "x"}}]),
    ("the metadata cut off", [track("open", rcpt_meta={})]),
    ("no event_id", [event("delivery", event_id=None)]),
]


def proof(body: bytes, now: float) -> Proof:  # noqa: ARG001 - a secret proves any body at any time
    """Return a fresh secret, and the address that holds it."""
    secret = secrets.token_urlsafe(24)
    return Proof(trust=Trust(secrets=(secret,)), query={"key": secret})
