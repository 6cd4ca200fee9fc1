"""What SES tells through SNS: events of a configuration set, notifications of an identity, and SNS's own messages.

The signature stands in the body, so that one key signs all of them; it is made when this file is imported.
"""

import base64
from datetime import UTC, datetime, timedelta
from functools import cache

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.x509.oid import NameOID

from providers.webhook import Trust
from tests.unit.providers.proof import Proof

KEY = "a2b3c4d5e6f7g2h3i4j5k6l7m4"
MESSAGE_ID = f"{KEY}@example.org"
SES_ID = "0102019b7c1a2b3c-11111111-2222-4333-8444-555555555555-000000"
TOPIC = "arn:aws:sns:eu-west-1:111122223333:mail"
HOST = "https://sns.eu-west-1.amazonaws.com"
CERTIFICATE_URL = f"{HOST}/SimpleNotificationService-0123456789abcdef0123456789abcdef.pem"
SUBSCRIBE_URL = f"{HOST}/?Action=ConfirmSubscription&TopicArn={TOPIC}&Token=2336412f37"
VALIDATED = "Successfully validated SNS topic for Amazon SES event publishing."


@cache
def signing_key() -> rsa.RSAPrivateKey:
    """Return the key of this run's SNS."""
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


def certificate(
    key: rsa.RSAPrivateKey, now: float, *, starts: timedelta = timedelta(days=-1), ends: timedelta = timedelta(days=365)
) -> bytes:
    """Return a self-made certificate in PEM, valid around *now*."""
    at = datetime.fromtimestamp(now, UTC)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "sns.example.com")])
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(x509.random_serial_number())
    builder = builder.not_valid_before(at + starts).not_valid_after(at + ends)
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def signed(fields: dict[str, object], *, version: str = "2", key: rsa.RSAPrivateKey | None = None) -> dict[str, object]:
    """Return an SNS message with its signature, made by the rules of SNS's guide and none of our code."""
    notification = ("Message", "MessageId", "Subject", "Timestamp", "TopicArn", "Type")
    subscription = ("Message", "MessageId", "SubscribeURL", "Timestamp", "Token", "TopicArn", "Type")
    order = notification if fields["Type"] == "Notification" else subscription
    said = "".join(f"{name}\n{fields[name]}\n" for name in order if name in fields).encode()
    algorithm = hashes.SHA1() if version == "1" else hashes.SHA256()  # noqa: S303 - what SNS does
    signature = (key or signing_key()).sign(said, padding.PKCS1v15(), algorithm)
    return fields | {
        "SignatureVersion": version,
        "Signature": base64.b64encode(signature).decode(),
        "SigningCertURL": CERTIFICATE_URL,
    }


def notification(message: object, *, version: str = "2", **changed: object) -> dict[str, object]:
    """Return a signed notification of *message*: a text as it is, anything else as JSON."""
    said = message if isinstance(message, str) else msgspec.json.encode(message).decode()
    fields: dict[str, object] = {
        "Type": "Notification",
        "MessageId": "aaaaaaaa-1111-5222-8333-bbbbbbbbbbbb",
        "TopicArn": TOPIC,
        "Subject": "Amazon SES Email Event Notification",
        "Message": said,
        "Timestamp": "2026-01-02T03:04:06.789Z",
        "UnsubscribeURL": f"{HOST}/?Action=Unsubscribe&SubscriptionArn={TOPIC}:1",
    }
    return signed({name: value for name, value in (fields | changed).items() if value is not None}, version=version)


def control(kind: str, **changed: object) -> dict[str, object]:
    """Return SNS's signed word on a subscription's beginning or end."""
    fields: dict[str, object] = {
        "Type": kind,
        "MessageId": "cccccccc-1111-4222-8333-dddddddddddd",
        "Token": "2336412f37",
        "TopicArn": TOPIC,
        "Message": f"You have chosen to subscribe to the topic {TOPIC}.",
        "SubscribeURL": SUBSCRIBE_URL,
        "Timestamp": "2026-01-02T03:00:00.000Z",
    }
    return signed(fields | changed)


