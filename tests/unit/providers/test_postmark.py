"""Postmark's events, each in every documented variant, and what is stamped so that they name the message."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from providers.fields import encoded
from providers.notice import Bounce, Name, Notice, Step, What
from providers.postmark import PROVIDER
from providers.webhook import MalformedError
from tests.unit.providers import shared_secret, walk
from tests.unit.providers.samples.postmark import CLICK, DESCRIPTION, EVENTS, KEY, MESSAGE, OPEN, bounce, change, proof

NAMES = (Name(Step.TOKEN, KEY), Name(Step.REPLY_ID, MESSAGE), Name(Step.PROVIDER_ID, MESSAGE))
AT_MS = 1_767_323_045_000
SAMPLES = dict(EVENTS)


def only(body: object) -> Notice:
    """Return the one notice of a body."""
    (notice,) = walk.read(PROVIDER, msgspec.json.encode(body))
    return notice


def expected(what: What, event: object, **other: object) -> Notice:
    """Return the notice of one of the samples, but for its dedupe."""
    common = Notice(
        provider="postmark",
        what=what,
        dedupe=only(event).dedupe,
        at_ms=AT_MS,
        recipient="ann@example.net",
        names=NAMES,
        tags=("welcome",),
        metadata={"outrider": KEY, "color": "blue"},
        raw=encoded(event),
    )
    return msgspec.structs.replace(common, **other)


@pytest.mark.parametrize(
    ("kind", "what", "class_"),
    [
        ("HardBounce", What.BOUNCED, Bounce.HARD),
        ("BadEmailAddress", What.REJECTED, Bounce.HARD),
        ("SoftBounce", What.BOUNCED, Bounce.SOFT),
        ("Transient", What.DEFERRED, None),
        ("DnsError", What.DEFERRED, None),
        ("OpenRelayTest", What.DEFERRED, None),
        ("Blocked", What.BOUNCED, Bounce.BLOCK),
        ("DMARCPolicy", What.BOUNCED, Bounce.BLOCK),
        ("VirusNotification", What.BOUNCED, Bounce.BLOCK),
        ("ManuallyDeactivated", What.BOUNCED, Bounce.SUPPRESSED),
        ("Unconfirmed", What.REJECTED, None),
        ("Unknown", What.BOUNCED, Bounce.UNKNOWN),
        ("SpamNotification", What.COMPLAINED, None),
        ("SpamComplaint", What.COMPLAINED, None),
        ("Unsubscribe", What.UNSUBSCRIBED, None),
        ("Subscribe", What.SUBSCRIBED, None),
        ("AutoResponder", What.UNKNOWN, None),
        ("AddressChange", What.UNKNOWN, None),
        ("ChallengeVerification", What.UNKNOWN, None),
        ("SMTPApiError", What.FAILED, None),
        ("TemplateRenderingFailed", What.FAILED, None),
        ("InboundError", What.UNKNOWN, None),
    ],
)
def test_every_type_of_a_bounce(kind: str, what: What, class_: Bounce | None) -> None:
    """Tried again is deferred, an answering machine is nothing, and the classes are those of the reason."""
    event = SAMPLES[f"bounce {kind}"]
    seen = expected(what, event, bounce=class_, recipient="Ann@example.net", description=DESCRIPTION, at_ms=AT_MS + 123)
    assert seen == only(event)


def test_a_bounce_tells_the_servers_codes() -> None:
    """The receiving server's words stand before Postmark's, and their codes are read."""
    seen = only(SAMPLES["bounce with codes"])
    assert (seen.smtp_code, seen.enhanced_code, seen.description) == ("550", "5.1.1", "smtp;550 5.1.1 no such user")


def test_an_address_on_the_list_is_suppressed() -> None:
    """Its SMTP door reports it as an error of the API."""
    seen = only(SAMPLES["bounce of an inactive address"])
    assert (seen.what, seen.bounce) == (What.BOUNCED, Bounce.SUPPRESSED)


def test_a_bounce_of_a_new_type_or_without_an_address() -> None:
    """Neither is lost."""
    new, nobody = only(SAMPLES["bounce of a new type"]), only(SAMPLES["bounce without an address"])
    assert (new.what, new.bounce) == (What.BOUNCED, Bounce.UNKNOWN)
    assert (nobody.what, nobody.recipient, nobody.names) == (What.UNSUBSCRIBED, "", NAMES)


def test_the_other_records() -> None:
    """Each gives its notice, whole."""
    reader = {"user_agent": "Mozilla/5.0 (example)"}
    told = {"description": "smtp;250 2.0.0 OK 1767323045 x3si14160585iod.35", "smtp_code": "250"}
    wanted = {
        "complaint": expected(
            What.COMPLAINED,
            SAMPLES["complaint"],
            recipient="Ann@example.net",
            description=DESCRIPTION,
            at_ms=AT_MS + 123,
        ),
        "delivery": expected(What.DELIVERED, SAMPLES["delivery"], **told, enhanced_code="2.0.0"),
        "open": expected(What.OPENED, OPEN, **reader, ip="192.0.2.7"),
        "click": expected(What.CLICKED, CLICK, **reader, ip="2001:db8::7", url="https://example.org/page?a=1"),
    }
    assert wanted == {name: only(SAMPLES[name]) for name in wanted}


@pytest.mark.parametrize(
    ("name", "what", "class_"),
    [
        ("unsubscribed", What.UNSUBSCRIBED, None),
        ("suppressed after a bounce", What.BOUNCED, Bounce.HARD),
        ("suppressed after a complaint", What.COMPLAINED, None),
        ("suppressed for a new reason", What.UNKNOWN, None),
        ("subscribed again", What.SUBSCRIBED, None),
    ],
)
def test_changes_of_subscription(name: str, what: What, class_: Bounce | None) -> None:
    """Only a person's own wish is an unsubscribe."""
    event = SAMPLES[name]
    assert isinstance(event, dict)
    assert expected(what, event, bounce=class_, description=event["SuppressionReason"] or "") == only(event)


