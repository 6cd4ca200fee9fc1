"""SparkPost's events, each in every documented variant, and the header that names the message in them."""

import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from providers.fields import encoded
from providers.notice import Bounce, Name, Notice, Step, What
from providers.sparkpost import PROVIDER
from providers.webhook import MalformedError
from tests.unit.providers import shared_secret, walk
from tests.unit.providers.samples.sparkpost import EVENTS, KEY, SUPPRESSED, event, proof, track

TOKEN = Name(Step.TOKEN, KEY)
NAMES = (TOKEN, Name(Step.PROVIDER_ID, "000443ee14578172be22"), Name(Step.BATCH, "65832150921904138"))
READER = {"user_agent": "Mozilla/5.0 (example)", "ip": "192.0.2.7"}
CLICK = READER | {"url": "https://example.org/page?a=1"}
REFUSED = {"description": "550 5.1.1 unknown", "smtp_code": "550", "enhanced_code": "5.1.1"}
LISTED = {"description": SUPPRESSED, "smtp_code": "554", "enhanced_code": "5.7.1"}
HEADER = "X-MSYS-API"
SAMPLES = dict(EVENTS)


def read(body: object) -> tuple[Notice, ...]:
    """Return the notices of a body."""
    return walk.read(PROVIDER, msgspec.json.encode(body))


def only(body: object) -> Notice:
    """Return the one notice of a body."""
    (notice,) = read(body)
    return notice


def check(name: str, what: What, class_: Bounce | None, other: dict[str, str]) -> None:
    """Assert that a sample gives its notice, whole."""
    body = SAMPLES[name]
    assert isinstance(body, list)
    seen = only(body)
    expected = Notice(
        provider="sparkpost",
        what=what,
        dedupe=seen.dedupe,
        at_ms=1_767_323_045_000,
        recipient="Ann@example.net",
        names=NAMES,
        bounce=class_,
        tags=("spring", "welcome"),
        metadata={"outrider": KEY, "color": "blue"},
        raw=encoded(next(iter(body[0]["msys"].values()))),
    )
    assert msgspec.structs.replace(expected, **other) == seen


@pytest.mark.parametrize(
    ("number", "what", "class_"),
    [
        (1, What.BOUNCED, Bounce.UNKNOWN),
        (10, What.BOUNCED, Bounce.HARD),
        (20, What.BOUNCED, Bounce.SOFT),
        (21, What.BOUNCED, Bounce.SOFT),
        (22, What.BOUNCED, Bounce.SOFT),
        (23, What.BOUNCED, Bounce.SOFT),
        (24, What.BOUNCED, Bounce.SOFT),
        (25, What.BOUNCED, Bounce.BLOCK),
        (30, What.BOUNCED, Bounce.HARD),
        (40, What.BOUNCED, Bounce.SOFT),
        (50, What.BOUNCED, Bounce.BLOCK),
        (51, What.BOUNCED, Bounce.BLOCK),
        (52, What.BOUNCED, Bounce.BLOCK),
        (53, What.BOUNCED, Bounce.BLOCK),
        (54, What.BOUNCED, Bounce.BLOCK),
        (60, What.UNKNOWN, None),
        (70, What.BOUNCED, Bounce.SOFT),
        (80, What.SUBSCRIBED, None),
        (90, What.UNSUBSCRIBED, None),
        (100, What.UNKNOWN, None),
    ],
)
def test_every_class_of_a_bounce(number: int, what: What, class_: Bounce | None) -> None:
    """An answering machine is nothing, and a request is no bounce."""
    check(f"bounce {number}", what, class_, REFUSED | ({"ip": "192.0.2.7"} if number == 90 else {}))


