"""What providers post about a mailing, as they document it, and with signatures that hold; each run makes its keys."""

import base64
import hashlib
import hmac
import itertools
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Final

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.x509.oid import NameOID

from bench.clients import request
from bench.mailing import AGENTS, Letter
from providers.webhook import Trust

_TOPIC: Final = "arn:aws:sns:eu-west-1:111122223333:mail"
_HOST: Final = "https://sns.eu-west-1.amazonaws.com"
_CERTIFICATE_URL: Final = f"{_HOST}/SimpleNotificationService-0123456789abcdef0123456789abcdef.pem"
_GRID_TOPIC: Final = (
    "/subscriptions/00000000-0000-0000-0000-000000000000/resourcegroups/mail"
    "/providers/microsoft.communication/communicationservices/example"
)
_LINK: Final = "https://shop.example.com/spring/offers?item=1"

#: Makes an event of its own of one letter: of the first time it is told of, the second, and so on.
_Event = Callable[[Letter, int], object]


class Side(msgspec.Struct, frozen=True, kw_only=True):
    """A provider: what is believed of it, and how it posts."""

    name: str
    trust: Trust
    #: The value of a whole body to a request that is proved.
    seal: Callable[[object], bytes]
    event: _Event
    #: Events of one request; 1: one, and no array of it.
    batch: int = 1
    documents: Mapping[str, bytes] = {}

    def requests(self, letters: Sequence[Letter], events: int) -> list[bytes]:
        """Return the requests that tell so many *events*, each letter's in turn."""
        told = (self.event(letters[at % len(letters)], at // len(letters)) for at in range(events))
        if self.batch == 1:
            return [self.seal(event) for event in told]
        return [self.seal(part) for part in iter(lambda: list(itertools.islice(told, self.batch)), [])]


def azure(batch: int) -> Side:
    """Return Event Grid, which posts arrays."""
    secret = secrets.token_urlsafe(24)
    return Side(
        name="azure",
        trust=Trust(secrets=(secret,)),
        seal=lambda value: _post(f"/webhooks/azure?key={secret}", msgspec.json.encode(value)),
        event=_grid,
        batch=batch,
    )


def ses() -> Side:
    """Return SNS, which posts one event at a time and signs it with RSA."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    numbers = itertools.count(1)

    def seal(value: object) -> bytes:
        fields = {
            "Type": "Notification",
            "MessageId": f"aaaaaaaa-1111-5222-8333-{next(numbers):012d}",
            "TopicArn": _TOPIC,
            "Message": msgspec.json.encode(value).decode(),
            "Timestamp": _now().strftime("%Y-%m-%dT%H:%M:%S.000Z"),
        }
        order = ("Message", "MessageId", "Timestamp", "TopicArn", "Type")
        said = "".join(f"{name}\n{fields[name]}\n" for name in order).encode()
        proof = {
            "SignatureVersion": "2",
            "Signature": base64.b64encode(key.sign(said, padding.PKCS1v15(), SHA256())).decode(),
            "SigningCertURL": _CERTIFICATE_URL,
        }
        return _post("/webhooks/ses", msgspec.json.encode(fields | proof), content_type="text/plain; charset=UTF-8")

    return Side(
        name="ses",
        trust=Trust(topics=(_TOPIC,)),
        seal=seal,
        event=_published,
        documents={_CERTIFICATE_URL: _certificate(key)},
    )


def mailgun() -> Side:
    """Return Mailgun, which posts one event at a time with a word that is good once."""
    secret = secrets.token_hex(16)

    def seal(value: object) -> bytes:
        stamp, token = str(int(time.time())), secrets.token_hex(25)
        signature = hmac.new(secret.encode(), f"{stamp}{token}".encode(), hashlib.sha256).hexdigest()
        proof = {"timestamp": stamp, "token": token, "signature": signature}
        return _post("/webhooks/mailgun", msgspec.json.encode({"signature": proof, "event-data": value}))

    return Side(name="mailgun", trust=Trust(secrets=(secret,)), seal=seal, event=_gun)


def sendgrid(batch: int) -> Side:
    """Return SendGrid, which posts arrays and signs them with ECDSA."""
    key = ec.generate_private_key(ec.SECP256R1())
    shown = key.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)

    def seal(value: object) -> bytes:
        body, stamp = msgspec.json.encode(value), str(int(time.time()))
        signature = base64.b64encode(key.sign(stamp.encode() + body, ec.ECDSA(SHA256()))).decode()
        proof = {
            "X-Twilio-Email-Event-Webhook-Timestamp": stamp,
            "X-Twilio-Email-Event-Webhook-Signature": signature,
        }
        return _post("/webhooks/sendgrid", body, proof)

    trust = Trust(secrets=(base64.b64encode(shown).decode(),))
    return Side(name="sendgrid", trust=trust, seal=seal, event=_grain, batch=batch)


def _grid(letter: Letter, time_of: int) -> object:
    """Return a delivery report the first time, then clicks."""
    common = {
        "sender": "news@example.com",
        "recipient": letter.recipient,
        "internetMessageId": f"<{letter.message_id}>",
    }
    identity = f"{letter.key.hex()}-{time_of}"
    if time_of == 0:
        kind = "Microsoft.Communication.EmailDeliveryReportReceived"
        told = {
            "messageId": f"d-{letter.key.hex()}",
            "status": "Delivered",
            "deliveryStatusDetails": {"statusMessage": "250 2.0.0 accepted"},
            "deliveryAttemptTimeStamp": _now().isoformat(),
        }
    else:
        kind = "Microsoft.Communication.EmailEngagementTrackingReportReceived"
        told = {
            "messageId": f"e-{letter.key.hex()}",
            "userActionTimeStamp": _now().isoformat(),
            "engagementType": "click",
            "engagementContext": _LINK,
            "userAgent": AGENTS[0],
        }
    return {
        "id": identity,
        "topic": _GRID_TOPIC,
        "subject": f"sender/news@example.com/message/{letter.key.hex()}",
        "data": common | told,
        "eventType": kind,
        "dataVersion": "1.0",
        "metadataVersion": "1",
        "eventTime": _now().isoformat(),
    }


def _published(letter: Letter, time_of: int) -> object:
    """Return a delivery the first time, then opens."""
    at = _now().strftime("%Y-%m-%dT%H:%M:%S.000Z")
    mail = {
        "timestamp": at,
        "messageId": f"0102019b7c1a2b3c-{letter.key.hex()}-000000",
        "source": "news@example.com",
        "destination": [letter.recipient],
        "headersTruncated": False,
        "headers": [
            {"name": "From", "value": "news@example.com"},
            {"name": "Message-ID", "value": f"<{letter.message_id}>"},
        ],
        "commonHeaders": {"messageId": f"<{letter.message_id}>", "from": ["news@example.com"], "subject": "Spring"},
        "tags": {"ses:configuration-set": ["mail"]},
    }
    if time_of == 0:
        told = {"timestamp": at, "recipients": [letter.recipient], "smtpResponse": "250 2.6.0 Message received"}
        return {"eventType": "Delivery", "mail": mail, "delivery": told}
    seen = {"timestamp": at, "ipAddress": "192.0.2.7", "userAgent": AGENTS[0]}
    return {"eventType": "Open", "mail": mail, "open": seen}


def _gun(letter: Letter, time_of: int) -> object:
    common = {
        "id": f"{letter.key.hex()}-{time_of}",
        "timestamp": time.time(),
        "log-level": "info",
        "recipient": letter.recipient,
        "message": {"headers": {"message-id": letter.message_id}},
    }
    if time_of == 0:
        return common | {"event": "delivered", "delivery-status": {"code": 250, "message": "OK"}}
    seen = {"ip": "192.0.2.1", "client-info": {"user-agent": AGENTS[0], "device-type": "desktop", "bot": ""}}
    return common | {"event": "opened"} | seen


def _grain(letter: Letter, time_of: int) -> object:
    common = {
        "email": letter.recipient,
        "timestamp": int(time.time()),
        "smtp-id": f"<{letter.message_id}>",
        "sg_event_id": f"{letter.key.hex()}-{time_of}",
        "sg_message_id": f"{letter.key.hex()}.recvd-547b64655b-cw6zx-1-6089EA4A-56.0",
    }
    if time_of == 0:
        return common | {"event": "delivered", "response": "250 2.0.0 OK"}
    return common | {"event": "open", "ip": "192.0.2.1", "useragent": AGENTS[0]}


def _post(
    path: str, body: bytes, headers: Mapping[str, str] | None = None, *, content_type: str = "application/json"
) -> bytes:
    given = {"Content-Type": content_type, **(headers or {})}
    return request(path, method="POST", headers=given.items(), body=body)


def _now() -> datetime:
    return datetime.now(UTC)


def _certificate(key: rsa.RSAPrivateKey) -> bytes:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "sns.example.com")])
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(x509.random_serial_number())
    builder = builder.not_valid_before(_now() - timedelta(days=1)).not_valid_after(_now() + timedelta(days=1))
    return builder.sign(key, SHA256()).public_bytes(serialization.Encoding.PEM)
