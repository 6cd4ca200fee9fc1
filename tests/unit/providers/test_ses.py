"""SES's events: each type with its recipients and names, whose signature counts, and the tag that we add."""

from typing import Any

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from hypothesis import given
from hypothesis import strategies as st

from providers.notice import Bounce, Name, Notice, Step, What
from providers.ses import PROVIDER
from providers.webhook import DeniedError, Fetch, MalformedError, Proven, Request, Trust
from tests.unit.providers.samples import ses as samples
from tests.unit.providers.walk import any_json, read, strange_bodies, survives

SAMPLES = dict(samples.EVENTS)
INNER: dict[str, Any] = dict(samples.INNER)
NOW = 1_767_323_045.0
MAILED_MS = 1_767_323_040_000
SNS_ID = "aaaaaaaa-1111-5222-8333-bbbbbbbbbbbb"
ANN, BOB = "ann@example.net", "bob@example.net"

_IDS = (Name(Step.REPLY_ID, samples.SES_ID), Name(Step.TOKEN, samples.KEY))
_NAMES = (Name(Step.MESSAGE_ID, samples.MESSAGE_ID), *_IDS, Name(Step.PROVIDER_ID, samples.SES_ID))
_SHARED = (Name(Step.MESSAGE_ID, samples.MESSAGE_ID), *_IDS, Name(Step.BATCH, samples.SES_ID))
_METADATA = {
    "X-Listmonk-Campaign": "5f0c6a1e-0000-4000-8000-000000000065",
    "ses:configuration-set": "mail",
    "outrider": samples.KEY,
    "team": "news",
}


def _notice(what: What, seconds: int = 0, recipient: str = ANN, dedupe: str = SNS_ID, **fields: Any) -> Notice:
    common: dict[str, Any] = {"names": _NAMES, "metadata": _METADATA, "at_ms": MAILED_MS + seconds * 1000}
    return Notice(provider="ses", what=what, recipient=recipient, dedupe=f"{dedupe}:{recipient}", **(common | fields))


def _bounced(bounce: Bounce, words: str = "", **fields: Any) -> Notice:
    said = {"smtp_code": "550", "enhanced_code": "5.1.1", "description": "smtp; 550 5.1.1 unknown user"}
    why = {"description": words} if words else said
    return _notice(What.BOUNCED, 3, dedupe="bounce:f-1", bounce=bounce, **(why | fields))


def _complained(what: What = What.COMPLAINED, **fields: Any) -> Notice:
    return _notice(what, 3361, dedupe="complaint:f-2", **fields)


_SEEN = {"user_agent": "Mozilla/5.0 (example)", "ip": "192.0.2.7"}
EXPECTED: dict[str, tuple[Notice, ...]] = {
    "send": (_notice(What.ACCEPTED),),
    "send to two": (_notice(What.ACCEPTED, names=_SHARED), _notice(What.ACCEPTED, recipient=BOB, names=_SHARED)),
    "reject": (_notice(What.REJECTED, description="Bad content"),),
    "rendering failure": (_notice(What.FAILED, description="no name"),),
    "delivery": (
        _notice(What.DELIVERED, 2, smtp_code="250", enhanced_code="2.6.0", description="250 2.6.0 Message received"),
    ),
    "delay": (
        _notice(What.DEFERRED, 360, smtp_code="452", enhanced_code="4.2.2", description="smtp; 452 4.2.2 mailbox full"),
    ),
    "bounce": (_bounced(Bounce.HARD),),
    "bounce, transient": (_bounced(Bounce.SOFT),),
    "bounce, undetermined": (_bounced(Bounce.SOFT, "Undetermined/Undetermined"),),
    "bounce, suppressed": (_bounced(Bounce.SUPPRESSED, "Permanent/Suppressed"),),
    "bounce, account list": (_bounced(Bounce.SUPPRESSED, "Permanent/OnAccountSuppressionList"),),
    "bounce, new type": (_bounced(Bounce.UNKNOWN, "Sideways/New"),),
    "bounce of two": (
        _bounced(Bounce.SOFT, "Transient/General", names=_SHARED),
        _bounced(Bounce.SOFT, "Transient/General", names=_SHARED, recipient=BOB, enhanced_code="4.4.7"),
    ),
    "bounce of an identity": (
        _bounced(Bounce.HARD, names=(_IDS[0], Name(Step.PROVIDER_ID, samples.SES_ID)), metadata={}),
    ),
    "complaint": (_complained(description="abuse"),),
    "complaint, unnamed": (_complained(),),
    "complaint, not-spam": (_complained(What.UNKNOWN, description="not-spam"),),
    "complaint, auth-failure": (_complained(What.UNKNOWN, description="auth-failure"),),
    "complaint, account list": (
        _complained(
            What.BOUNCED,
            bounce=Bounce.SUPPRESSED,
            description="OnAccountSuppressionList",
        ),
    ),
    "complaint of either": (_complained(description="abuse", names=_SHARED, recipient=""),),
    "open": (_notice(What.OPENED, 60, **_SEEN),),
    "open by either": (_notice(What.OPENED, 60, recipient="", names=_SHARED, **_SEEN),),
    "click": (
        _notice(
            What.CLICKED,
            60,
            url="https://example.org/p?a=1",
            metadata={"place": "top,left"} | _METADATA,
            **_SEEN,
        ),
    ),
    "unsubscription": (_notice(What.UNSUBSCRIBED, 7200 - 240, description="readers"),),
    "unsubscription from a topic": (_notice(What.UNSUBSCRIBED, 7200 - 240, description="readers"),),
    "subscription": (_notice(What.SUBSCRIBED, 7200 - 240, description="readers"),),
    "another event": (_notice(What.UNKNOWN, description="teleport"),),
    "old signature": (_notice(What.OPENED, 60, **_SEEN),),
    "no subject": (_notice(What.OPENED, 60, **_SEEN),),
    "validated": (),
    "subscribed": (),
    "confirmation": (),
    "unsubscribed": (),
}


