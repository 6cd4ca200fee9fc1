"""Mailgun's webhooks, in JSON and as forms: every event, who is believed and for how long, and the variables."""

from contextlib import suppress
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from providers.mailgun import OLDEST, PROVIDER, SKEW
from providers.notice import Bounce, Name, Notice, Step, What
from providers.webhook import DeniedError, MalformedError, Proven, Request, Trust
from tests.unit.providers.samples import mailgun as samples
from tests.unit.providers.walk import any_json, read, survives

NOTED = dict(samples.NOTED)
NOW = 1_767_323_100.0
OURS = Name(Step.MESSAGE_ID, samples.MESSAGE_ID)
TOKEN = Name(Step.TOKEN, samples.KEY)
FORM = {"content-type": "application/x-www-form-urlencoded"}
JSON = {"content-type": "application/json"}
SEEN = {"ip": "192.0.2.1", "user_agent": "UA"}


def _failure(bounce: Bounce, code: str, enhanced: str, said: str) -> dict[str, Any]:
    return {"bounce": bounce, "smtp_code": code, "enhanced_code": enhanced, "description": said}


EXPECTED: dict[str, tuple[What, dict[str, Any]]] = {
    "accepted": (What.ACCEPTED, {"names": (OURS, TOKEN, Name(Step.PROVIDER_ID, "BAABAgE-key"))}),
    "rejected": (What.REJECTED, {"description": "Sandbox subdomains are for test purposes only"}),
    "delivered": (What.DELIVERED, {"smtp_code": "250", "enhanced_code": "2.0.0", "description": "OK"}),
    "delivered, no status": (What.DELIVERED, {}),
    "failed for good": (What.BOUNCED, _failure(Bounce.HARD, "550", "5.1.1", "5.1.1 no such user")),
    "failed, full": (What.BOUNCED, _failure(Bounce.SOFT, "552", "5.2.2", "5.2.2 over quota")),
    "failed, policy": (What.BOUNCED, _failure(Bounce.BLOCK, "550", "5.7.1", "5.7.1 sender is listed")),
    "failed, no code": (What.BOUNCED, _failure(Bounce.HARD, "", "", "gone")),
    "failed, blocked": (What.BOUNCED, _failure(Bounce.BLOCK, "550", "5.1.1", "5.1.1 blocked")),
    "failed, too old": (What.BOUNCED, _failure(Bounce.SOFT, "", "", "Too old")),
    "failed, other": (What.BOUNCED, _failure(Bounce.UNKNOWN, "", "", "generic")),
    "failed, bounced before": (
        What.BOUNCED,
        _failure(Bounce.SUPPRESSED, "", "", "Not delivering to previously bounced address"),
    ),
    "failed, unsubscribed before": (
        What.BOUNCED,
        _failure(Bounce.SUPPRESSED, "", "", "Not delivering to unsubscribed address"),
    ),
    "failed, complained before": (
        What.BOUNCED,
        _failure(Bounce.SUPPRESSED, "", "", "Not delivering to a user who marked spam"),
    ),
    "failed, suppressed by word": (What.BOUNCED, _failure(Bounce.SUPPRESSED, "", "", "suppress-complaint")),
    "failed for now": (
        What.DEFERRED,
        {"smtp_code": "421", "enhanced_code": "4.7.0", "description": "4.7.0 try later"},
    ),
    "failed, greylisted": (
        What.DEFERRED,
        {"smtp_code": "451", "enhanced_code": "4.7.1", "description": "4.7.1 greylisted"},
    ),
    "failed, status null": (What.BOUNCED, {"bounce": Bounce.HARD, "description": "bounce"}),
    "opened": (What.OPENED, SEEN),
    "opened by Apple": (What.OPENED, SEEN | {"user_agent": "Mozilla/5.0", "machine": "apple"}),
    "clicked": (What.CLICKED, SEEN | {"url": "https://example.org/page?a=1"}),
    "unsubscribed": (What.UNSUBSCRIBED, SEEN),
    "complained": (What.COMPLAINED, {}),
    "stored": (What.UNKNOWN, {}),
}


def _body(event: dict[str, object], now: float = NOW) -> bytes:
    return msgspec.json.encode(samples.signed(event, now))


