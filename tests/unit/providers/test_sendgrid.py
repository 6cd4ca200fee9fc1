"""SendGrid's batches: every event, who is believed and for how long, and what is written into X-SMTPAPI."""

import base64
from typing import Any

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from providers.notice import Bounce, Name, Notice, Step, What
from providers.sendgrid import OLDEST, PROVIDER, SKEW
from providers.webhook import DeniedError, MalformedError, Proven, Request, Trust
from tests.unit.providers.samples import sendgrid as samples
from tests.unit.providers.walk import any_json, read, survives

SAMPLES: dict[str, Any] = dict(samples.EVENTS)
NOW = 1_767_323_100.0
OURS = Name(Step.MESSAGE_ID, samples.MESSAGE_ID)
REPLIED = Name(Step.REPLY_ID, samples.REPLY_ID)
TOKEN = Name(Step.TOKEN, samples.KEY)
THEIRS = Name(Step.PROVIDER_ID, samples.PROVIDER_ID)
SEEN = {"names": (REPLIED, TOKEN, THEIRS), "ip": "192.0.2.1", "user_agent": "UA"}
BEFORE: dict[str, Any] = {"bounce": Bounce.SUPPRESSED, "enhanced_code": "5.0.0"}

EXPECTED: dict[str, tuple[What, dict[str, Any]]] = {
    "processed": (What.ACCEPTED, {}),
    "deferred": (
        What.DEFERRED,
        {
            "smtp_code": "451",
            "enhanced_code": "4.7.1",
            "description": "451 4.7.1 try again later",
            "tags": ("c1",),
        },
    ),
    "delivered": (
        What.DELIVERED,
        {"smtp_code": "250", "enhanced_code": "2.0.0", "description": "250 2.0.0 OK"},
    ),
    "bounced": (
        What.BOUNCED,
        {
            "bounce": Bounce.HARD,
            "smtp_code": "550",
            "enhanced_code": "5.1.1",
            "description": "550 5.1.1 no such user",
        },
    ),
    "bounced, no code": (What.BOUNCED, {"bounce": Bounce.HARD, "description": "they said no"}),
    "bounced, full": (
        What.BOUNCED,
        {"bounce": Bounce.SOFT, "smtp_code": "552", "enhanced_code": "5.2.2", "description": "552 5.2.2 over quota"},
    ),
    "blocked": (
        What.BOUNCED,
        {
            "bounce": Bounce.BLOCK,
            "smtp_code": "550",
            "enhanced_code": "5.7.1",
            "description": "550 5.7.1 sender is listed",
        },
    ),
    "blocked for a while": (
        What.BOUNCED,
        {"bounce": Bounce.SOFT, "smtp_code": "421", "enhanced_code": "4.7.0", "description": "421 4.7.0 slow down"},
    ),
    "blocked, no code": (What.BOUNCED, {"bounce": Bounce.BLOCK, "description": "they said no"}),
    "bounced, of no type": (What.BOUNCED, {"bounce": Bounce.UNKNOWN, "description": "they said no"}),
    "expired": (What.BOUNCED, {"bounce": Bounce.SOFT, "description": "unable to get mx"}),
    "dropped, bounced before": (What.BOUNCED, BEFORE | {"description": "Bounced Address"}),
    "dropped, unsubscribed before": (What.BOUNCED, BEFORE | {"description": "Unsubscribed Address"}),
    "dropped, complained before": (What.BOUNCED, BEFORE | {"description": "Spam Reporting Address"}),
    "dropped, invalid before": (What.BOUNCED, BEFORE | {"description": "Invalid"}),
    "dropped for its content": (
        What.REJECTED,
        {"enhanced_code": "5.0.0", "description": "Spam Content (if Spam Checker app is enabled)"},
    ),
    "opened": (What.OPENED, SEEN),
    "opened by a machine": (What.OPENED, SEEN | {"machine": "sg_machine_open"}),
    "clicked": (What.CLICKED, SEEN | {"url": "https://example.org/page?a=1"}),
    "complained": (What.COMPLAINED, {"names": (REPLIED, TOKEN, THEIRS)}),
    "unsubscribed": (What.UNSUBSCRIBED, {"names": (REPLIED, TOKEN, THEIRS)}),
    "unsubscribed from a group": (What.UNSUBSCRIBED, SEEN | {"url": "https://example.org/u"}),
    "subscribed to a group": (What.SUBSCRIBED, SEEN),
    "another event": (What.UNKNOWN, {}),
    "late bounce without our fields": (
        What.BOUNCED,
        {
            "bounce": Bounce.HARD,
            "smtp_code": "550",
            "enhanced_code": "5.1.1",
            "description": "550 5.1.1 unknown",
            "names": (REPLIED, THEIRS),
            "metadata": {},
        },
    ),
}


def _post(body: bytes, **headers: str) -> Request:
    return Request(method="POST", headers=headers, query={}, body=body)