def _post(body: object) -> Request:
    return Request(method="POST", headers={}, query={}, body=msgspec.json.encode(body))


def _cut(body: bytes, length: int) -> Request:
    return Request(method="POST", headers={}, query={}, body=body[:length])


def _wrapped(inner: object) -> bytes:
    """Return a notification of *inner*, unsigned: parse() does not look."""
    envelope: Any = SAMPLES["open"]
    return msgspec.json.encode(envelope | {"Message": msgspec.json.encode(inner).decode()})


@pytest.mark.parametrize("name", SAMPLES)
def test_every_documented_event_is_told_exactly(name: str) -> None:
    """Recipients, names, class, codes, time and text of each sample are as expected, and its raw text is kept."""
    found = read(PROVIDER, msgspec.json.encode(SAMPLES[name]))
    assert EXPECTED[name] == tuple(msgspec.structs.replace(one, raw=b"") for one in found)
    assert all(msgspec.json.decode(one.raw) == INNER.get(name, INNER["open"]) for one in found)


@pytest.mark.parametrize("name", INNER)
def test_one_strange_field_costs_nothing_else(name: str) -> None:
    """Whatever a field inside is, the event is read: SNS signed it, so that it cannot be refused."""
    assert survives(PROVIDER, INNER[name], encode=_wrapped) == len(list(strange_bodies(INNER[name])))


@pytest.mark.parametrize("name", ["open", "confirmation", "validated"])
def test_a_strange_envelope_is_read_or_refused(name: str) -> None:
    """Any field of SNS's own of another type, or missing."""
    assert survives(PROVIDER, SAMPLES[name])


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("mail", "headers"), {"name": "Message-ID"}),
        (("mail", "headers"), None),
        (("mail", "commonHeaders"), [{"messageId": "<x@example.org>"}]),
    ],
)
def test_each_place_of_our_id_is_enough(place: tuple[str, str], value: object) -> None:
    """Headers and commonHeaders both hold it, and either may be missing."""
    inner = INNER["bounce"] | {place[0]: INNER["bounce"][place[0]] | {place[1]: value}}
    assert read(PROVIDER, _wrapped(inner))[0].names == _NAMES


def test_a_tag_that_is_no_key_is_no_token() -> None:
    """Somebody else's tag of the same name."""
    inner = INNER["open"] | {"mail": samples.mail(tags={"outrider": ["other", samples.KEY, 7]})}
    tokens = [one.value for one in read(PROVIDER, _wrapped(inner))[0].names if one.step is Step.TOKEN]
    assert tokens == [samples.KEY]


def test_fifty_recipients_are_fifty_notices() -> None:
    """Each of a batch has a dedupe word of its own, and all of them the batch's id."""
    everyone = [f"reader{n}@example.net" for n in range(50)]
    inner = INNER["delivery"] | {"mail": samples.mail(*everyone)}
    inner["delivery"] = inner["delivery"] | {"recipients": everyone}
    found = read(PROVIDER, _wrapped(inner))
    assert [one.recipient for one in found] == everyone
    assert len({one.dedupe for one in found}) == 50
    assert all(Name(Step.BATCH, samples.SES_ID) in one.names for one in found)
    assert not any(name.step is Step.PROVIDER_ID for one in found for name in one.names)