def mail(*recipients: str, **changed: object) -> dict[str, object]:
    """Return what every event repeats of the mail; a value of None leaves the field out."""
    everything: dict[str, object] = {
        "timestamp": "2026-01-02T03:04:00.000Z",
        "messageId": SES_ID,
        "source": "news@example.org",
        "sourceArn": "arn:aws:ses:eu-west-1:111122223333:identity/example.org",
        "sendingAccountId": "111122223333",
        "destination": list(recipients or ("ann@example.net",)),
        "headersTruncated": False,
        "headers": [
            {"name": "From", "value": "news@example.org"},
            {"name": "Message-ID", "value": f"<{MESSAGE_ID}>"},
            {"name": "X-Listmonk-Campaign", "value": "5f0c6a1e-0000-4000-8000-000000000065"},
        ],
        "commonHeaders": {"messageId": f"<{MESSAGE_ID}>", "from": ["news@example.org"], "subject": "Hi"},
        "tags": {"ses:configuration-set": ["mail"], "outrider": [KEY], "team": ["news"]},
    }
    return {name: value for name, value in (everything | changed).items() if value is not None}


def event(kind: str, place: str, body: object, **changed: object) -> dict[str, object]:
    """Return an event of a configuration set."""
    return {"eventType": kind, "mail": mail(), place: body} | changed


def bounce(kind: str = "Permanent", subtype: str = "General", *recipients: dict[str, object]) -> dict[str, object]:
    """Return the part of a bounce."""
    return {
        "bounceType": kind,
        "bounceSubType": subtype,
        "feedbackId": "f-1",
        "timestamp": "2026-01-02T03:04:03.000Z",
        "reportingMTA": "dsn; a.example.com",
        "bouncedRecipients": list(recipients)
        or [
            {
                "emailAddress": "ann@example.net",
                "action": "failed",
                "status": "5.1.1",
                "diagnosticCode": "smtp; 550 5.1.1 unknown user",
            }
        ],
    }


def complaint(kind: str | None = "abuse", subtype: str | None = None, *addresses: str) -> dict[str, object]:
    """Return the part of a complaint."""
    return {
        "complainedRecipients": [{"emailAddress": one} for one in addresses or ("ann@example.net",)],
        "complaintFeedbackType": kind,
        "complaintSubType": subtype,
        "userAgent": "Example Feedback Loop",
        "arrivalDate": "2026-01-02T04:00:00.000Z",
        "timestamp": "2026-01-02T04:00:01.000Z",
        "feedbackId": "f-2",
    }


def preferences(*, everything: bool, **topics: str) -> dict[str, object]:
    """Return a contact's preferences."""
    states = [{"topicName": name, "subscriptionStatus": state} for name, state in topics.items()]
    return {"unsubscribeAll": everything, "topicSubscriptionStatus": states}


_SEEN: dict[str, object] = {
    "ipAddress": "192.0.2.7",
    "timestamp": "2026-01-02T03:05:00.000Z",
    "userAgent": "Mozilla/5.0 (example)",
}
_CLICK = _SEEN | {"link": "https://example.org/p?a=1", "linkTags": {"place": ["top", "left"]}}
_DELIVERED: dict[str, object] = {
    "timestamp": "2026-01-02T03:04:02.000Z",
    "processingTimeMillis": 1200,
    "recipients": ["ann@example.net"],
    "smtpResponse": "250 2.6.0 Message received",
    "remoteMtaIp": "192.0.2.25",
    "reportingMTA": "a.example.com",
}
_DELAYED: dict[str, object] = {
    "timestamp": "2026-01-02T03:10:00.000Z",
    "delayType": "MailboxFull",
    "expirationTime": "2026-01-02T17:00:00.000Z",
    "delayedRecipients": [
        {"emailAddress": "ann@example.net", "status": "4.2.2", "diagnosticCode": "smtp; 452 4.2.2 mailbox full"}
    ],
}
_BOB: dict[str, object] = {"emailAddress": "bob@example.net", "status": "4.4.7"}
_ANN: dict[str, object] = {"emailAddress": "ann@example.net"}
_PAIR = mail("ann@example.net", "bob@example.net")
_LEFT: dict[str, object] = {
    "contactList": "readers",
    "timestamp": "2026-01-02T05:00:00.000Z",
    "source": "UnsubscribeHeader",
    "newTopicPreferences": preferences(everything=True, offers="OptOut"),
    "oldTopicPreferences": preferences(everything=False, offers="OptOut"),
}
_JOINED = _LEFT | {
    "newTopicPreferences": preferences(everything=False, offers="OptIn"),
    "oldTopicPreferences": preferences(everything=True, offers="OptOut"),
}
_LEFT_TOPIC = _LEFT | {
    "newTopicPreferences": preferences(everything=False, offers="OptOut", news="OptIn"),
    "oldTopicPreferences": preferences(everything=False, offers="OptIn", news="OptIn"),
}
_IDENTITY: dict[str, object] = {
    "notificationType": "Bounce",
    "mail": mail(headers=None, commonHeaders=None, tags=None),
    "bounce": bounce(),
}

