"""Entries of the stream become sightings: what names the message, and when nothing does."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from courier.classify import Reason, Verdict
from courier.sighting import Lookup
from injector.tokens import Purpose
from ledger import ids
from ledger.events import EventType, encode_hit
from providers.notice import Name, Notice, Step, What, encode_notice
from tests.mailings import IDENTITY, KEYRING, NOON_MS, READER, hit

KEY = bytes(range(16))
SPELT = ids.key_text(KEY)


def notice(*names: tuple[Step, str], **fields: object) -> Notice:
    """Return a notice with these names."""
    common = {"provider": "ses", "what": What.DELIVERED, "dedupe": "e-1", "at_ms": NOON_MS}
    return Notice(**(common | fields), names=tuple(Name(step, value) for step, value in names))  # type: ignore[arg-type] # a test's own


def lookups(*names: tuple[Step, str], **fields: object) -> tuple[Lookup, ...]:
    """Return what a notice with these names is looked up by."""
    sighting = READER.read(encode_notice(notice(*names, **fields)))
    assert sighting is not None
    return sighting.names


def digest(kind: str, scope: str, value: str) -> bytes:
    """Return an alias digest."""
    return ids.alias_digest(kind, scope, value)


def test_our_message_id_is_the_key_and_an_alias() -> None:
    """Its left side is the key, with an attempt behind it too; the whole may be a mailer's own that was kept."""
    for spelt in (f"<{SPELT}@Shop.example.com>", f"{SPELT}@shop.example.com"):
        assert lookups((Step.MESSAGE_ID, spelt)) == (
            Lookup(step=Step.MESSAGE_ID, named=KEY, own=True),
            Lookup(step=Step.MESSAGE_ID, named=digest("message-id", "", f"{SPELT}@shop.example.com")),
        )
    again = lookups((Step.MESSAGE_ID, f"{SPELT}.2@shop.example.com"))
    assert again[0] == Lookup(step=Step.MESSAGE_ID, named=KEY, own=True)
    (foreign,) = lookups((Step.MESSAGE_ID, "<News.1@Mailer.Example.COM>"))
    assert foreign.named == digest("message-id", "", "News.1@mailer.example.com")


@pytest.mark.parametrize(
    "spelt",
    [
        f"<{SPELT}@shop.example.com>",
        f"{SPELT}@SHOP.example.com",
        f"%3C{SPELT}%40shop.example.com%3E",
        f" {SPELT}@shop.example.com ",
    ],
)
def test_e3_one_id_in_every_spelling_is_one(spelt: str) -> None:
    """In brackets, bare, as it stood in a URL, with a host in capitals; a local part stays as it is."""
    assert lookups((Step.MESSAGE_ID, spelt)) == lookups((Step.MESSAGE_ID, f"<{SPELT}@shop.example.com>"))
    (kept,) = lookups((Step.MESSAGE_ID, "News%40.1@mailer.example.com"))
    assert kept.named == digest("message-id", "", "News%40.1@mailer.example.com")
    assert lookups((Step.MESSAGE_ID, "news%40.1@mailer.example.com")) != (kept,)


@pytest.mark.parametrize(
    "spelt", [SPELT.upper(), SPELT[:-1], SPELT + "a", SPELT + ".", SPELT + ".x", "", "a" * 26 + "@"]
)
def test_what_is_no_key_is_no_token(spelt: str) -> None:
    """A key has one spelling; only the number of an attempt may stand behind it."""
    assert lookups((Step.TOKEN, spelt)) == ()


def test_the_ladder_is_climbed_in_its_order() -> None:
    """Whatever order the provider's file gives them in."""
    names = [
        (Step.BATCH, "b-1"),
        (Step.PROVIDER_ID, "p-1"),
        (Step.TOKEN, SPELT),
        (Step.REPLY_ID, "r-1"),
        (Step.MESSAGE_ID, "m.1@example.com"),
    ]
    assert lookups(*names) == (
        Lookup(step=Step.MESSAGE_ID, named=digest("message-id", "", "m.1@example.com")),
        Lookup(step=Step.REPLY_ID, named=digest("upstream", "ses", "r-1")),
        Lookup(step=Step.TOKEN, named=KEY, own=True),
        Lookup(step=Step.PROVIDER_ID, named=digest("provider", "ses", "p-1")),
        Lookup(step=Step.BATCH, named=digest("batch", "ses", "b-1")),
    )


def test_a_submission_names_its_messages() -> None:
    """Its key, as our 250 gave it, is a batch's id."""
    batch, learnt = lookups((Step.BATCH, SPELT))
    assert batch == Lookup(step=Step.BATCH, named=KEY)
    assert learnt.named == digest("batch", "ses", SPELT)