def test_a_bounce_published_twice_is_one() -> None:
    """As event and as notification of the identity it has two SNS ids, and one feedbackId."""
    published, notified = SAMPLES["bounce"], samples.notification(INNER["bounce of an identity"], MessageId="other")
    assert PROVIDER.parse(_post(published)).notices[0].dedupe == PROVIDER.parse(_post(notified)).notices[0].dedupe


def test_a_text_that_is_no_event_is_kept() -> None:
    """A named topic said something: it is kept as it came, and changes nothing."""
    (found,) = read(PROVIDER, msgspec.json.encode(samples.notification("hello")))
    assert (found.what, found.names, found.raw) == (What.UNKNOWN, (), b'"hello"')


def test_preferences_that_say_nothing_are_unknown() -> None:
    """No guess is made about what a contact wants."""
    inner = INNER["subscription"] | {"subscription": {"newTopicPreferences": {"unsubscribeAll": "maybe"}}}
    assert read(PROVIDER, _wrapped(inner))[0].what is What.UNKNOWN


def test_a_confirmation_is_visited_and_its_end_is_not() -> None:
    """The subscription is made by its own address."""
    confirmed = PROVIDER.parse(_post(SAMPLES["confirmation"]))
    assert (confirmed.visit, confirmed.notices) == (samples.SUBSCRIBE_URL, ())
    assert not PROVIDER.parse(_post(SAMPLES["unsubscribed"])).visit
    elsewhere = samples.control("SubscriptionConfirmation", SubscribeURL="https://example.com/?Action=x")
    assert not PROVIDER.parse(_post(elsewhere)).visit


@pytest.mark.parametrize("name", SAMPLES)
def test_a_signed_message_of_a_named_topic_is_believed(name: str) -> None:
    """The certificate is asked for first, and is then enough; SNS's headers are not needed."""
    request = _post(SAMPLES[name])
    proof = samples.proof(request.body, NOW)
    assert PROVIDER.configured(proof.trust)
    fetch = PROVIDER.authenticate(request, proof.trust, NOW, {})
    assert fetch == Fetch(url=samples.CERTIFICATE_URL)
    assert PROVIDER.authenticate(request, proof.trust, NOW, proof.documents) == Proven()


def _denied(body: object, *, trust: Trust | None = None, now: float = NOW, pem: bytes | None = None) -> str:
    document = samples.certificate(samples.signing_key(), NOW) if pem is None else pem
    documents = {samples.CERTIFICATE_URL: document}
    with pytest.raises(DeniedError) as denied:
        PROVIDER.authenticate(_post(body), trust or Trust(topics=(samples.TOPIC,)), now, documents)
    return str(denied.value)


def test_another_topic_is_denied_before_anything_is_fetched() -> None:
    """Signed by SNS, and not ours: an event, and a confirmation."""
    foreign = "arn:aws:sns:eu-west-1:999922223333:mail"
    for body in (samples.notification("x", TopicArn=foreign), samples.control("SubscriptionConfirmation")):
        with pytest.raises(DeniedError, match="topic"):
            PROVIDER.authenticate(_post(body), Trust(topics=(foreign + "2",)), NOW, {})


@pytest.mark.parametrize("topics", [(), ("",), (samples.TOPIC + "-2",), (samples.TOPIC[:-1],), ("*",)])
def test_a_topic_is_named_in_full(topics: tuple[str, ...]) -> None:
    """No prefix, no wildcard, and none at all is closed."""
    assert "topic" in _denied(SAMPLES["open"], trust=Trust(topics=topics))
    assert PROVIDER.configured(Trust(topics=topics)) is bool(topics)


def test_a_wrong_key_a_changed_body_and_an_old_certificate_are_denied() -> None:
    """Each of them alone."""
    genuine: Any = SAMPLES["open"]
    other = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    assert "signature" in _denied(genuine, pem=samples.certificate(other, NOW))
    assert "signature" in _denied(genuine | {"Message": genuine["Message"].replace(ANN, BOB)})
    assert "dates" in _denied(genuine, now=NOW + 400 * 86_400)
    assert "unreadable" in _denied(genuine, pem=b"<html>")
    assert "host" in _denied(genuine | {"SigningCertURL": "https://example.com/S.pem"})


def test_a_late_retry_is_believed() -> None:
    """SNS tries for an hour and a dead-letter queue for days, with the first one's timestamp."""
    request = _post(SAMPLES["open"])
    later = NOW + 14 * 86_400
    proof = samples.proof(request.body, later)
    assert PROVIDER.authenticate(request, proof.trust, later, proof.documents) == Proven()


