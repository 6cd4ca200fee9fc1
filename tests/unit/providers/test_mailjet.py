"""Mailjet's events, each in every documented variant, and the headers that name the message in them."""

import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from providers.fields import encoded
from providers.mailjet import PROVIDER
from providers.notice import Bounce, Name, Notice, Step, What
from providers.webhook import MalformedError
from tests.unit.providers import shared_secret, walk
from tests.unit.providers.samples.mailjet import EVENTS, GUID, KEY, MESSAGE, event, proof

TOKEN = Name(Step.TOKEN, KEY)
NAMES = (TOKEN, Name(Step.REPLY_ID, GUID), Name(Step.PROVIDER_ID, GUID), Name(Step.PROVIDER_ID, str(MESSAGE)))
READER = {"user_agent": "Mozilla/5.0 (example)", "ip": "192.0.2.7"}
ID, PAYLOAD = "X-MJ-CustomID", "X-MJ-EventPayload"
SAMPLES = dict(EVENTS)


def only(body: object) -> Notice:
    """Return the one notice of a body."""
    (notice,) = walk.read(PROVIDER, msgspec.json.encode(body))
    return notice


@pytest.mark.parametrize(
    ("name", "what", "class_", "other"),
    [
        (
            "sent",
            What.DELIVERED,
            None,
            {
                "description": "sent (250 2.0.0 OK 1767323045 fa5si855896wjc.199)",
                "smtp_code": "250",
                "enhanced_code": "2.0.0",
            },
        ),
        ("open", What.OPENED, None, READER),
        ("click", What.CLICKED, None, READER | {"url": "https://example.org/page?a=1"}),
        ("spam", What.COMPLAINED, None, {"description": "JMRPP"}),
        ("unsub", What.UNSUBSCRIBED, None, READER),
        (
            "bounce: user unknown",
            What.BOUNCED,
            Bounce.HARD,
            {"description": "user unknown: 550 5.1.1 no user", "smtp_code": "550", "enhanced_code": "5.1.1"},
        ),
        ("bounce: not hard", What.BOUNCED, Bounce.SOFT, {"description": "mailbox inactive"}),
        ("bounce: quota exceeded", What.BOUNCED, Bounce.SOFT, {"description": "quota exceeded"}),
        ("bounce: no flag", What.BOUNCED, Bounce.HARD, {"description": "invalid domain"}),
        ("bounce: no reason", What.BOUNCED, Bounce.UNKNOWN, {}),
        ("bounce: greylisted", What.DEFERRED, None, {"description": "greylisted"}),
        ("bounce: greylisted for good", What.BOUNCED, Bounce.HARD, {"description": "greylisted"}),
        ("bounce: content blocked", What.BOUNCED, Bounce.BLOCK, {"description": "content blocked"}),
        ("bounce: blacklisted", What.BOUNCED, Bounce.SUPPRESSED, {"description": "blacklisted"}),
        ("blocked: user unknown", What.BOUNCED, Bounce.SUPPRESSED, {"description": "user unknown"}),
        ("blocked: preblocked", What.BOUNCED, Bounce.SUPPRESSED, {"description": "preblocked"}),
        ("blocked: sender blocked", What.REJECTED, Bounce.BLOCK, {"description": "sender blocked"}),
        ("blocked: typofix", What.REJECTED, Bounce.HARD, {"description": "typofix"}),
        ("blocked: duplicate", What.REJECTED, None, {"description": "duplicate in campaign"}),
        ("blocked: template", What.FAILED, None, {"description": "error in template language"}),
        ("blocked: no reason", What.REJECTED, None, {}),
        ("another event", What.UNKNOWN, None, {}),
    ],
)
def test_every_event(name: str, what: What, class_: Bounce | None, other: dict[str, str]) -> None:
    """Each gives its notice, whole: hard is what Mailjet calls so, and its memory is a list."""
    body = SAMPLES[name]
    seen = only(body)
    expected = Notice(
        provider="mailjet",
        what=what,
        dedupe=seen.dedupe,
        at_ms=1_767_323_045_000,
        recipient="ann@example.net",
        names=NAMES,
        bounce=class_,
        tags=("spring",),
        metadata={"color": "blue", "CustomID": KEY},
        raw=encoded(body[0] if isinstance(body, list) else body),
    )
    assert msgspec.structs.replace(expected, **other) == seen


def test_a_group() -> None:
    """Each entry gives a notice, also what is none; an event alone is the same as in a group."""
    seen = walk.read(PROVIDER, msgspec.json.encode(SAMPLES["grouped"]))
    assert [one.what for one in seen] == [What.OPENED, What.CLICKED, What.UNKNOWN, What.OPENED]
    assert len({one.dedupe for one in seen}) == 4
    assert only([event("open")]) == only(event("open"))
    assert walk.read(PROVIDER, b"[]") == ()


