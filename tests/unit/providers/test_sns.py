"""SNS's envelope: what is signed, by whose certificate, and which addresses in it are Amazon's."""

import base64
from datetime import timedelta

import msgspec
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from hypothesis import given
from hypothesis import strategies as st

from providers import sns
from providers.webhook import DeniedError, MalformedError
from tests.unit.providers.samples import ses as samples
from tests.unit.providers.walk import any_json

NOW = 1_767_323_045.0


def _envelope(fields: dict[str, object]) -> sns.Envelope:
    return sns.envelope(msgspec.json.encode(fields))


def _pem() -> bytes:
    return samples.certificate(samples.signing_key(), NOW)


def test_the_signed_text_of_a_notification() -> None:
    """Six names in their order, each value and the end closed by a line feed."""
    fields: dict[str, object] = {
        "Type": "Notification",
        "MessageId": "m",
        "TopicArn": "t",
        "Subject": "s",
        "Message": "two\nlines",
        "Timestamp": "now",
    }
    expected = b"Message\ntwo\nlines\nMessageId\nm\nSubject\ns\nTimestamp\nnow\nTopicArn\nt\nType\nNotification\n"
    assert sns.signed_text(_envelope(samples.signed(fields))) == expected
    del fields["Subject"]
    assert sns.signed_text(_envelope(samples.signed(fields))) == expected.replace(b"Subject\ns\n", b"")


@pytest.mark.parametrize("kind", ["SubscriptionConfirmation", "UnsubscribeConfirmation"])
def test_the_signed_text_of_a_confirmation(kind: str) -> None:
    """Address and token are in it; a subject never is."""
    sent = _envelope(samples.control(kind, Subject="s", Message="m", Timestamp="now"))
    expected = (
        f"Message\nm\nMessageId\n{sent.message_id}\nSubscribeURL\n{samples.SUBSCRIBE_URL}\nTimestamp\nnow\n"
        f"Token\n2336412f37\nTopicArn\n{samples.TOPIC}\nType\n{kind}\n"
    )
    assert sns.signed_text(sent) == expected.encode()


@pytest.mark.parametrize("version", ["1", "2"])
@pytest.mark.parametrize("changed", [{}, {"Subject": None}, {"Message": "é \U0001f600 \0"}])
def test_both_versions_are_verified(version: str, changed: dict[str, object]) -> None:
    """SHA-1 and SHA-256, with and without a subject, over UTF-8."""
    fields = {"Message": "text"} | changed
    sent = _envelope(samples.notification(fields.pop("Message"), version=version, **fields))
    sns.verify(sent, _pem(), NOW)


@pytest.mark.parametrize("kind", ["SubscriptionConfirmation", "UnsubscribeConfirmation"])
def test_a_confirmation_is_verified(kind: str) -> None:
    """The other order of fields."""
    sns.verify(_envelope(samples.control(kind)), _pem(), NOW)


@pytest.mark.parametrize("field", ["Message", "MessageId", "Subject", "Timestamp", "TopicArn", "Type"])
def test_no_signed_field_of_a_notification_may_change(field: str) -> None:
    """Any other value breaks the signature."""
    other = "SubscriptionConfirmation" if field == "Type" else "other"
    sent = _envelope(samples.notification("text") | {field: other})
    with pytest.raises(DeniedError):
        sns.verify(sent, _pem(), NOW)


@pytest.mark.parametrize("field", ["SubscribeURL", "Token", "Message", "Type"])
def test_no_signed_field_of_a_confirmation_may_change(field: str) -> None:
    """An address of the attacker's does not verify."""
    other = "UnsubscribeConfirmation" if field == "Type" else "other"
    sent = _envelope(samples.control("SubscriptionConfirmation") | {field: other})
    with pytest.raises(DeniedError):
        sns.verify(sent, _pem(), NOW)


@pytest.mark.parametrize("signature", ["", "%%%", "AAAA", "é", base64.b64encode(b"\0" * 256).decode()])
def test_a_signature_of_nothing_is_denied(signature: str) -> None:
    """Nonsense in its place."""
    with pytest.raises(DeniedError):
        sns.verify(_envelope(samples.notification("text") | {"Signature": signature}), _pem(), NOW)