def test_no_message_is_no_name() -> None:
    """The UUID of zeros stands for every message that is not there, and must never become an alias."""
    assert only(SAMPLES["suppressed by hand, no message"]).names == ()


def test_events_of_the_older_kind_are_told_by_their_fields() -> None:
    """They have no RecordType."""
    kinds = ("bounce", "delivery", "open")
    seen = [only(SAMPLES[f"of the older kind: {kind}"]).what for kind in kinds]
    assert seen == [What.BOUNCED, What.DELIVERED, What.OPENED]
    assert What.UNKNOWN is only(SAMPLES["another record"]).what


def test_copies_are_one_event_and_others_are_others() -> None:
    """A bounce has an id; for the rest the record, message, recipient, time and link make it."""
    dedupes = {only(event).dedupe for _, event in EVENTS if isinstance(event, dict) and "RecordType" in event}
    assert sum(1 for _, event in EVENTS if isinstance(event, dict) and "RecordType" in event) == len(dedupes)
    assert only(bounce("HardBounce", 1)).dedupe == "Bounce:42"
    assert only(bounce("HardBounce", 1)).dedupe == only(bounce("HardBounce", 1) | {"Subject": "again"}).dedupe
    assert only(OPEN).dedupe == only(OPEN | {"ReadSeconds": 9}).dedupe
    assert only(OPEN).dedupe != only(OPEN | {"ReceivedAt": "2026-01-02T03:04:06Z"}).dedupe
    assert only(CLICK).dedupe != only(CLICK | {"OriginalLink": "https://example.org/"}).dedupe
    assert only(bounce("HardBounce", 1, identity=0)).dedupe != "Bounce:0"
    assert only(change("Whim", suppress=True)).dedupe != only(change("HardBounce", suppress=True)).dedupe


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"7", b"null", b'"x"', b"\xff", b"[" * 100_000])
def test_another_shape_is_malformed(body: bytes) -> None:
    """Postmark posts one object."""
    with pytest.raises(MalformedError):
        walk.read(PROVIDER, body)


@pytest.mark.parametrize(("name", "event"), EVENTS)
def test_a_strange_field_costs_nothing_else(name: str, event: object) -> None:
    """Whatever stands in a field, an object is read."""
    assert walk.survives(PROVIDER, event) > 0, name


def test_secrets() -> None:
    """Each of several opens it, in the address, as password and as token."""
    shared_secret.holds(PROVIDER)
    shared_secret.proves(PROVIDER, proof(b"{}", 1.0), b"{}", 1.0)


def test_stamp() -> None:
    """Our key joins the metadata; a mailer's own KeepID stays."""
    both = {"X-PM-Metadata-outrider": KEY, "X-PM-KeepID": "true"}
    assert both == PROVIDER.stamp(KEY, {})
    assert PROVIDER.stamp(KEY, {"X-PM-KeepID": "false"}) == {"X-PM-Metadata-outrider": KEY}
    assert both == PROVIDER.stamp(KEY, {"X-PM-Metadata-outrider": "another"})
    assert set(PROVIDER.stamped) == set(both)
    # Postmark's limits: 20 characters of a name, 80 of a value.
    assert len("outrider") <= 20
    assert len(f"{KEY}.9999") <= 80
    assert not PROVIDER.keeps_message_id


@pytest.mark.parametrize(
    ("reply", "identity"),
    [
        (f"250 2.0.0 Ok: queued as {MESSAGE.upper()}", MESSAGE),
        ("250 OK", None),
        ("250 2.0.0 Ok: queued as 6A59", None),
        ("", None),
    ],
)
def test_reply_id(reply: str, identity: str | None) -> None:
    """Only a UUID can be a MessageID."""
    assert identity == PROVIDER.reply_id(reply)


@given(st.binary() | walk.any_json.map(msgspec.json.encode))
def test_only_malformed_escapes(body: bytes) -> None:
    """Invariant: whatever is posted, parse returns sane notices or raises MalformedError."""
    try:
        walk.read(PROVIDER, body)
    except MalformedError:
        return


@given(st.dictionaries(st.sampled_from(["authorization"]), st.text()), st.text())
def test_only_denied_escapes(headers: dict[str, str], key: str) -> None:
    """Invariant: nothing but a secret opens it, and nothing else than `DeniedError` says so."""
    assert not shared_secret.believed(PROVIDER, headers=headers, key=key)