def _ask(key: ec.EllipticCurvePrivateKey, signed: bytes, at: float, *secrets: str, **changed: Any) -> Proven:
    request = Request(
        **{"method": "POST", "headers": samples.headers(key, signed, at), "query": {}, "body": signed, **changed}
    )
    proven = PROVIDER.authenticate(request, Trust(secrets=secrets), NOW, {})
    assert isinstance(proven, Proven)
    return proven


@pytest.mark.parametrize("name", EXPECTED)
def test_each_event_becomes_one_notice(name: str) -> None:
    """All that an event says arrives, in our words."""
    event = SAMPLES[name][0]
    what, fields = EXPECTED[name]
    common: dict[str, Any] = {
        "dedupe": event["sg_event_id"],
        "at_ms": 1_767_323_045_000,
        "recipient": "ann@example.net",
        "names": (OURS, REPLIED, TOKEN, THEIRS),
        "tags": ("c1", "c2"),
        "metadata": {"outrider": samples.KEY, "order": "17"},
        "raw": msgspec.json.encode(event),
    }
    expected = Notice(provider="sendgrid", what=what, **(common | fields))
    assert read(PROVIDER, msgspec.json.encode(SAMPLES[name])) == (expected,)


def test_every_sample_is_expected() -> None:
    """No sample stands without an expectation."""
    assert set(SAMPLES) - set(EXPECTED) == {"account", "batch", "empty batch"}


def test_a_batch_gives_its_events_in_order_and_the_account_gives_none() -> None:
    """One notice for each event of a message."""
    batch = read(PROVIDER, msgspec.json.encode(SAMPLES["batch"]))
    assert [one.what for one in batch] == [What.ACCEPTED, What.OPENED, What.DELIVERED]
    assert read(PROVIDER, msgspec.json.encode(SAMPLES["account"])) == ()
    assert read(PROVIDER, b"[]") == ()


def test_an_entry_that_is_no_object_costs_only_itself() -> None:
    """It is kept as unknown, and its copies are one."""
    body = msgspec.json.encode([7, SAMPLES["opened"][0], None, 7])
    strange, opened, null, again = read(PROVIDER, body)
    assert (strange.what, opened.what, null.what) == (What.UNKNOWN, What.OPENED, What.UNKNOWN)
    assert strange.dedupe == again.dedupe != null.dedupe
    assert strange.raw == b"7"


def test_events_without_an_id_are_one_only_if_they_are_equal() -> None:
    """What lacks `sg_event_id` is known by its content."""
    event = {"event": "open", "email": "ann@example.net", "timestamp": 5}
    one, two, three = read(PROVIDER, msgspec.json.encode([event, event, event | {"timestamp": 6}]))
    assert one.dedupe == two.dedupe != three.dedupe


@pytest.mark.parametrize("body", [b"", b"{", b"{}", b'"x"', b"\xff", b"7", b"[" * 5000])
def test_what_is_no_list_is_malformed(body: bytes) -> None:
    """Another shape is refused as a whole."""
    with pytest.raises(MalformedError):
        PROVIDER.parse(_post(body))


@pytest.mark.parametrize("name", SAMPLES)
def test_a_strange_value_in_any_field_is_survived(name: str) -> None:
    """Invariant: parse returns sane notices or raises MalformedError."""
    assert survives(PROVIDER, SAMPLES[name]) > 0


@given(st.binary(max_size=200) | any_json.map(msgspec.json.encode))
def test_any_body_parses_or_is_malformed(body: bytes) -> None:
    """Invariant: parse raises nothing else."""
    try:
        read(PROVIDER, body)
    except MalformedError:
        return


def test_a_signed_batch_is_believed_as_base64_and_as_pem_and_by_any_key() -> None:
    """Keys may be rotated, and pasted as they come."""
    key, other, body = samples.fresh_key(), samples.fresh_key(), b'[{"event":"open"}]\r\n'
    pem = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
    for spelt in (samples.der(key), pem, pem.replace("\n", " "), pem.replace("\n", "\\n")):
        assert _ask(key, body, NOW, samples.der(other), spelt) == Proven()
    proof = samples.proof(body, NOW)
    request = Request(method="POST", headers=proof.headers, query=proof.query, body=body)
    assert PROVIDER.authenticate(request, proof.trust, NOW, proof.documents) == Proven()


def test_a_wrong_key_a_cut_body_and_a_changed_time_are_denied() -> None:
    """The signature holds the time and every octet of the body."""
    key, other, body = samples.fresh_key(), samples.fresh_key(), b'[{"event":"open"}]'
    trusted = samples.der(key)
    good = samples.headers(key, body, NOW)
    later = good | {"x-twilio-email-event-webhook-timestamp": str(int(NOW) + 1)}
    assert _ask(key, body, NOW, trusted) == Proven()
    for changed in ({"body": body[:-1]}, {"body": body + b"\n"}, {"headers": later}):
        with pytest.raises(DeniedError):
            _ask(key, body, NOW, trusted, **changed)
    with pytest.raises(DeniedError):
        _ask(other, body, NOW, trusted)
    with pytest.raises(DeniedError):
        _ask(key, body, NOW)