@pytest.mark.parametrize("version", ["", "0", "3", "02", "1 "])
def test_an_unknown_version_is_denied(version: str) -> None:
    """A version says which hash, and no other one is guessed."""
    with pytest.raises(DeniedError):
        sns.verify(_envelope(samples.notification("text") | {"SignatureVersion": version}), _pem(), NOW)


def test_a_version_is_not_exchanged() -> None:
    """A signature over SHA-1 is none over SHA-256."""
    sent = _envelope(samples.notification("text", version="1") | {"SignatureVersion": "2"})
    with pytest.raises(DeniedError):
        sns.verify(sent, _pem(), NOW)


def test_another_key_is_denied() -> None:
    """Somebody else's certificate, however valid."""
    other = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    with pytest.raises(DeniedError):
        sns.verify(_envelope(samples.notification("text")), samples.certificate(other, NOW), NOW)


@pytest.mark.parametrize(("starts", "ends"), [(1, 365), (-365, -1)])
def test_a_certificate_out_of_its_dates_is_denied(starts: int, ends: int) -> None:
    """Not yet, and no longer."""
    pem = samples.certificate(samples.signing_key(), NOW, starts=timedelta(days=starts), ends=timedelta(days=ends))
    with pytest.raises(DeniedError, match="dates"):
        sns.verify(_envelope(samples.notification("text")), pem, NOW)


def test_a_weak_key_is_denied() -> None:
    """1,024 bits are too few, though the signature is right."""
    weak = rsa.generate_private_key(public_exponent=65537, key_size=1024)  # noqa: S505 - it is to be refused
    sent = _envelope(samples.signed({**samples.notification("text"), "Message": "x"}, key=weak))
    with pytest.raises(DeniedError, match="kind"):
        sns.verify(sent, samples.certificate(weak, NOW), NOW)


def test_a_certificate_of_another_kind_is_denied() -> None:
    """An elliptic curve, where SNS has RSA."""
    built = x509.load_pem_x509_certificate(_pem())
    key = ec.generate_private_key(ec.SECP256R1())
    builder = x509.CertificateBuilder(
        built.issuer,
        built.subject,
        key.public_key(),
        built.serial_number,
        built.not_valid_before_utc,
        built.not_valid_after_utc,
    )
    pem = builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
    with pytest.raises(DeniedError, match="kind"):
        sns.verify(_envelope(samples.notification("text")), pem, NOW)


@pytest.mark.parametrize("pem", [b"", b"<html>not found</html>", b"-----BEGIN CERTIFICATE-----\nAAAA\n", b"\xff" * 99])
def test_what_is_no_certificate_is_denied(pem: bytes) -> None:
    """An error page, or a document cut short."""
    with pytest.raises(DeniedError, match="unreadable"):
        sns.verify(_envelope(samples.notification("text")), pem, NOW)


@pytest.mark.parametrize(
    "url",
    [
        "https://sns.eu-west-1.amazonaws.com/SimpleNotificationService-0123.pem",
        "https://sns.us-gov-west-1.amazonaws.com/SimpleNotificationService-0123.pem",
        "https://sns.ap-southeast-2.amazonaws.com/S.pem",
        "https://sns.cn-north-1.amazonaws.com.cn/S.pem",
    ],
)
def test_amazons_certificates_may_be_fetched(url: str) -> None:
    """Each region's own host."""
    assert sns.certificate_url(_envelope(samples.notification("text") | {"SigningCertURL": url})) == url


_OTHERS = [
    "",
    "http://sns.eu-west-1.amazonaws.com/{}",
    "https://sns.eu-west-1.amazonaws.com.example.com/{}",
    "https://sns.eu-west-1.example.com/{}",
    "https://example.com/sns.eu-west-1.amazonaws.com/{}",
    "https://sns.eu-west-1.amazonaws.com@example.com/{}",
    "https://user@sns.eu-west-1.amazonaws.com/{}",
    "https://sns.eu-west-1.amazonaws.com:8443/{}",
    "https://sns.eu-west-1.amazonaws.com\\@example.com/{}",
    "https://example.com\\.sns.eu-west-1.amazonaws.com/{}",
    "https://example.com#sns.eu-west-1.amazonaws.com/{}",
    "https://sns.amazonaws.com/{}",
    # Buckets and functions, which anybody may own.
    "https://s3.amazonaws.com/sns.eu-west-1.amazonaws.com/{}",
    "https://sns.s3.amazonaws.com/{}",
    "https://sns.s3-eu-west-1.amazonaws.com/{}",
    "https://sns.s3.eu-west-1.amazonaws.com/{}",
    "https://sns.eu-west-1.s3.amazonaws.com/{}",
    "https://xsns.eu-west-1.amazonaws.com/{}",
    "https://sns.eu-west-1.amazonaws.com.cn.example.com/{}",
    "https://sns.eu-west-1.amazonaws.com\n/{}",
    "https://sns.eu-west-1.amazonaws.com/{}\n",
    "https://127.0.0.1/{}",
    "//sns.eu-west-1.amazonaws.com/{}",
]


