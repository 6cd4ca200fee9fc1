"""Resend's events, each in every documented variant, and Svix's signature."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from providers.fields import encoded
from providers.notice import Bounce, Name, Notice, Step, What
from providers.resend import PROVIDER
from providers.webhook import DeniedError, MalformedError, Proven, Request, Trust
from tests.unit.providers import shared_secret, walk
from tests.unit.providers.samples.resend import (
    EMAIL_ID,
    EVENTS,
    KEY,
    LINK,
    MESSAGE,
    SVIX_ID,
    event,
    new_secret,
    proof,
    signature,
)

TOKEN = Name(Step.TOKEN, KEY)
IDS = (Name(Step.REPLY_ID, EMAIL_ID), Name(Step.PROVIDER_ID, EMAIL_ID), Name(Step.PROVIDER_ID, MESSAGE))
NAMES = (TOKEN, Name(Step.MESSAGE_ID, f"{KEY}@example.org"), *IDS)
READER = {"user_agent": "Mozilla/5.0 (example)", "ip": "192.0.2.7"}
HEADERS = {"svix-id": SVIX_ID}
SAMPLES = dict(EVENTS)
NOW = 1_767_323_050.5
BODY = b'{"type":"email.sent"}'


def only(body: object, headers: dict[str, str] | None = None) -> Notice:
    """Return the one notice of a body."""
    (notice,) = walk.read(PROVIDER, msgspec.json.encode(body), HEADERS if headers is None else headers)
    return notice


@pytest.mark.parametrize(
    ("name", "what", "class_", "other"),
    [
        ("sent", What.SENT, None, {}),
        ("scheduled", What.ACCEPTED, None, {}),
        ("delivered", What.DELIVERED, None, {}),
        ("delayed", What.DEFERRED, None, {}),
        (
            "bounced: permanent",
            What.BOUNCED,
            Bounce.HARD,
            {"description": "no", "smtp_code": "550", "enhanced_code": "5.1.1"},
        ),
        ("bounced: transient", What.BOUNCED, Bounce.SOFT, {"description": "no"}),
        ("bounced: undetermined", What.BOUNCED, Bounce.UNKNOWN, {"description": "no"}),
        ("bounced: content", What.BOUNCED, Bounce.BLOCK, {"description": "no"}),
        ("bounced: attachment", What.BOUNCED, Bounce.BLOCK, {"description": "no"}),
        ("bounced: suppressed", What.BOUNCED, Bounce.SUPPRESSED, {"description": "no"}),
        ("bounced: on the account's list", What.BOUNCED, Bounce.SUPPRESSED, {"description": "no"}),
        (
            "bounced: older, suppressed",
            What.BOUNCED,
            Bounce.SUPPRESSED,
            {"description": "Resend has suppressed sending to this address"},
        ),
        ("bounced: no reason", What.BOUNCED, Bounce.UNKNOWN, {}),
        ("suppressed", What.BOUNCED, Bounce.SUPPRESSED, {"description": "on the list"}),
        ("complained", What.COMPLAINED, None, {}),
        ("opened", What.OPENED, None, {}),
        ("opened, told more", What.OPENED, None, READER),
        ("clicked", What.CLICKED, None, READER | {"url": LINK}),
        ("failed", What.FAILED, None, {"description": "reached_daily_quota"}),
        ("another event", What.UNKNOWN, None, {"description": "email.teleported"}),
        ("a name", What.OPENED, None, {}),
    ],
)
def test_every_event(name: str, what: What, class_: Bounce | None, other: dict[str, str]) -> None:
    """Each gives its notice, whole; the outer time is the event's."""
    body = SAMPLES[name]
    expected = Notice(
        provider="resend",
        what=what,
        dedupe=SVIX_ID,
        at_ms=1_767_323_045_678,
        recipient="ann@example.net",
        names=NAMES,
        bounce=class_,
        metadata={"outrider": KEY, "color": "blue"},
        raw=encoded(body),
    )
    assert msgspec.structs.replace(expected, **other) == only(body)


@pytest.mark.parametrize("name", ["several recipients", "copies"])
def test_several_recipients_name_nobody(name: str) -> None:
    """Resend does not tell who it was, and nobody guesses."""
    assert (only(SAMPLES[name]).recipient, only(SAMPLES[name]).names) == ("", NAMES)