def test_the_provider_s_own_ids_are_learnt() -> None:
    """Each message's, and those that stand for a batch; what we or the upstream named it is known already."""
    names = [(step, "x-1") for step in Step]
    sighting = READER.read(encode_notice(notice(*names)))
    assert sighting is not None
    assert sighting.learns == (digest("provider", "ses", "x-1"), digest("batch", "ses", "x-1"))


def test_a_provider_s_click_on_our_link_is_unwrapped() -> None:
    """The destination is the mailer's, the message is the token's, whatever the provider hung on the URL."""
    token = KEYRING.mint(Purpose.CLICK, KEY, 3, "https://shop.example.com/?a=1#b")
    for url in (f"https://t.example.com/track/c/{token}", f"https://t.example.com/x/track/c/{token}?utm_source=p#f"):
        sighting = READER.read(encode_notice(notice(what=What.CLICKED, url=url)))
        assert sighting is not None
        assert (sighting.url, sighting.link) == ("https://shop.example.com/?a=1#b", 3)
        assert sighting.names == (Lookup(step=Step.TOKEN, named=KEY, own=True),)
    forged = f"https://t.example.com/track/c/{token[:-2]}AA"
    sighting = READER.read(encode_notice(notice(what=What.CLICKED, url=forged)))
    assert sighting is not None
    assert (sighting.url, sighting.link, sighting.names) == (forged, None, ())


def test_copies_are_one_and_others_are_others() -> None:
    """The dedupe id is the provider's and its event's."""

    def made(**fields: object) -> bytes:
        sighting = READER.read(encode_notice(notice(**fields)))
        assert sighting is not None
        return sighting.id

    assert made() == made(at_ms=NOON_MS + 1)
    assert len({made(), made(dedupe="e-2"), made(provider="mailgun")}) == 3


def test_only_opens_and_clicks_are_judged() -> None:
    """By the provider's own sign, else by the program, else in doubt for a person."""

    def judged(**fields: object) -> tuple[str, str] | None:
        sighting = READER.read(encode_notice(notice(**fields)))
        assert sighting is not None
        return None if sighting.judgement is None else (sighting.judgement.verdict, sighting.judgement.reason)

    assert judged() is None
    assert judged(what=What.OPENED, machine="proxy_open", user_agent="Mozilla/5.0 (X11)") == (
        Verdict.MACHINE,
        Reason.PROVIDER_SAYS,
    )
    assert judged(what=What.OPENED) == (Verdict.PROBABLE, Reason.PROVIDER_SILENT)
    assert judged(what=What.CLICKED, user_agent="curl/8") == (Verdict.MACHINE, Reason.PROGRAM)
    assert judged(what=What.CLICKED, user_agent="Mozilla/5.0 (X11; Linux)") == (Verdict.PERSON, Reason.BROWSER)


def test_of_a_visitor_only_the_network_is_kept() -> None:
    """An address is truncated, and text that does not print is left out."""
    sighting = READER.read(encode_notice(notice(what=What.OPENED, ip="192.0.2.77", user_agent="A\x00B\u202eC")))
    assert sighting is not None
    assert (sighting.network, sighting.user_agent) == ("192.0.2.0/24", "ABC")


def test_a_recipient_is_an_index() -> None:
    """Whatever letters the provider spells the address in."""
    sighting = READER.read(encode_notice(notice(recipient="Ann@EXAMPLE.net")))
    assert sighting is not None
    assert sighting.recipient == ids.recipient_index(IDENTITY, "ann@example.net")


def test_every_word_of_a_provider_is_one_of_ours() -> None:
    """A new word without an event type would stop everything."""
    assert {EventType(what) for what in What} <= set(EventType)


@pytest.mark.parametrize(
    "fields", [{"at_ms": None}, {"at_ms": -1}, {"at_ms": 10**18}, {"provider": ""}, {"dedupe": ""}]
)
def test_what_cannot_be_dated_or_told_apart_is_nothing(fields: dict[str, object]) -> None:
    """It is parked as it came."""
    assert READER.read(encode_notice(notice(**fields))) is None


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(raw: bytes) -> None:
    """Nothing raises, and what was a hit stays one."""
    READER.read(raw)
    one = hit(KEY)
    sighting = READER.read(encode_hit(one))
    assert sighting is not None
    assert sighting.notice is None
    assert sighting.names == (Lookup(step=Step.TOKEN, named=KEY, own=True),)
