"""The signature is that of the Standard Webhooks specification, and the same events make the same request."""

import base64
import json
import re
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest

from courier import listmonk
from courier.sinks import Telling
from courier.standard_webhook import body_of, compose, key_of, signed
from ledger.ids import MessageKey
from ledger.sinks import Waiting
from tests.receiver import OLD_SECRET, SECRET, verify

NOW = 1_790_000_000.9
AT = datetime(2026, 3, 1, 12, tzinfo=UTC)

#: The example that the specification's libraries are tested with.
VECTOR = (
    "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
    {
        "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
        "webhook-timestamp": "1614265330",
        "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
    },
    b'{"test": 2432232314}',
)

EVENT = Waiting(
    id=7,
    tried=False,
    kind="hard",
    event=bytes(range(16)),
    type="bounced",
    teller="azure",
    occurred_at=AT,
    recorded_at=AT,
    url=None,
    machine=False,
    reason=None,
    bounce="hard",
    smtp_code="550",
    enhanced_code="5.1.1",
    description="no such user",
    key=MessageKey("a" * 26),
    message_id="aaa@example.com",
    source="shop",
    campaign_id="1f3cbf60-30a5-4b53-9c8f-4c4e9b6a1b2c",
    recipient="ann@example.net",
    subscriber=bytes(range(16)),
)


def test_the_tests_own_verifier_takes_the_published_example() -> None:
    """What verifies us below is not our own code, and no more lenient than the specification."""
    secret, headers, body = VECTOR
    assert verify(secret, headers, body, 1_614_265_330)
    assert not verify(secret, headers, body + b" ", 1_614_265_330)
    assert not verify(secret, headers, body, 1_614_265_330 + 301)
    assert key_of(secret) == base64.b64decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")


def test_each_key_signs() -> None:
    """While one is exchanged, a receiver may know either."""
    body = body_of([Telling(id=1, content=b'{"id":"1"}', at=AT)])
    headers = signed(body, [key_of(SECRET), key_of(OLD_SECRET)], NOW)
    assert verify(SECRET, headers, body, NOW)
    assert verify(OLD_SECRET, headers, body, NOW)
    assert not verify("whsec_" + base64.b64encode(b"x" * 32).decode(), headers, body, NOW)
    assert not verify(SECRET, headers, body.replace(b"1", b"2"), NOW)


def test_the_same_events_make_the_same_request_whenever_it_is_sent() -> None:
    """Its id is of what it holds: another event less, and it is another request."""
    one, two = Telling(id=1, content=b'{"id":"1"}', at=AT), Telling(id=2, content=b'{"id":"2"}', at=AT)
    first, later = (signed(body_of([one, two]), [key_of(SECRET)], now) for now in (NOW, NOW + 3600))
    assert first["webhook-id"] == later["webhook-id"]
    assert first["webhook-timestamp"] != later["webhook-timestamp"]
    assert signed(body_of([two]), [key_of(SECRET)], NOW)["webhook-id"] != first["webhook-id"]


def test_an_event_has_the_fields_that_are_documented() -> None:
    """docs/sinks.md names each of them."""
    told = json.loads(body_of([Telling(id=7, content=compose(EVENT), at=AT)]))
    assert (told["type"], told["timestamp"]) == ("outrider.events", "2026-03-01T12:00:00Z")
    (event,) = told["data"]["events"]
    assert event == {
        "id": bytes(range(16)).hex(),
        "type": "bounced",
        "source": "azure",
        "occurred_at": "2026-03-01T12:00:00Z",
        "recorded_at": "2026-03-01T12:00:00Z",
        "campaign_id": "1f3cbf60-30a5-4b53-9c8f-4c4e9b6a1b2c",
        "submitted_by": "shop",
        "message_id": "aaa@example.com",
        "key": "a" * 26,
        "recipient": "ann@example.net",
        "url": None,
        "machine": False,
        "reason": None,
        "bounce": "hard",
        "smtp_code": "550",
        "enhanced_code": "5.1.1",
        "description": "no such user",
    }


def test_the_page_verifies_as_it_says_and_names_every_field() -> None:
    """Its program is run here."""
    page = (Path(__file__).resolve().parents[3] / "docs" / "sinks.md").read_text(encoding="utf-8")
    (program,) = re.findall(r"^```python\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    named: dict[str, Any] = {}
    exec(program, named)  # noqa: S102 - our own page's
    body = body_of([Telling(id=7, content=compose(EVENT), at=AT)])
    headers = signed(body, [key_of(SECRET), key_of(OLD_SECRET)], time.time())
    assert named["verify"](OLD_SECRET, headers, body)
    assert not named["verify"](OLD_SECRET, headers, body + b" ")
    assert not named["verify"](SECRET, signed(body, [key_of(SECRET)], NOW), body)
    (example,) = re.findall(r"^\{\"type\".*?^  .*?\}\]\}\}$", page, re.MULTILINE | re.DOTALL)
    (event,) = json.loads(example)["data"]["events"]
    assert set(event) == set(json.loads(compose(EVENT)))
    assert [name for name in event if f"`{name}`" not in page] == []


def test_listmonk_is_told_in_its_own_words_and_without_an_address() -> None:
    """The subscriber's UUID says who it is."""
    told = json.loads(listmonk.compose(msgspec.structs.replace(EVENT, description="<Ann@example.net>: no such user")))
    assert told == {
        "subscriber_uuid": "00010203-0405-0607-0809-0a0b0c0d0e0f",
        "campaign_uuid": "1f3cbf60-30a5-4b53-9c8f-4c4e9b6a1b2c",
        "source": "outrider/azure",
        "type": "hard",
        "meta": {
            "message_id": "aaa@example.com",
            "code": "550",
            "enhanced_code": "5.1.1",
            "description": "<<address>>: no such user",
        },
        "created_at": "2026-03-01T12:00:00Z",
    }


@pytest.mark.parametrize("secret", ["", "whsec_", "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "whsec_ä", "whsec_" + "A" * 100])
def test_a_key_that_is_none_is_refused(secret: str) -> None:
    """With what is expected, and without the key."""
    with pytest.raises(ValueError, match=r"\Aexpected whsec_ and base64 of 24 to 64 octets\Z"):
        key_of(secret)