def test_a_retry_of_a_day_is_believed_and_an_older_one_is_not() -> None:
    """Nothing that SendGrid still tries is lost, whether it signs anew or not."""
    key = samples.fresh_key()
    for at in (NOW - OLDEST, NOW - 24 * 3600, NOW + SKEW):
        assert _ask(key, b"[]", at, samples.der(key)) == Proven()
    for at in (NOW - OLDEST - 1, NOW + SKEW + 1):
        with pytest.raises(DeniedError, match="stale"):
            _ask(key, b"[]", at, samples.der(key))


@pytest.mark.parametrize("name", ["timestamp", "signature"])
@pytest.mark.parametrize("value", [None, "", " ", "x", "-1", "1e9", "\u0661", "9" * 400, "=", "\udcff", "AAAA"])
def test_a_strange_header_is_denied(name: str, value: str | None) -> None:
    """Whatever stands there, it is an ordinary no."""
    key = samples.fresh_key()
    good = samples.headers(key, b"[]", NOW)
    full = f"x-twilio-email-event-webhook-{name}"
    changed = {one: said for one, said in (good | {full: value}).items() if said is not None}
    with pytest.raises(DeniedError):
        _ask(key, b"[]", NOW, samples.der(key), headers=changed)


@given(st.text(max_size=40), st.text(max_size=40), st.binary(max_size=40))
def test_no_request_makes_authenticate_fail(at: str, signature: str, body: bytes) -> None:
    """Invariant: only DeniedError leaves it."""
    headers = {
        "x-twilio-email-event-webhook-timestamp": at,
        "x-twilio-email-event-webhook-signature": signature,
    }
    with pytest.raises(DeniedError):
        PROVIDER.authenticate(_post(body, **headers), Trust(secrets=(FIXED,)), NOW, {})


FIXED = samples.der(samples.fresh_key())


def test_it_is_configured_only_by_a_key_that_can_be_read() -> None:
    """What proves nothing leaves the webhook closed."""
    p384 = ec.generate_private_key(ec.SECP384R1()).public_key()
    foreign = base64.b64encode(p384.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).decode()
    for secret in ("", "not a key", "AAAA", foreign, "é"):
        assert not PROVIDER.configured(Trust(secrets=(secret,)))
    assert not PROVIDER.configured(Trust())
    assert PROVIDER.configured(Trust(secrets=("not a key", FIXED)))


def test_the_stamp_joins_what_the_mailer_wrote() -> None:
    """Only `unique_args` gains a field, in ASCII."""
    written = '{"category": ["\u00fc"], "unique_args": {"order": "17"}}'
    (value,) = PROVIDER.stamp(samples.KEY, {"X-SMTPAPI": written}).values()
    assert value.isascii()
    assert msgspec.json.decode(value) == {
        "category": ["\u00fc"],
        "unique_args": {"order": "17", "outrider": samples.KEY},
    }
    alone = {"X-SMTPAPI": f'{{"unique_args": {{"outrider": "{samples.KEY}"}}}}'}
    assert PROVIDER.stamp(samples.KEY, {}) == PROVIDER.stamp(samples.KEY, {"X-SMTPAPI": " "}) == alone


@pytest.mark.parametrize(
    "written",
    ["[]", "x", '"x"', "{", '{"unique_args": []}', '{"unique_args": null}', "\udcff", "[" * 5000, '{"a": "\udcff"}'],
)
def test_what_cannot_be_joined_stays(written: str) -> None:
    """The mailer's header is worth more than our key."""
    assert PROVIDER.stamp(samples.KEY, {"X-SMTPAPI": written}) == {}


def test_the_stamp_keeps_to_the_limit() -> None:
    """SendGrid takes 10,000 bytes."""
    room = 10_000 - len(PROVIDER.stamp(samples.KEY, {"X-SMTPAPI": '{"a": ""}'})["X-SMTPAPI"])
    full = PROVIDER.stamp(samples.KEY, {"X-SMTPAPI": f'{{"a": "{"x" * room}"}}'})
    assert len(full["X-SMTPAPI"]) == 10_000
    assert PROVIDER.stamp(samples.KEY, {"X-SMTPAPI": f'{{"a": "{"x" * (room + 1)}"}}'}) == {}


def test_the_reply_names_the_message_as_its_events_do() -> None:
    """`sg_message_id` begins with the id of the 250."""
    assert PROVIDER.reply_id(f"2.0.0 Ok: queued as {samples.REPLY_ID}") == samples.REPLY_ID
    assert PROVIDER.reply_id(f"Ok: queued as {samples.REPLY_ID}") == samples.REPLY_ID
    assert PROVIDER.reply_id("OK") is None
    # An id of the older kind has dots: its beginning is a time, and would be that of other mail.
    assert PROVIDER.reply_id("Ok: queued as 14c5d75ce93.dfd.64b469") == "14c5d75ce93.dfd.64b469"


def test_what_the_provider_says_of_itself() -> None:
    """The registry and the relay read these."""
    assert PROVIDER.name == "sendgrid"
    assert PROVIDER.stamped == ("X-SMTPAPI",)
    assert PROVIDER.hosts == ("sendgrid.net",)
    assert not PROVIDER.keeps_message_id