@pytest.mark.parametrize("url", _OTHERS)
def test_no_other_certificate_is_fetched(url: str) -> None:
    """A look-alike host is refused before anything is asked for."""
    with pytest.raises(DeniedError):
        sns.certificate_url(_envelope(samples.notification("text") | {"SigningCertURL": url.format("S.pem")}))


@pytest.mark.parametrize("path", ["S.txt", "a/../S.pem", "S.pem?x=1", "S.pem#x", "?x=S.pem", ".pem", ""])
def test_no_other_document_is_a_certificate(path: str) -> None:
    """One file of the host's root, that ends in .pem."""
    url = f"{samples.HOST}/{path}"
    with pytest.raises(DeniedError):
        sns.certificate_url(_envelope(samples.notification("text") | {"SigningCertURL": url}))


def test_a_subscription_is_confirmed_at_its_address() -> None:
    """The address that SNS documents."""
    sent = _envelope(samples.control("SubscriptionConfirmation"))
    assert sns.confirmation_url(sent) == samples.SUBSCRIBE_URL


@pytest.mark.parametrize(
    "url",
    [
        *(url.format(samples.SUBSCRIBE_URL.removeprefix(f"{samples.HOST}/")) for url in _OTHERS),
        samples.SUBSCRIBE_URL.replace("ConfirmSubscription", "DeleteTopic"),
        samples.SUBSCRIBE_URL.replace(samples.TOPIC, "arn:aws:sns:eu-west-1:999922223333:other"),
        samples.SUBSCRIBE_URL + "&Action=DeleteTopic",
        samples.SUBSCRIBE_URL + "&TopicArn=arn:aws:sns:eu-west-1:999922223333:other",
        samples.HOST + "/path?Action=ConfirmSubscription",
        samples.HOST,
    ],
)
def test_no_other_address_is_visited(url: str) -> None:
    """Not another host, not another action, not another topic, even if it is signed."""
    assert not sns.confirmation_url(_envelope(samples.control("SubscriptionConfirmation", SubscribeURL=url)))


def test_the_end_of_a_subscription_is_not_its_beginning() -> None:
    """Its SubscribeURL would subscribe again."""
    assert not sns.confirmation_url(_envelope(samples.control("UnsubscribeConfirmation")))


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"7",
        b"{}",
        b"\xff",
        b"[" * 3000,
        msgspec.json.encode(samples.INNER[0][1]),
        msgspec.json.encode(samples.notification("text") | {"Type": "Other"}),
        msgspec.json.encode(samples.notification("text") | {"Message": {"eventType": "Open"}}),
        msgspec.json.encode(samples.notification("text"))[:-20],
    ],
)
def test_what_is_no_envelope_is_malformed(body: bytes) -> None:
    """SES's own JSON without an envelope, a truncated one, and nonsense."""
    with pytest.raises(MalformedError):
        sns.envelope(body)


@given(any_json.map(msgspec.json.encode) | st.binary(max_size=100))
def test_any_body_is_an_envelope_or_malformed(body: bytes) -> None:
    """Invariant: envelope() raises MalformedError and nothing else."""
    with pytest.raises(MalformedError):
        sns.envelope(body)


@given(
    st.fixed_dictionaries({name: st.text() for name in ("Signature", "SignatureVersion", "Message", "MessageId")}),
    st.binary(max_size=50),
)
def test_any_forgery_is_denied(changed: dict[str, str], pem: bytes) -> None:
    """Invariant: verify() of what SNS did not sign raises DeniedError and nothing else."""
    sent = _envelope(samples.notification("text") | changed)
    for document in (pem, _pem()):
        with pytest.raises(DeniedError):
            sns.verify(sent, document, NOW)
