"""Brevo's events, each in every documented variant, and the header that names the message in them."""

import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from providers.brevo import PROVIDER
from providers.fields import encoded
from providers.notice import Bounce, Name, Notice, Step, What
from providers.webhook import MalformedError
from tests.unit.providers import shared_secret, walk
from tests.unit.providers.samples.brevo import EVENTS, KEY, MESSAGE, event, proof

TOKEN = Name(Step.TOKEN, KEY)
NAMES = (TOKEN, Name(Step.MESSAGE_ID, MESSAGE), Name(Step.REPLY_ID, MESSAGE), Name(Step.PROVIDER_ID, MESSAGE))
AT_MS = 1_767_323_045_678
HEADER = "X-Mailin-custom"
READER = {"user_agent": "Mozilla/5.0 (example)", "ip": "192.0.2.7"}
SAMPLES = dict(EVENTS)


def only(body: object) -> Notice:
    """Return the one notice of a body."""
    (notice,) = walk.read(PROVIDER, msgspec.json.encode(body))
    return notice


@pytest.mark.parametrize(
    ("name", "what", "class_", "other"),
    [
        ("request", What.ACCEPTED, None, {}),
        ("sent", What.SENT, None, {}),
        ("delivered", What.DELIVERED, None, {}),
        ("deferred", What.DEFERRED, None, {"smtp_code": "451", "enhanced_code": "4.7.1"}),
        (
            "deferred, but refused: address",
            What.BOUNCED,
            Bounce.HARD,
            {"smtp_code": "550", "enhanced_code": "5.1.1"},
        ),
        (
            "deferred, but refused: mailbox",
            What.BOUNCED,
            Bounce.HARD,
            {"smtp_code": "550", "enhanced_code": "5.2.1"},
        ),
        ("deferred, but refused: full", What.BOUNCED, Bounce.SOFT, {"smtp_code": "552", "enhanced_code": "5.2.2"}),
        ("deferred, but refused: policy", What.BOUNCED, Bounce.BLOCK, {"smtp_code": "554", "enhanced_code": "5.7.1"}),
        ("deferred, but refused", What.BOUNCED, Bounce.UNKNOWN, {"smtp_code": "550"}),
        ("deferred without a reason", What.DEFERRED, None, {}),
        ("hard_bounce", What.BOUNCED, Bounce.HARD, {"smtp_code": "550", "enhanced_code": "5.1.1"}),
        ("soft_bounce", What.BOUNCED, Bounce.SOFT, {"smtp_code": "452", "enhanced_code": "4.2.2"}),
        ("blocked", What.BOUNCED, Bounce.SUPPRESSED, {}),
        ("blocked by the receiver", What.BOUNCED, Bounce.BLOCK, {"smtp_code": "554", "enhanced_code": "5.7.1"}),
        ("invalid_email", What.BOUNCED, Bounce.HARD, {}),
        ("error", What.FAILED, None, {}),
        ("spam", What.COMPLAINED, None, {}),
        ("complaint", What.COMPLAINED, None, {}),
        ("unsubscribe", What.UNSUBSCRIBED, None, READER),
        ("unsubscribed", What.UNSUBSCRIBED, None, {}),
        ("click", What.CLICKED, None, READER | {"url": "https://example.org/page?a=1"}),
        ("opened", What.OPENED, None, READER),
        ("unique_opened", What.OPENED, None, READER),
        ("proxy_open", What.OPENED, None, READER | {"machine": "proxy_open"}),
        ("unique_proxy_open", What.OPENED, None, READER | {"machine": "unique_proxy_open"}),
        ("list_addition", What.SUBSCRIBED, None, {}),
        ("another event", What.UNKNOWN, None, {"description": "teleported"}),
    ],
)
def test_every_event(name: str, what: What, class_: Bounce | None, other: dict[str, str]) -> None:
    """Each gives its notice, whole; a deferral with a final code is a bounce, and a proxy's open a machine's."""
    body = SAMPLES[name]
    assert isinstance(body, dict)
    seen = only(body)
    expected = Notice(
        provider="brevo",
        what=what,
        dedupe=seen.dedupe,
        at_ms=AT_MS,
        recipient="ann@example.net",
        names=NAMES,
        bounce=class_,
        description=str(body.get("reason", "")),
        tags=("welcome", "first"),
        metadata={"outrider": KEY, "color": "blue", "nr": "7"},
        raw=encoded(body),
    )
    assert msgspec.structs.replace(expected, **other) == seen


def test_a_batch() -> None:
    """Each entry gives a notice, also what is none."""
    seen = walk.read(PROVIDER, msgspec.json.encode(SAMPLES["a batch"]))
    assert [one.what for one in seen] == [What.OPENED, What.DELIVERED, What.UNKNOWN]
    assert len({one.dedupe for one in seen}) == 3
    assert walk.read(PROVIDER, b"[]") == ()