def _ask(body: bytes, *secrets: str, headers: dict[str, str] | None = None) -> Proven:
    request = Request(method="POST", headers=JSON if headers is None else headers, query={}, body=body)
    proven = PROVIDER.authenticate(request, Trust(secrets=secrets or (samples.SECRET,)), NOW, {})
    assert isinstance(proven, Proven)
    return proven


@pytest.mark.parametrize("name", NOTED)
def test_each_event_becomes_one_notice(name: str) -> None:
    """All that an event says arrives, in our words; its id counts with its day."""
    event = NOTED[name]
    what, fields = EXPECTED[name]
    common: dict[str, Any] = {
        "dedupe": f"{event['id']}@20455",
        "at_ms": 1_767_323_045_123,
        "recipient": "ann@example.net",
        "names": (OURS, TOKEN),
        "tags": ("t1", "t2"),
        "metadata": samples.VARIABLES,
        "raw": msgspec.json.encode(event),
    }
    expected = Notice(provider="mailgun", what=what, **(common | fields))
    assert read(PROVIDER, _body(event)) == (expected,)


def test_a_retry_that_is_signed_anew_is_the_same_event() -> None:
    """And the same id on another day is another."""
    event = samples.event("opened")
    (one,), (two,) = (read(PROVIDER, _body(event, now)) for now in (NOW, NOW + 600))
    (three,) = read(PROVIDER, _body(event | {"timestamp": 1767323045 + 86_400}))
    assert one == two
    assert one.dedupe != three.dedupe


def test_an_event_without_an_id_is_known_by_its_content() -> None:
    """Copies are one, others are not."""
    event = samples.event("opened", id=None)
    (one,), (two,) = (read(PROVIDER, _body(event, now)) for now in (NOW, NOW + 600))
    (three,) = read(PROVIDER, _body(event | {"recipient": "bob@example.net"}))
    assert one.dedupe == two.dedupe != three.dedupe


@pytest.mark.parametrize(
    ("to", "recipient"),
    [
        ("ann@example.net", "ann@example.net"),
        ('"Doe, Ann" <ann@example.net>', "ann@example.net"),
        ("ann@example.net <ann@example.net>", "ann@example.net"),
        ("ann@example.net, bob@example.net", ""),
        ("undisclosed", ""),
        ("(" * 5000, ""),
        ("", ""),
    ],
)
def test_a_rejected_message_has_the_one_recipient_of_its_headers(to: str, recipient: str) -> None:
    """Of several none is guessed."""
    event = samples.event("rejected", recipient=None, message={"headers": {"to": to}})
    (notice,) = read(PROVIDER, _body(event))
    assert notice.recipient == recipient


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'"x"', b"\xff", b"7", b"{}", b'{"event-data":[]}', b"[" * 5000])
def test_what_holds_no_event_is_malformed(body: bytes) -> None:
    """Another shape is refused as a whole, and proves nothing either."""
    with pytest.raises(MalformedError):
        PROVIDER.parse(Request(method="POST", headers=JSON, query={}, body=body))
    with pytest.raises(DeniedError):
        _ask(body)


@pytest.mark.parametrize("name", NOTED)
def test_a_strange_value_in_any_field_is_survived(name: str) -> None:
    """Invariant: parse returns sane notices or raises MalformedError, and authenticate believes or denies."""
    body = samples.signed(NOTED[name], NOW)
    assert survives(PROVIDER, body) > 0


@given(any_json)
def test_a_strange_signature_is_denied(value: object) -> None:
    """Invariant: only DeniedError leaves authenticate."""
    good = samples.triplet(NOW)
    for block in (value, *(good | {name: value} for name in good)):
        with pytest.raises(DeniedError):
            _ask(msgspec.json.encode({"signature": block, "event-data": {}}))


@given(st.binary(max_size=200) | any_json.map(msgspec.json.encode), st.sampled_from([JSON, FORM, {}]))
def test_any_body_parses_or_is_malformed(body: bytes, headers: dict[str, str]) -> None:
    """Invariant: parse raises nothing else, and authenticate denies."""
    with suppress(MalformedError):
        read(PROVIDER, body, headers)
    with pytest.raises(DeniedError):
        _ask(body, headers=headers)