@pytest.mark.parametrize(
    ("name", "what", "class_", "other"),
    [
        ("injection", What.ACCEPTED, None, {}),
        ("delivery", What.DELIVERED, None, {}),
        (
            "delay",
            What.DEFERRED,
            None,
            {"description": "451 4.7.1 later", "smtp_code": "451", "enhanced_code": "4.7.1"},
        ),
        ("bounce of a new class", What.BOUNCED, Bounce.UNKNOWN, REFUSED),
        ("bounce without a class", What.BOUNCED, Bounce.UNKNOWN, {}),
        ("bounce of a suppressed address", What.BOUNCED, Bounce.SUPPRESSED, LISTED),
        ("out_of_band", What.BOUNCED, Bounce.HARD, REFUSED),
        (
            "policy_rejection",
            What.REJECTED,
            Bounce.BLOCK,
            {"description": "550 5.7.1 refused", "smtp_code": "550", "enhanced_code": "5.7.1"},
        ),
        ("policy_rejection of a suppressed address", What.BOUNCED, Bounce.SUPPRESSED, LISTED),
        ("policy_rejection without a class", What.REJECTED, None, {}),
        ("spam_complaint", What.COMPLAINED, None, {"description": "abuse"}),
        ("open", What.OPENED, None, READER),
        ("open, prefetched", What.OPENED, None, READER | {"machine": "is_prefetched"}),
        ("initial_open", What.OPENED, None, READER),
        ("amp_open", What.OPENED, None, READER),
        ("amp_initial_open", What.OPENED, None, READER),
        ("click", What.CLICKED, None, CLICK),
        ("amp_click", What.CLICKED, None, CLICK),
        ("list_unsubscribe", What.UNSUBSCRIBED, None, {"ip": "192.0.2.7"}),
        ("link_unsubscribe", What.UNSUBSCRIBED, None, CLICK),
        ("generation_failure", What.FAILED, None, {"description": "no field", "smtp_code": "550"}),
        ("generation_rejection", What.REJECTED, None, {"description": "no such domain"}),
        ("another event", What.UNKNOWN, None, {"description": "teleported"}),
    ],
)
def test_every_event(name: str, what: What, class_: Bounce | None, other: dict[str, str]) -> None:
    """A reader's address is kept, and the receiving server's is not; a prefetch is a machine's, a proxy is not."""
    check(name, what, class_, other)


def test_a_batch() -> None:
    """Each entry gives a notice, also what is none; the empty one of a trial and mail to us give nothing."""
    seen = read(SAMPLES["a batch"])
    assert [one.what for one in seen] == [What.DELIVERED, What.OPENED, What.UNKNOWN, What.UNKNOWN]
    assert len({one.dedupe for one in seen}) == 4
    assert only(SAMPLES["a class that is no event"]).what is What.UNKNOWN
    nothing = ("a trial", "a trial, alone", "mail to us")
    assert [read(SAMPLES[name]) for name in nothing] == [(), (), ()]


def test_without_metadata_the_ids_name_it() -> None:
    """Track events drop metadata that is too long."""
    assert only(SAMPLES["the metadata cut off"]).names == NAMES[1:]


def test_copies_are_one_event_and_others_are_others() -> None:
    """The event_id makes it, or what stands in its place; the pixel at the top counts once for a message."""
    assert only(event("delivery")).dedupe == "92356927693813856"
    bare = event("delivery", event_id=None)
    assert only(bare).dedupe == only(event("delivery", event_id=None, subject="again")).dedupe
    assert only(bare).dedupe != only(event("delivery", event_id=None, timestamp="1767323046")).dedupe
    top = only(track("initial_open", event_id="1", timestamp="1767323045"))
    again = only(track("initial_open", event_id="2", timestamp="1767323999"))
    machine = only(track("initial_open", event_id="3", user_agent_parsed={"is_prefetched": True}))
    other = only(track("initial_open", event_id="1", message_id="other"))
    assert top.dedupe == again.dedupe
    assert len({top.dedupe, machine.dedupe, other.dedupe, only(track("open")).dedupe}) == 4
    assert only(track("initial_open", message_id=None)).dedupe == "92356927693813856"


