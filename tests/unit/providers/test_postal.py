"""Postal's webhooks: every event, keys from the settings and from a key set, and the tag."""

import base64
from typing import Any

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from providers.notice import Bounce, Name, Notice, Step, What
from providers.postal import PROVIDER
from providers.webhook import DeniedError, Fetch, MalformedError, Proven, Request, Trust
from tests.unit.providers.samples import postal as samples
from tests.unit.providers.walk import any_json, read, survives

SAMPLES: dict[str, Any] = dict(samples.EVENTS)
NOW = 1_767_323_100.0
OURS = Name(Step.MESSAGE_ID, samples.MESSAGE_ID)
THEIRS = Name(Step.PROVIDER_ID, "ab3cd4ef5gh6")
ENVELOPE_MS = 1_767_323_045_500
BODY = b'{"event":"MessageSent"}'

EXPECTED: dict[str, tuple[What, dict[str, Any]]] = {
    "sent": (
        What.DELIVERED,
        {
            "smtp_code": "250",
            "enhanced_code": "2.0.0",
            "description": "Message sent by SMTP to mx.example.net 250 2.0.0 Ok",
        },
    ),
    "sent, tagged by us": (
        What.DELIVERED,
        {
            "smtp_code": "250",
            "description": "250 OK",
            "names": (OURS, Name(Step.TOKEN, samples.KEY), THEIRS),
            "tags": (samples.KEY,),
        },
    ),
    "sent, tagged by the mailer": (
        What.DELIVERED,
        {"smtp_code": "250", "description": "250 OK", "tags": ("c186",)},
    ),
    "delayed": (
        What.DEFERRED,
        {
            "smtp_code": "451",
            "enhanced_code": "4.7.1",
            "description": "Temporary problem 451 4.7.1 greylisted",
        },
    ),
    "failed": (
        What.BOUNCED,
        {
            "bounce": Bounce.HARD,
            "smtp_code": "550",
            "enhanced_code": "5.1.1",
            "description": "Permanent error 550 5.1.1 no such user",
        },
    ),
    "failed, policy": (
        What.BOUNCED,
        {
            "bounce": Bounce.BLOCK,
            "smtp_code": "550",
            "enhanced_code": "5.7.1",
            "description": "Permanent error 550 5.7.1 listed",
        },
    ),
    "failed, too often": (What.BOUNCED, {"bounce": Bounce.SOFT}),
    "failed, spam": (What.BOUNCED, {"bounce": Bounce.BLOCK}),
    "failed, other": (What.BOUNCED, {"bounce": Bounce.UNKNOWN}),
    "held": (What.DEFERRED, {}),
    "held, suppressed": (What.BOUNCED, {"bounce": Bounce.SUPPRESSED}),
    "bounced": (What.BOUNCED, {"bounce": Bounce.UNKNOWN, "at_ms": ENVELOPE_MS}),
    "loaded": (What.OPENED, {"ip": "192.0.2.1", "user_agent": "UA", "at_ms": ENVELOPE_MS}),
    "clicked": (
        What.CLICKED,
        {"ip": "192.0.2.1", "user_agent": "UA", "url": "https://example.org/page?a=1", "at_ms": ENVELOPE_MS},
    ),
    "another event": (What.UNKNOWN, {"at_ms": ENVELOPE_MS}),
}
SKIPPED = {"incoming", "domain", "limit near", "limit"}


def _request(body: bytes, headers: dict[str, str]) -> Request:
    return Request(method="POST", headers=headers, query={}, body=body)


def _ask(headers: dict[str, str], trust: Trust, body: bytes = BODY, **documents: bytes) -> Proven | Fetch:
    return PROVIDER.authenticate(_request(body, headers), trust, NOW, documents)


@pytest.mark.parametrize("name", EXPECTED)
def test_each_event_becomes_one_notice(name: str) -> None:
    """All that an event says arrives, in our words."""
    event = SAMPLES[name]
    what, fields = EXPECTED[name]
    common: dict[str, Any] = {
        "dedupe": event["uuid"],
        "at_ms": 1_767_323_045_250,
        "recipient": "ann@example.net",
        "names": (OURS, THEIRS),
        "description": event["payload"].get("details", ""),
        "raw": msgspec.json.encode(event),
    }
    expected = Notice(provider="postal", what=what, **(common | fields))
    assert read(PROVIDER, msgspec.json.encode(event)) == (expected,)


@pytest.mark.parametrize("name", sorted(SKIPPED))
def test_what_is_of_no_send_gives_no_notice(name: str) -> None:
    """Incoming mail, a domain and a server's limit are no recipient's events."""
    assert read(PROVIDER, msgspec.json.encode(SAMPLES[name])) == ()


def test_every_sample_is_expected() -> None:
    """No sample stands without an expectation."""
    assert set(SAMPLES) == set(EXPECTED) | SKIPPED