def test_every_way_to_name_the_message() -> None:
    """By a tag in either shape, by our header, by the Message-ID among the headers, by Resend's ids."""
    listed = only(SAMPLES["tags in a list"])
    assert (listed.names, listed.metadata) == ((TOKEN, *IDS), {"outrider": KEY})
    assert only(SAMPLES["nothing of ours"]).names == IDS
    header = [{"name": "X-Outrider-Key", "value": f"{KEY}.2"}]
    assert only(event("email.opened", tags=[], headers=header)).names == (Name(Step.TOKEN, f"{KEY}.2"), *IDS)
    upper = only(event("email.opened", tags=[], headers=[], email_id=EMAIL_ID.upper()))
    assert Name(Step.REPLY_ID, EMAIL_ID) in upper.names


def test_what_is_no_message_is_passed_over() -> None:
    """Contacts, domains and mail to us."""
    for name in ("mail to us", "a contact", "a domain"):
        assert walk.read(PROVIDER, msgspec.json.encode(SAMPLES[name]), HEADERS) == ()


def test_copies_are_one_event_and_others_are_others() -> None:
    """Svix's id is the same on every retry; without it the kind, message, time and link make it."""
    opened, none = event("email.opened"), dict[str, str]()
    assert only(opened).dedupe == SVIX_ID
    assert only(opened, none).dedupe == only(opened | {"more": 1}, none).dedupe
    others = (
        event("email.sent"),
        event("email.opened", email_id="other"),
        event("email.opened", to=["bob@example.net"]),
        opened | {"created_at": "2026-01-02T03:04:06Z"},
        event("email.clicked", click={"link": LINK}),
        event("email.clicked", click={"link": "https://example.org/"}),
    )
    assert len({only(one, none).dedupe for one in (opened, *others)}) == 7


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"7", b"null", b'"x"', b"\xff", b"[" * 100_000])
def test_another_shape_is_malformed(body: bytes) -> None:
    """Resend posts one object."""
    with pytest.raises(MalformedError):
        walk.read(PROVIDER, body, HEADERS)


@pytest.mark.parametrize(("name", "body"), EVENTS)
@pytest.mark.parametrize("headers", [HEADERS, {}], ids=["with id", "without"])
def test_a_strange_field_costs_nothing_else(name: str, body: object, headers: dict[str, str]) -> None:
    """Whatever stands in a field, an object is read."""
    assert walk.survives(PROVIDER, body, headers=headers) > 0, name


def verdict(headers: dict[str, str], *secrets: str, body: bytes = BODY, now: float = NOW) -> str:
    """Return what authenticate says to these headers: nothing, or why not."""
    request = Request(method="POST", headers=headers, query={}, body=body)
    try:
        assert PROVIDER.authenticate(request, Trust(secrets=secrets), now, {}) == Proven()
    except DeniedError as denied:
        return str(denied)
    return ""


def signed(secret: str, *, stamp: str = "1767323050", body: bytes = BODY) -> dict[str, str]:
    """Return the headers of a signed request."""
    return {"svix-id": SVIX_ID, "svix-timestamp": stamp, "svix-signature": signature(secret, body, stamp)}


def test_a_good_signature() -> None:
    """Of any of the secrets, among any of the signatures; with and without Svix's prefix and padding."""
    old, new = new_secret(), new_secret()
    headers = signed(old)
    assert verdict(headers, old) == ""
    assert verdict(headers, new, old) == ""
    assert verdict(headers, old.removeprefix("whsec_")) == ""
    assert verdict(headers, "no base64 at all!", old) == ""
    several = f"v1a,AAAA v1,AAAA {signature(new, BODY, '1767323050')} {headers['svix-signature']}"
    assert verdict(headers | {"svix-signature": several}, old) == ""
    shared_secret.proves(PROVIDER, proof(BODY, NOW), BODY, NOW)


def test_a_secret_without_padding() -> None:
    """As some vaults keep them."""
    secret = "whsec_" + "QUJDREVGR0hJSktMTU5PUA=="
    assert verdict(signed(secret), secret.rstrip("=")) == ""


