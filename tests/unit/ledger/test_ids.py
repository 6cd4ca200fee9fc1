"""Ids are pure: equal input, equal id, one spelling."""

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger import ids

KEY = b"identity"


def _key(**changes: object) -> str:
    fields: dict[str, object] = {
        "source": "default",
        "campaign": "65",
        "recipient": "ann@example.net",
        "origin": b"id:one@example.com",
        "generation": 0,
    }
    return ids.message_key(KEY, **(fields | changes))  # type: ignore[arg-type]  # fields by name, checked at run time


def test_the_derivation_never_changes() -> None:
    """Message-IDs of delivered mail hang on this value: a change here is a new version, never an edit."""
    assert _key() == "c5stlwy7vktvw5dtdncnbk4bim"


@pytest.mark.parametrize(
    "change",
    [
        {"source": "other"},
        {"campaign": "66"},
        {"campaign": None},
        {"campaign": ""},
        {"recipient": "bob@example.net"},
        {"origin": b"id:two@example.com"},
        {"generation": 1},
    ],
)
def test_every_field_counts(change: dict[str, object]) -> None:
    """Two different identities never share a key; no campaign is not an empty one."""
    assert _key(**change) != _key()


def test_fields_cannot_run_into_each_other() -> None:
    """Length prefixes keep `ab` + `c` apart from `a` + `bc`."""
    assert _key(source="ab", campaign="c") != _key(source="a", campaign="bc")


def test_recipients_that_normalise_to_one_are_one() -> None:
    """The domain's case does not count, the local part's does."""
    assert _key(recipient="ann@EXAMPLE.net") == _key()
    assert _key(recipient="Ann@example.net") != _key()


@given(st.binary(min_size=16, max_size=16))
def test_a_key_has_one_spelling(raw: bytes) -> None:
    """Text and bytes are each other's, as the library spells base32."""
    text = ids.key_text(raw)
    assert text == base64.b32encode(raw).decode().rstrip("=").lower()
    assert len(text) == ids.KEY_CHARS
    assert ids.key_bytes(text) == raw


@given(st.text(max_size=40))
def test_anything_else_is_no_key(text: str) -> None:
    """Invariant: whatever is given, it is a key that spells back, or a ValueError."""
    try:
        raw = ids.key_bytes(text)
    except ValueError:
        return
    assert ids.key_text(raw) == text


def test_a_key_with_stray_bits_is_refused() -> None:
    """26 characters carry two bits too many: they must be zero."""
    text = ids.key_text(bytes(16))
    with pytest.raises(ValueError, match="one spelling"):
        ids.key_bytes(text[:-1] + "b")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("<a.B@Example.COM>", "a.B@example.com"),
        (" a.B@Example.COM ", "a.B@example.com"),
        ("< a@b >", "a@b"),
        ("0100-abc", "0100-abc"),
    ],
)
def test_message_ids_are_normalised_once(value: str, expected: str) -> None:
    """No brackets, the domain in lower case, the local part exact."""
    assert ids.normalise_message_id(value) == expected


def test_a_person_is_found_under_every_spelling() -> None:
    """The blind index folds case and labels; the message key does not fold the local part."""
    index = ids.recipient_index(KEY, "Ann@bücher.example")
    assert index == ids.recipient_index(KEY, "ann@xn--bcher-kva.EXAMPLE")
    assert index != ids.recipient_index(b"another", "ann@xn--bcher-kva.example")


@given(st.text(max_size=60))
def test_normalising_an_address_never_raises_and_is_stable(address: str) -> None:
    """Invariant: any text goes in, and normalising twice is normalising once."""
    once = ids.normalise_address(address)
    assert ids.normalise_address(once) == once
    ids.canonical_address(address)


def test_aliases_are_scoped() -> None:
    """A short queue id recurs between upstreams; kind and scope keep them apart."""
    assert len({ids.alias_digest(*parts) for parts in [("a", "b", "c"), ("a", "bc", ""), ("ab", "", "c")]}) == 3


def test_an_imported_event_is_the_same_for_ever() -> None:
    """An import may be repeated after years; each detail counts, and none runs into the next."""
    key = ids.MessageKey(_key(origin=ids.ORIGIN_OF_IMPORT))
    told = ids.imported_event(key, "emailoctopus", "opened", "1714521600000", "")
    assert told.hex() == "380632e490c4d7648dd90c2fdd47dc5d"
    assert told != ids.imported_event(key, "emailoctopus", "opened", "171452160000", "0")
    assert told != ids.imported_event(ids.MessageKey(_key()), "emailoctopus", "opened", "1714521600000", "")