def test_another_servers_message_of_the_same_number_is_not_taken_for_ours() -> None:
    """Ids count up on each mail server: only the token names a message, and never the number."""
    (notice,) = read(PROVIDER, msgspec.json.encode(SAMPLES["loaded"]))
    assert "812" not in {name.value for name in notice.names}


def test_events_without_a_uuid_are_one_only_if_they_are_equal() -> None:
    """What lacks its `uuid` is known by its content."""
    event = {name: value for name, value in SAMPLES["loaded"].items() if name != "uuid"}
    (one,), (two,) = (read(PROVIDER, msgspec.json.encode(event)) for _ in range(2))
    (three,) = read(PROVIDER, msgspec.json.encode(event | {"timestamp": 6}))
    assert one.dedupe == two.dedupe != three.dedupe


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'"x"', b"\xff", b"7", b"null", b"[" * 5000])
def test_what_is_no_object_is_malformed(body: bytes) -> None:
    """Another shape is refused as a whole."""
    with pytest.raises(MalformedError):
        PROVIDER.parse(_request(body, {}))


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


@pytest.fixture(scope="module")
def key() -> rsa.RSAPrivateKey:
    """An installation's key."""
    return samples.fresh_key()


@pytest.fixture(scope="module")
def other() -> rsa.RSAPrivateKey:
    """Somebody else's key, of another length."""
    return samples.fresh_key(1024)


def test_a_configured_key_is_read_in_every_spelling(key: rsa.RSAPrivateKey, other: rsa.RSAPrivateKey) -> None:
    """A PEM, one on a single line, base64, the DKIM record, and its `p=` alone; any of several keys."""
    pem = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
    old = key.public_key().public_bytes(Encoding.PEM, PublicFormat.PKCS1).decode()
    der = samples.der(key)
    record = f"v=DKIM1; t=s; h=sha256; p={der};"
    for spelt in (pem, pem.replace("\n", " "), pem.replace("\n", "\\n"), old, der, f"p={der}", record):
        trust = Trust(secrets=("not a key", samples.der(other), spelt))
        assert PROVIDER.configured(trust)
        assert _ask(samples.headers(key, BODY), trust) == Proven()


def test_a_short_key_of_an_old_installation_signs_too(other: rsa.RSAPrivateKey) -> None:
    """A signature need not have 256 octets."""
    assert _ask(samples.headers(other, BODY), Trust(secrets=(samples.der(other),))) == Proven()


def test_a_wrong_key_a_cut_body_and_no_signature_are_denied(key: rsa.RSAPrivateKey, other: rsa.RSAPrivateKey) -> None:
    """Every octet of the body is signed."""
    trust = Trust(secrets=(samples.der(key),))
    for headers, body in (
        (samples.headers(other, BODY), BODY),
        (samples.headers(key, BODY), BODY[:-1]),
        (samples.headers(key, BODY), BODY + b"\n"),
        ({}, BODY),
        ({"x-postal-signature-256": "AAAA"}, BODY),
        ({"x-postal-signature-256": "\udcff"}, BODY),
    ):
        with pytest.raises(DeniedError):
            _ask(headers, trust, body)


def test_sha1_is_believed_only_on_request(key: rsa.RSAPrivateKey, other: rsa.RSAPrivateKey) -> None:
    """And never where the better signature is wrong."""
    good = samples.headers(key, BODY)
    old = {name: value for name, value in good.items() if name != "x-postal-signature-256"}
    secrets = (samples.der(key),)
    with pytest.raises(DeniedError):
        _ask(old, Trust(secrets=secrets))
    assert _ask(old, Trust(secrets=secrets, sha1=True)) == Proven()
    forged = good | {"x-postal-signature-256": samples.headers(other, BODY)["x-postal-signature-256"]}
    for headers in (forged, samples.headers(other, BODY), {"x-postal-signature": "AAAA"}):
        with pytest.raises(DeniedError):
            _ask(headers, Trust(secrets=secrets, sha1=True))


def test_a_key_set_is_asked_for_and_its_key_chosen_by_name(key: rsa.RSAPrivateKey, other: rsa.RSAPrivateKey) -> None:
    """Only the key that the request names counts, and the set is fetched only for a signature."""
    trust = Trust(key_set=samples.KEY_SET)
    assert PROVIDER.configured(trust)
    good = samples.headers(key, BODY)
    assert _ask(good, trust) == Fetch(url=samples.KEY_SET)
    with pytest.raises(DeniedError):
        _ask({}, trust)
    both = {samples.KEY_SET: samples.key_set(other, key)}
    assert _ask(good, trust, **both) == Proven()
    nameless = {name: value for name, value in good.items() if name != "x-postal-signature-kid"}
    assert _ask(nameless, trust, **both) == Proven()
    for headers, document in (
        (good | {"x-postal-signature-kid": samples.kid(other)}, both[samples.KEY_SET]),
        (good | {"x-postal-signature-kid": "another"}, both[samples.KEY_SET]),
        (good, samples.key_set(other)),
    ):
        with pytest.raises(DeniedError):
            _ask(headers, trust, **{samples.KEY_SET: document})
    proof = samples.proof(BODY, NOW)
    request = Request(method="POST", headers=proof.headers, query=proof.query, body=BODY)
    assert PROVIDER.authenticate(request, proof.trust, NOW, proof.documents) == Proven()