@pytest.mark.parametrize(
    ("name", "named", "metadata"),
    [
        ("the older form of the header", True, {"color": "blue", "outrider": KEY, "at": "12:30"}),
        ("an object for the header", True, {"outrider": KEY}),
        ("a text for the header", False, {HEADER: "no-tracking"}),
    ],
)
def test_every_form_of_the_header(name: str, named: bool, metadata: dict[str, str]) -> None:  # noqa: FBT001 - a column
    """JSON, an object, pairs, and a text of the mailer's own."""
    seen = only(SAMPLES[name])
    assert (TOKEN in seen.names, seen.metadata) == (named, metadata)


def test_both_ways_of_tags() -> None:
    """`tags`; else `tag`, one or the JSON of several."""
    assert only(SAMPLES["one tag"]).tags == ("welcome",)
    assert only(SAMPLES["tags in JSON"]).tags == ("a", "b")
    assert only(event("opened", tags=[], tag="7")).tags == ("7",)


def test_only_the_epoch_is_sure() -> None:
    """`ts_epoch` first; `date` is local time, and never read."""
    assert only(event("opened", ts_epoch=None)).at_ms == 1_767_326_645_000
    assert only(event("opened", ts_epoch=0, ts_event="x", ts=1)).at_ms == 1000
    assert only(event("opened", ts_epoch=None, ts_event=None, ts=None)).at_ms is None


def test_copies_are_one_event_and_others_are_others() -> None:
    """`id` is the webhook's. The first open comes twice, as `opened` and as `unique_opened`, and is one."""
    opened = event("opened")
    assert only(opened).dedupe == only(opened | {"id": 78}).dedupe
    assert only(opened).dedupe == only(event("unique_opened")).dedupe
    others = (
        event("opened", ts_epoch=1767323045679),
        event("opened", email="bob@example.net"),
        event("opened", **{"message-id": "<other@example.com>"}),
        event("proxy_open"),
        event("delivered"),
        event("click", link="https://example.org/a"),
        event("click", link="https://example.org/b"),
    )
    assert len({only(one).dedupe for one in (opened, *others)}) == 8
    # Without an id they are told by all they hold.
    nameless: dict[str, object] = {"message-id": None}
    assert only(event("opened", **nameless)).dedupe != only(event("opened", subject="Other", **nameless)).dedupe


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


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (None, {"outrider": KEY}),
        (" ", {"outrider": KEY}),
        ('{"color": "bl\u00e5"}', {"color": "bl\u00e5", "outrider": KEY}),
        ('{"outrider": "old", "nr": 7}', {"outrider": KEY, "nr": 7}),
    ],
)
def test_stamp_merges_json(before: str | None, after: dict[str, object]) -> None:
    """The mailer's fields stay, in ASCII."""
    stamped = PROVIDER.stamp(KEY, {} if before is None else {HEADER: before})
    assert set(stamped) == {HEADER} == set(PROVIDER.stamped)
    assert stamped[HEADER].isascii()
    assert json.loads(stamped[HEADER]) == after


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("color:blue", f"color:blue|outrider:{KEY}"),
        ("color:blue|at:12:30", f"color:blue|at:12:30|outrider:{KEY}"),
        ("outrider:old|color:blue", f"color:blue|outrider:{KEY}"),
    ],
)
def test_stamp_merges_the_older_form(before: str, after: str) -> None:
    """In the mailer's own form, so that whoever reads it still can."""
    assert PROVIDER.stamp(KEY, {HEADER: before}) == {HEADER: after}
    assert only(event("opened", **{HEADER: after})).names[0] == TOKEN


@pytest.mark.parametrize(
    "before",
    [
        "no-tracking",
        "https://example.org/a:b",
        '["a"]',
        "{",
        "7",
        '{"a":"\udce9"}',
        "color:bl\u00e5",
        "color:\udce9",
        '{"a":' * 5000,
    ],
)
def test_stamp_leaves_what_it_cannot_merge(before: str) -> None:
    """The mailer's value stays."""
    assert PROVIDER.stamp(KEY, {HEADER: before}) == {}


@pytest.mark.parametrize(
    ("reply", "identity"),
    [
        ("250 2.0.0 OK: queued as <1.2.JavaMail@shop.example.com>", "1.2.JavaMail@shop.example.com"),
        (f"250 Message queued as <{MESSAGE}>", MESSAGE),
        ("250 2.0.0 OK: queued as 4ab5", "4ab5"),
        ("250 2.0.0 OK", None),
        ("", None),
    ],
)
def test_reply_id(reply: str, identity: str | None) -> None:
    """What stands in its 250 is what its events are asked for."""
    assert PROVIDER.reply_id(reply) == identity
    if identity is not None:
        assert Name(Step.REPLY_ID, identity) in only(event("opened", **{"message-id": f"<{identity}>"})).names


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
    assert all(value.isascii() for value in PROVIDER.stamp(KEY, {HEADER: before}).values())


@given(st.dictionaries(st.sampled_from(["authorization"]), st.text()), st.text())
def test_only_denied_escapes(headers: dict[str, str], key: str) -> None:
    """Invariant: nothing but a secret opens it, and nothing else than `DeniedError` says so."""
    assert not shared_secret.believed(PROVIDER, headers=headers, key=key)