def test_a_signed_event_is_believed_once_by_any_key() -> None:
    """The token comes back, for the tracker to remember: the signature does not hold the body."""
    body = samples.signed(NOTED["opened"], NOW)
    once = body["signature"]
    assert isinstance(once, dict)
    proven = _ask(msgspec.json.encode(body), "another", samples.SECRET)
    assert proven == Proven(once=once["token"])
    assert proven.once
    assert proven == _ask(msgspec.json.encode(body | {"event-data": {"event": "clicked"}}))
    proof = samples.proof(b"", NOW)
    assert _ask(msgspec.json.encode(body), *proof.trust.secrets, headers=dict(proof.headers)) == proven


def test_a_subaccounts_event_is_believed_by_the_parents_key() -> None:
    """`parent-signature` stands beside the subaccount's own."""
    own = samples.triplet(NOW, "subaccount")
    parent = samples.triplet(NOW, samples.SECRET, own["token"])["signature"]
    body = msgspec.json.encode({"signature": own | {"parent-signature": parent}, "event-data": {"event": "opened"}})
    assert _ask(body) == Proven(once=own["token"])
    with pytest.raises(DeniedError):
        _ask(msgspec.json.encode({"signature": own, "event-data": {"event": "opened"}}))


def test_a_wrong_key_and_changed_words_are_denied() -> None:
    """The timestamp and the token are what is signed."""
    good = samples.triplet(NOW)
    moved = good | {"timestamp": good["timestamp"] + "1", "token": good["token"]}
    for block in (
        samples.triplet(NOW, "another"),
        good | {"token": "x" + good["token"][1:]} if good["token"][0] != "x" else good,
        good | {"timestamp": str(int(NOW) - 1)},
        good | {"signature": good["signature"][:-1]},
        good | {"signature": ""},
        good | {"token": ""},
        moved,
    ):
        with pytest.raises(DeniedError):
            _ask(msgspec.json.encode({"signature": block, "event-data": {}}))


def test_a_digit_that_moves_between_timestamp_and_token_is_denied() -> None:
    """It would make an unused token of a used one under the same signature."""
    good = samples.triplet(NOW, token="7" * 50)
    for cut in (-1, 1):
        words = good["timestamp"] + good["token"]
        at = len(good["timestamp"]) + cut
        block = good | {"timestamp": words[:at], "token": words[at:]}
        with pytest.raises(DeniedError, match="stale"):
            _ask(msgspec.json.encode({"signature": block, "event-data": {}}))


def test_a_retry_of_eight_hours_is_believed_and_an_older_one_is_not() -> None:
    """Nothing that Mailgun still tries is lost, whether it signs anew or not."""
    for now in (NOW - OLDEST, NOW - 8.1 * 3600, NOW + SKEW):
        assert _ask(_body(NOTED["opened"], now)).once
    for now in (NOW - OLDEST - 1, NOW + SKEW + 1):
        with pytest.raises(DeniedError, match="stale"):
            _ask(_body(NOTED["opened"], now))


def test_the_stamp_joins_what_the_mailer_wrote() -> None:
    """One field more, in ASCII; what is no JSON object stays."""
    header = "X-Mailgun-Variables"
    (value,) = PROVIDER.stamp(samples.KEY, {header: '{"name": "\u00fc"}'}).values()
    assert value.isascii()
    assert msgspec.json.decode(value) == {"name": "\u00fc", "outrider": samples.KEY}
    assert PROVIDER.stamp(samples.KEY, {}) == {header: f'{{"outrider": "{samples.KEY}"}}'}
    for written in ("[]", "x", "{", "\udcff", "[" * 5000, '{"a": "\udcff"}', '{"a": 1}, {"b": 2}'):
        assert PROVIDER.stamp(samples.KEY, {header: written}) == {}


def test_what_the_provider_says_of_itself() -> None:
    """The registry and the relay read these."""
    assert PROVIDER.name == "mailgun"
    assert PROVIDER.stamped == ("X-Mailgun-Variables",)
    assert PROVIDER.hosts == ("mailgun.org",)
    assert PROVIDER.keeps_message_id
    assert PROVIDER.reply_id("Great success") is None
    assert not PROVIDER.configured(Trust())
    assert PROVIDER.configured(Trust(secrets=("key",)))