def test_the_key_in_the_payload_and_other_custom_ids() -> None:
    """A mailer's own id is no token; a payload that is a text stays one."""
    seen = only(SAMPLES["key in the payload"])
    assert seen.names == NAMES
    assert seen.metadata == {"outrider": KEY, "nr": "7", "CustomID": "order 7"}
    seen = only(SAMPLES["a text for a payload"])
    assert seen.names == NAMES[1:]
    assert seen.metadata == {"Payload": "anything"}


def test_numbers_are_exact() -> None:
    """A number beyond 2^53 keeps its digits; 0 and a float are no ids; the text stands before the number."""
    assert Name(Step.PROVIDER_ID, "1152921500000000001") in only(event("open")).names
    assert only(SAMPLES["a trial"]).names == ()
    assert only(event("open", MessageID=1.1529215e18)).names == NAMES[:3]
    assert only(SAMPLES["a number that lost its end"]).names[-1] == Name(Step.PROVIDER_ID, "18859015918863553")


def test_copies_are_one_event_and_others_are_others() -> None:
    """The event, message, recipient, time and link make it."""
    opened = event("open")
    assert only(opened).dedupe == only(opened | {"geo": "XX"}).dedupe
    others = (
        event("open", time=1767323046),
        event("open", email="bob@example.net"),
        event("open", MessageID=MESSAGE + 1),
        event("unsub"),
        event("click", url="https://example.org/a"),
        event("click", url="https://example.org/b"),
    )
    assert len({only(one).dedupe for one in (opened, *others)}) == 7
    assert only(event("open", time=None)).dedupe != only(event("open", time=None, ip="192.0.2.8")).dedupe


@pytest.mark.parametrize("body", [b"", b"{", b"7", b"null", b'"x"', b"\xff", b"[" * 100_000])
def test_another_shape_is_malformed(body: bytes) -> None:
    """An event or a list of them."""
    with pytest.raises(MalformedError):
        walk.read(PROVIDER, body)


@pytest.mark.parametrize(("name", "body"), EVENTS)
def test_a_strange_field_costs_nothing_else(name: str, body: object) -> None:
    """Whatever stands in a field, an object is read."""
    assert walk.survives(PROVIDER, body) > 0, name


def test_secrets() -> None:
    """Each of several opens it, in the address, as password and as token."""
    shared_secret.holds(PROVIDER)
    shared_secret.proves(PROVIDER, proof(b"{}", 1.0), b"{}", 1.0)


def test_stamp_takes_the_custom_id_if_it_is_free() -> None:
    """The payload is left alone then."""
    assert PROVIDER.stamp(KEY, {}) == {ID: KEY}
    assert PROVIDER.stamp(KEY, {ID: " ", PAYLOAD: "anything"}) == {ID: KEY}
    assert PROVIDER.stamped == (ID, PAYLOAD)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (None, {"outrider": KEY}),
        ('{"color": "bl\u00e5"}', {"color": "bl\u00e5", "outrider": KEY}),
        ('{"outrider": "old", "nr": 7}', {"outrider": KEY, "nr": 7}),
    ],
)
def test_stamp_joins_the_payload(before: str | None, after: dict[str, object]) -> None:
    """The mailer's custom id stays, and the payload's fields too, in ASCII."""
    present = {ID: "order 7"} | ({} if before is None else {PAYLOAD: before})
    stamped = PROVIDER.stamp(KEY, present)
    assert set(stamped) == {PAYLOAD}
    assert stamped[PAYLOAD].isascii()
    assert json.loads(stamped[PAYLOAD]) == after


@pytest.mark.parametrize("before", ["anything", '["a"]', "{", "7", '{"a":"\udce9"}', '{"a":' * 5000])
def test_stamp_leaves_what_it_cannot_merge(before: str) -> None:
    """The mailer's values stay."""
    assert PROVIDER.stamp(KEY, {ID: "order 7", PAYLOAD: before}) == {}


@pytest.mark.parametrize(
    ("reply", "identity"),
    [(f"250 OK queued as {GUID}", GUID), ("250 OK", None), ("", None)],
)
def test_reply_id(reply: str, identity: str | None) -> None:
    """Its 250 holds the Message_GUID."""
    assert PROVIDER.reply_id(reply) == identity


@given(st.binary() | walk.any_json.map(msgspec.json.encode))
def test_only_malformed_escapes(body: bytes) -> None:
    """Invariant: whatever is posted, parse returns sane notices or raises MalformedError."""
    try:
        walk.read(PROVIDER, body)
    except MalformedError:
        return


@given(st.text() | walk.any_json.map(lambda value: msgspec.json.encode(value).decode()))
def test_stamp_never_raises(before: str) -> None:
    """Invariant: whatever the mailer wrote, the result is ASCII, or there is none."""
    assert all(value.isascii() for value in PROVIDER.stamp(KEY, {ID: "x", PAYLOAD: before}).values())


@given(st.dictionaries(st.sampled_from(["authorization"]), st.text()), st.text())
def test_only_denied_escapes(headers: dict[str, str], key: str) -> None:
    """Invariant: nothing but a secret opens it, and nothing else than `DeniedError` says so."""
    assert not shared_secret.believed(PROVIDER, headers=headers, key=key)