@pytest.mark.parametrize("name", ["open", "confirmation"])
def test_a_truncated_body_is_denied(name: str) -> None:
    """Half a signature proves nothing."""
    body = msgspec.json.encode(SAMPLES[name])
    for length in range(0, len(body), 97):
        with pytest.raises(DeniedError):
            PROVIDER.authenticate(
                Request(method="POST", headers={}, query={}, body=body[:length]),
                Trust(topics=(samples.TOPIC,)),
                NOW,
                {},
            )


def test_raw_message_delivery_is_denied() -> None:
    """SES's JSON without SNS's envelope has no signature."""
    assert _denied(INNER["bounce"]) == "no SNS message"
    with pytest.raises(MalformedError):
        PROVIDER.parse(_post(INNER["bounce"]))


TAGS = "X-SES-MESSAGE-TAGS"


@pytest.mark.parametrize(
    ("present", "expected"),
    [
        ({}, f"outrider={samples.KEY}"),
        ({TAGS: ""}, f"outrider={samples.KEY}"),
        ({TAGS: "team=news"}, f"team=news, outrider={samples.KEY}"),
        ({TAGS: " team=news ,a-b=c_d,"}, f"team=news, a-b=c_d, outrider={samples.KEY}"),
        ({TAGS: "outrider=old, team=news"}, f"team=news, outrider={samples.KEY}"),
        ({TAGS: "mail=ann@example.net"}, f"mail=ann@example.net, outrider={samples.KEY}"),
    ],
)
def test_our_tag_joins_the_mailers(present: dict[str, str], expected: str) -> None:
    """The mailer's tags stay, and an older one of ours does not."""
    assert PROVIDER.stamp(samples.KEY, present) == {TAGS: expected}
    assert PROVIDER.stamp(f"{samples.KEY}.2", present) == {TAGS: expected}
    assert set(PROVIDER.stamp(samples.KEY, present)) <= set(PROVIDER.stamped)


@pytest.mark.parametrize(
    "value", ["team", "team=news; a=b c", "täm=news", "a==", "=b", ", ".join(f"t{n}=v" for n in range(49))]
)
def test_what_is_no_list_of_tags_is_left_alone(value: str) -> None:
    """What cannot be merged stays the mailer's, and a full list too."""
    assert PROVIDER.stamp(samples.KEY, {TAGS: value}) == {}


@given(st.text())
def test_any_header_is_merged_or_left(value: str) -> None:
    """Invariant: stamp() gives ASCII in which our key is one tag, or nothing."""
    for merged in PROVIDER.stamp(samples.KEY, {TAGS: value}).values():
        assert merged.isascii()
        assert merged.isprintable()
        assert merged.split(", ")[-1] == f"outrider={samples.KEY}"


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        (f"250 Ok {samples.SES_ID}", samples.SES_ID),
        (f"Ok {samples.SES_ID}", samples.SES_ID),
        (f"2.0.0 Ok {samples.SES_ID}\r\n", samples.SES_ID),
        ("250 Ok 0100-aaa-000000", "0100-aaa-000000"),
        ("250 Ok", None),
        ("250 Ok thank-you", None),
        ("250 2.0.0 Ok: queued as 4XyZ", None),
        ("", None),
    ],
)
def test_the_id_in_the_reply(reply: str, expected: str | None) -> None:
    """It is the whole of `mail.messageId`, and a pleasantry is none."""
    assert PROVIDER.reply_id(reply) == expected


def test_ses_is_known_by_each_regions_host() -> None:
    """And no other host of Amazon's is taken for it."""
    for host in (
        "email-smtp.us-east-1.amazonaws.com",
        "email-smtp.eu-west-3.amazonaws.com",
        "email-smtp.ap-southeast-5.amazonaws.com",
        "email-smtp.us-gov-west-1.amazonaws.com",
        "email-smtp-fips.us-east-2.amazonaws.com",
        "email-smtp.eu-central-1.vpce.amazonaws.com",
    ):
        assert host in PROVIDER.hosts
    assert all(host.startswith("email-smtp") and host.endswith(".amazonaws.com") for host in PROVIDER.hosts)
    assert not PROVIDER.keeps_message_id


@given(any_json)
def test_any_message_is_read(inner: object) -> None:
    """Invariant: parse() of a notification returns sane notices, whatever is in it."""
    read(PROVIDER, _wrapped(inner))


@given(st.binary(max_size=200) | any_json.map(msgspec.json.encode))
def test_any_body_is_refused(body: bytes) -> None:
    """Invariant: authenticate() raises DeniedError and parse() MalformedError, and nothing else."""
    request = Request(method="POST", headers={}, query={}, body=body)
    with pytest.raises(DeniedError):
        PROVIDER.authenticate(request, Trust(topics=(samples.TOPIC,)), NOW, {})
    with pytest.raises(MalformedError):
        PROVIDER.parse(request)