#: The events inside: what stands in `Message`.
INNER: list[tuple[str, object]] = [
    ("send", event("Send", "send", {})),
    ("send to two", event("Send", "send", {}, mail=_PAIR)),
    ("reject", event("Reject", "reject", {"reason": "Bad content"})),
    ("rendering failure", event("Rendering Failure", "failure", {"errorMessage": "no name", "templateName": "t"})),
    ("delivery", event("Delivery", "delivery", _DELIVERED)),
    ("delay", event("DeliveryDelay", "deliveryDelay", _DELAYED)),
    ("bounce", event("Bounce", "bounce", bounce())),
    ("bounce, transient", event("Bounce", "bounce", bounce("Transient", "MailboxFull"))),
    ("bounce, undetermined", event("Bounce", "bounce", bounce("Undetermined", "Undetermined", _ANN))),
    ("bounce, suppressed", event("Bounce", "bounce", bounce("Permanent", "Suppressed", _ANN))),
    ("bounce, account list", event("Bounce", "bounce", bounce("Permanent", "OnAccountSuppressionList", _ANN))),
    ("bounce, new type", event("Bounce", "bounce", bounce("Sideways", "New", _ANN))),
    ("bounce of two", event("Bounce", "bounce", bounce("Transient", "General", _ANN, _BOB), mail=_PAIR)),
    ("bounce of an identity", _IDENTITY),
    ("complaint", event("Complaint", "complaint", complaint())),
    ("complaint, unnamed", event("Complaint", "complaint", complaint(None))),
    ("complaint, not-spam", event("Complaint", "complaint", complaint("not-spam"))),
    ("complaint, auth-failure", event("Complaint", "complaint", complaint("auth-failure"))),
    ("complaint, account list", event("Complaint", "complaint", complaint(None, "OnAccountSuppressionList"))),
    ("complaint of either", event(
        "Complaint", "complaint", complaint("abuse", None, "ann@example.net", "bob@example.net"), mail=_PAIR
    )),
    ("open", event("Open", "open", _SEEN)),
    ("open by either", event("Open", "open", _SEEN, mail=_PAIR)),
    ("click", event("Click", "click", _CLICK)),
    ("unsubscription", event("Subscription", "subscription", _LEFT)),
    ("unsubscription from a topic", event("Subscription", "subscription", _LEFT_TOPIC)),
    ("subscription", event("Subscription", "subscription", _JOINED)),
    ("another event", event("Teleport", "teleport", {})),
]  # fmt: skip

EVENTS: list[tuple[str, object]] = [
    *((name, notification(inner)) for name, inner in INNER),
    ("old signature", notification(event("Open", "open", _SEEN), version="1")),
    ("no subject", notification(event("Open", "open", _SEEN), Subject=None)),
    ("validated", notification(VALIDATED)),
    ("subscribed", notification({
        "notificationType": "AmazonSnsSubscriptionSucceeded",
        "message": "You have successfully subscribed your Amazon SNS topic to receive 'Bounce' notifications.",
    })),
    ("confirmation", control("SubscriptionConfirmation")),
    ("unsubscribed", control("UnsubscribeConfirmation")),
]  # fmt: skip


def proof(body: bytes, now: float) -> Proof:
    """Return the topic as believed, SNS's headers, and a fresh certificate of the key that signed the samples."""
    sent = msgspec.json.decode(body)
    return Proof(
        trust=Trust(topics=("arn:aws:sns:us-east-1:111122223333:other", TOPIC)),
        headers={
            "content-type": "text/plain; charset=UTF-8",
            "x-amz-sns-message-type": sent["Type"],
            "x-amz-sns-message-id": sent["MessageId"],
            "x-amz-sns-topic-arn": sent["TopicArn"],
        },
        documents={CERTIFICATE_URL: certificate(signing_key(), now)},
    )