@pytest.mark.parametrize("body", [b"", b"{", b"7", b"null", b'"x"', b"\xff", b"[" * 100_000])
def test_another_shape_is_malformed(body: bytes) -> None:
    """A list of events."""
    with pytest.raises(MalformedError):
        walk.read(PROVIDER, body)


@pytest.mark.parametrize(("name", "body"), EVENTS)
def test_a_strange_field_costs_nothing_else(name: str, body: object) -> None:
    """Whatever stands in a field, a list is read."""
    assert walk.survives(PROVIDER, body) > 0, name


def test_secrets() -> None:
    """Each of several opens it, in the address, as password and as token."""
    shared_secret.holds(PROVIDER)
    shared_secret.proves(PROVIDER, proof(b"[]", 1.0), b"[]", 1.0)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (None, {"metadata": {"outrider": KEY}}),
        (" ", {"metadata": {"outrider": KEY}}),
        (
            '{"campaign_id":"spr\u00efng","options":{"open_tracking":true},"metadata":{"color":"bl\u00e5"}}',
            {
                "campaign_id": "spr\u00efng",
                "options": {"open_tracking": True},
                "metadata": {"outrider": KEY, "color": "bl\u00e5"},
            },
        ),
        ('{"metadata":null}', {"metadata": {"outrider": KEY}}),
        ('{"metadata":{"color":1,"outrider":"old"}}', {"metadata": {"outrider": KEY, "color": 1}}),
    ],
)
def test_stamp_merges(before: str | None, after: dict[str, object]) -> None:
    """The mailer's campaign, options and metadata stay, in ASCII; ours is the first of the metadata."""
    stamped = PROVIDER.stamp(KEY, {} if before is None else {HEADER: before})
    assert set(stamped) == {HEADER} == set(PROVIDER.stamped)
    assert stamped[HEADER].isascii()
    assert json.loads(stamped[HEADER]) == after
    assert next(iter(json.loads(stamped[HEADER])["metadata"])) == "outrider"


@pytest.mark.parametrize(
    "before", ["anything", '["a"]', "{", "7", '{"metadata":"x"}', '{"metadata":[]}', '{"a":"\udce9"}', '{"a":' * 5000]
)
def test_stamp_leaves_what_it_cannot_merge(before: str) -> None:
    """The mailer's value stays, and SparkPost says what is wrong with it."""
    assert PROVIDER.stamp(KEY, {HEADER: before}) == {}


def test_reply_id() -> None:
    """No event repeats what stands in its 250."""
    reply_id = PROVIDER.reply_id
    assert [reply_id(text) for text in ("250 2.0.0 OK 9E/FA-12345-ABC", "250 2.0.0 Ok: queued as abcd", "")] == [
        None
    ] * 3


@given(st.binary() | walk.any_json.map(msgspec.json.encode))
def test_only_malformed_escapes(body: bytes) -> None:
    """Invariant: whatever is posted, parse returns sane notices or raises MalformedError."""
    try:
        walk.read(PROVIDER, body)
    except MalformedError:
        return


@given(st.dictionaries(st.sampled_from(["track_event", "message_event", "x"]), walk.any_json))
def test_only_malformed_escapes_within_a_batch(classes: dict[str, object]) -> None:
    """Invariant: whatever a class holds, the batch is read."""
    assert len(read([{"msys": classes}])) == len(classes)


@given(st.text() | walk.any_json.map(lambda value: msgspec.json.encode(value).decode()))
def test_stamp_never_raises(before: str) -> None:
    """Invariant: whatever the mailer wrote, the result is ASCII, or there is none."""
    assert all(value.isascii() for value in PROVIDER.stamp(KEY, {HEADER: before}).values())


@given(st.dictionaries(st.sampled_from(["authorization"]), st.text()), st.text())
def test_only_denied_escapes(headers: dict[str, str], key: str) -> None:
    """Invariant: nothing but a secret opens it, and nothing else than `DeniedError` says so."""
    assert not shared_secret.believed(PROVIDER, headers=headers, key=key)