def test_a_configured_key_spares_the_key_set(key: rsa.RSAPrivateKey) -> None:
    """Nothing is fetched where the settings suffice."""
    trust = Trust(secrets=(samples.der(key),), key_set=samples.KEY_SET)
    assert _ask(samples.headers(key, BODY), trust) == Proven()


def test_a_key_that_is_not_for_signatures_does_not_count(key: rsa.RSAPrivateKey) -> None:
    """`use` and `kty` of a JWK are heeded."""
    good = samples.headers(key, BODY)
    for changed in ({"use": "enc"}, {"kty": "EC"}, {"n": ""}, {"n": "AQAB"}, {"e": ""}, {"e": "AA"}):
        document = msgspec.json.encode({"keys": [samples.jwk(key) | changed]})
        with pytest.raises(DeniedError):
            _ask(good, Trust(key_set=samples.KEY_SET), **{samples.KEY_SET: document})


@pytest.mark.parametrize("field", ["kty", "n", "e", "kid", "use", "keys"])
@pytest.mark.parametrize("value", [None, 7, [], {}, "\u00e9", "A" * 9000, True])
def test_a_strange_key_set_is_denied_and_no_failure(key: rsa.RSAPrivateKey, field: str, value: object) -> None:
    """Invariant: only DeniedError leaves it."""
    described: dict[str, object] = {"keys": [samples.jwk(key) | {field: value}]}
    document = msgspec.json.encode(described if field != "keys" else {"keys": value})
    headers = samples.headers(key, BODY)
    try:
        answer = _ask(headers, Trust(key_set=samples.KEY_SET), **{samples.KEY_SET: document})
    except DeniedError:
        return
    # `use` may be absent.
    assert field == "use"
    assert answer == Proven()


@given(document=st.binary(max_size=80) | any_json.map(msgspec.json.encode))
def test_any_document_is_denied_and_no_failure(document: bytes) -> None:
    """Invariant: only DeniedError leaves it."""
    with pytest.raises(DeniedError):
        _ask({"x-postal-signature-256": "AAAA"}, Trust(key_set=samples.KEY_SET), **{samples.KEY_SET: document})


@given(signature=st.text(max_size=40), kid=st.text(max_size=20), body=st.binary(max_size=40))
def test_no_request_makes_authenticate_fail(signature: str, kid: str, body: bytes) -> None:
    """Invariant: only DeniedError leaves it."""
    headers = dict.fromkeys(("x-postal-signature", "x-postal-signature-256"), signature)
    with pytest.raises(DeniedError):
        _ask(headers | {"x-postal-signature-kid": kid}, Trust(secrets=(FIXED,), sha1=True), body)


FIXED = samples.der(samples.fresh_key())


def test_it_is_configured_only_by_what_can_prove_something() -> None:
    """A key set without TLS proves nothing, and neither does a key of another kind."""
    p256 = ec.generate_private_key(ec.SECP256R1()).public_key()
    foreign = base64.b64encode(p256.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).decode()
    for secret in ("", "not a key", "AAAA", foreign, "é"):
        assert not PROVIDER.configured(Trust(secrets=(secret,)))
    plain = Trust(key_set="http://postal.example.com/.well-known/jwks.json")
    assert not PROVIDER.configured(plain)
    with pytest.raises(DeniedError):
        _ask({"x-postal-signature-256": "AAAA"}, plain)


def test_the_tag_carries_our_key_unless_the_mailer_has_one() -> None:
    """A message has one tag."""
    assert PROVIDER.stamp(samples.KEY, {}) == {"X-Postal-Tag": samples.KEY}
    assert PROVIDER.stamp(samples.KEY, {"X-Postal-Tag": " "}) == {"X-Postal-Tag": samples.KEY}
    assert PROVIDER.stamp(samples.KEY, {"X-Postal-Tag": "c186"}) == {}


def test_what_the_provider_says_of_itself() -> None:
    """The registry and the relay read these."""
    assert PROVIDER.name == "postal"
    assert PROVIDER.stamped == ("X-Postal-Tag",)
    assert PROVIDER.hosts == ()
    assert PROVIDER.keeps_message_id
    assert PROVIDER.reply_id("OK") is None
    assert PROVIDER.reply_id("2.0.0 Ok: queued as 4bXyZ123") is None