def test_a_wrong_signature() -> None:
    """Another key, another body, id or time, a cut body, another version, none."""
    secret = new_secret()
    headers = signed(secret)
    wrong = "a wrong signature"
    assert verdict(headers, new_secret()) == wrong
    assert verdict(headers) == wrong
    assert verdict(headers, "whsec_", "not base64!") == wrong
    assert verdict(headers, secret, body=BODY[:-1]) == wrong
    assert verdict(headers, secret, body=BODY + b" ") == wrong
    assert verdict(headers | {"svix-id": "msg_other"}, secret) == wrong
    assert verdict(headers | {"svix-timestamp": "1767323051"}, secret) == wrong
    assert verdict(headers | {"svix-signature": headers["svix-signature"].replace("v1,", "v2,")}, secret) == wrong
    assert verdict(headers | {"svix-signature": headers["svix-signature"][:-4]}, secret) == wrong
    assert verdict(headers | {"svix-signature": "v1,\u00e9\udce9"}, secret) == wrong


@pytest.mark.parametrize("name", ["svix-id", "svix-timestamp", "svix-signature"])
def test_a_missing_header(name: str) -> None:
    """All three are needed."""
    secret = new_secret()
    headers = {known: value for known, value in signed(secret).items() if known != name}
    assert verdict(headers, secret) == "no signature"
    assert verdict(headers | {name: ""}, secret) == "no signature"


@pytest.mark.parametrize(
    ("stamp", "good"),
    [
        ("1767323050", True),
        ("1767322751", True),
        ("1767322750", False),
        ("1767323350", True),
        ("1767323351", False),
        ("-1767323050", False),
        ("1767323050.5", False),
        ("1e9", False),
        ("\u0661\u0667", False),
        ("9" * 5000, False),
    ],
)
def test_five_minutes_either_way(stamp: str, good: bool) -> None:  # noqa: FBT001 - a column
    """Neither an old one nor one of the future is believed, however well it is signed."""
    secret = new_secret()
    assert verdict(signed(secret, stamp=stamp), secret) == ("" if good else "a stale timestamp")


@pytest.mark.parametrize(
    ("secrets", "there"),
    [((), False), (("",), False), (("whsec_",), False), (("not base64!",), False), (("x", new_secret()), True)],
)
def test_only_a_key_opens_the_webhook(secrets: tuple[str, ...], there: bool) -> None:  # noqa: FBT001 - a column
    """What is no base64 can prove nothing."""
    assert PROVIDER.configured(Trust(secrets=secrets)) is there


def test_stamp() -> None:
    """Our own header, whatever is there."""
    assert PROVIDER.stamp(KEY, {}) == {"X-Outrider-Key": KEY}
    assert PROVIDER.stamp(KEY, {"X-Outrider-Key": "old"}) == {"X-Outrider-Key": KEY}
    assert PROVIDER.stamped == ("X-Outrider-Key",)


@pytest.mark.parametrize(
    ("reply", "identity"), [(f"250 Ok {EMAIL_ID}", EMAIL_ID), ("250 Ok: queued as abcdef", None), ("", None)]
)
def test_reply_id(reply: str, identity: str | None) -> None:
    """Only a UUID can be an email_id."""
    assert PROVIDER.reply_id(reply) == identity


@given(st.binary() | walk.any_json.map(msgspec.json.encode))
def test_only_malformed_escapes(body: bytes) -> None:
    """Invariant: whatever is posted, parse returns sane notices or raises MalformedError."""
    try:
        walk.read(PROVIDER, body, HEADERS)
    except MalformedError:
        return


@given(
    st.dictionaries(st.sampled_from(["svix-id", "svix-timestamp", "svix-signature"]), st.text()),
    st.lists(st.text()),
    st.binary(),
)
def test_only_denied_escapes(headers: dict[str, str], secrets: list[str], body: bytes) -> None:
    """Invariant: nothing but a signature opens it, and nothing else than `DeniedError` says so."""
    assert verdict(headers, *secrets, body=body) != ""


@given(st.text(), st.text())
def test_only_denied_escapes_in_time(identity: str, given_: str) -> None:
    """Invariant: also with a good time."""
    headers = {"svix-id": identity, "svix-timestamp": "1767323050", "svix-signature": given_}
    assert verdict(headers, new_secret()) != ""
