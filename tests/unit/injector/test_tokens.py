"""Tokens: encrypted, signed, one spelling, one purpose each; numbers in names are rows of the hostile-input table."""

import base64
import hashlib
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st
from itsdangerous import Signer

from injector.tokens import MAX_TOKEN_CHARS, Claim, Keyring, Purpose, Token, TokenError, _Key

OLD = b"an old secret of thirty-two byte"
NEW = b"the new secret of thirty-two byt"
KEY = bytes(range(16))
URL = "https://www.example.com/a%20b?x=1&y=|#f"
RING = Keyring([NEW])
CLICK = RING.mint(Purpose.CLICK, KEY, 3, URL)
ALPHABET = string.ascii_letters + string.digits + "-_"


def refused(token: str, purpose: Purpose = Purpose.CLICK, ring: Keyring = RING) -> bool:
    """Whether *token* is refused, and with no other error than the one that callers know."""
    try:
        ring.verify(purpose, token)
    except TokenError:
        return True
    return False


class TestRoundTrip:
    """What was minted is claimed."""

    def test_row_01_a_token_says_what_was_minted(self) -> None:
        assert RING.verify(Purpose.CLICK, CLICK) == Claim(key=KEY, link=3, url=URL)

    def test_a_token_of_the_first_release_verifies_for_ever(self) -> None:
        """A change that breaks this breaks every link that was ever sent: add a version, never edit one."""
        sent = (
            "y5UnNq8ADJOXkkImswVzhXWjKxldM8x-lUqoZq49Sb7vDy-wNFIGXoK7Rvnuur6DErOzekO"
            "V4lX21JUlLxuF6zQnKZu0D7uAQg.ptFIoHPrlMq3igzGoqgjP6AriP7iEvYoXp-M8wLC0No"
        )
        assert RING.verify(Purpose.CLICK, sent) == Claim(key=KEY, link=3, url=URL)

    @pytest.mark.parametrize("purpose", list(Purpose))
    def test_row_01_a_token_without_link_and_url(self, purpose: Purpose) -> None:
        assert RING.verify(purpose, RING.mint(purpose, KEY)) == Claim(key=KEY, link=-1, url="")

    @pytest.mark.parametrize("link", [-1, 0, 126, 127, 128, 4999, 2**31 - 2])
    def test_every_link_number_returns(self, link: int) -> None:
        assert RING.verify(Purpose.CLICK, RING.mint(Purpose.CLICK, KEY, link, "https://example.com/")).link == link


class TestOneSpelling:
    """A token that differs in a single character is none; nothing is trimmed or repaired."""

    @pytest.mark.parametrize("end", range(0, len(CLICK), 7))
    def test_row_02_a_part_of_a_token_is_refused(self, end: int) -> None:
        assert refused(CLICK[:end])
        assert refused(CLICK[end + 1 :])

    def test_row_02_the_last_character_is_missing(self) -> None:
        assert refused(CLICK[:-1])

    @pytest.mark.parametrize("length", range(40))
    def test_row_03_a_spelling_of_the_same_bytes_is_refused(self, length: int) -> None:
        """The last character of either half has equivalents in base64; itsdangerous alone would take them."""
        token = RING.mint(Purpose.CLICK, KEY, 0, "x" * length)
        body, signature = token.split(".")
        for last in ALPHABET:
            for respelt in (f"{body}.{signature[:-1]}{last}", f"{body[:-1]}{last}.{signature}"):
                assert respelt == token or refused(respelt)
        assert base64.urlsafe_b64decode(f"{signature[:-1]}{ALPHABET[ALPHABET.index(signature[-1]) ^ 1]}=")

    @pytest.mark.parametrize(
        "suffix", ["=", "====", "=xyz", "é", " ", "\n", "\r\n", ".", ")", "%3D", "&amp;", "\x00", "/", "?url=x"]
    )
    def test_rows_04_05_w5_nothing_is_trimmed(self, suffix: str) -> None:
        assert refused(CLICK + suffix)
        assert refused(suffix + CLICK)

    def test_rows_06_w6_the_other_alphabet_is_refused(self) -> None:
        tokens = [RING.mint(Purpose.CLICK, KEY, link, URL) for link in range(20)]
        respelt = [token.replace("-", "+").replace("_", "/") for token in tokens]
        assert any(a != b for a, b in zip(tokens, respelt, strict=True))
        assert all(a == b or refused(b) for a, b in zip(tokens, respelt, strict=True))

    def test_row_03_a_second_spelling_is_refused_even_under_our_signature(self) -> None:
        token = RING.mint(Purpose.CLICK, KEY, 0, "x")
        body = token.split(".")[0]
        respelt = body[:-1] + ALPHABET[ALPHABET.index(body[-1]) + 1]
        assert base64.urlsafe_b64decode(respelt + "=") == base64.urlsafe_b64decode(body + "=")
        signer = Signer(NEW, salt="outrider.click.1", key_derivation="hmac", digest_method=hashlib.sha256)
        assert signer.sign(body).decode() == token
        assert refused(signer.sign(respelt).decode())

    def test_row_07_halves_of_two_tokens_are_refused(self) -> None:
        body, signature = CLICK.split(".")
        other_body, other_signature = RING.mint(Purpose.CLICK, KEY, 4, URL).split(".")
        assert refused(f"{body}.{other_signature}")
        assert refused(f"{other_body}.{signature}")


class TestPurposes:
    """A token works for its own purpose alone."""

    @pytest.mark.parametrize("minted", list(Purpose))
    @pytest.mark.parametrize("used", list(Purpose))
    def test_rows_08_w7_purposes_never_cross(self, minted: Purpose, used: Purpose) -> None:
        token = RING.mint(minted, KEY, 3, URL)
        assert refused(token, used) == (minted is not used)

    def test_rows_08_w7_a_body_signed_again_for_another_purpose_is_refused(self) -> None:
        """The cipher, too, is of one purpose: a second signature does not make a click of an unsubscribe."""
        body = RING.mint(Purpose.UNSUBSCRIBE, KEY).split(".")[0]
        signer = Signer(NEW, salt="outrider.click.1", key_derivation="hmac", digest_method=hashlib.sha256)
        forged = signer.sign(body).decode()
        assert signer.validate(forged)
        assert refused(forged)


class TestRotation:
    """The first key signs, all verify, and what is taken out is revoked."""

    def test_rows_09_w8_the_first_key_signs_and_all_verify(self) -> None:
        before = Keyring([OLD]).mint(Purpose.CLICK, KEY, 3, URL)
        both = Keyring([NEW, OLD])
        assert both.verify(Purpose.CLICK, before).url == URL
        assert both.mint(Purpose.CLICK, KEY, 3, URL) == CLICK

    def test_rows_09_w8_a_key_taken_out_revokes_its_tokens(self) -> None:
        assert refused(Keyring([OLD]).mint(Purpose.CLICK, KEY, 3, URL))


class TestNoDowngrade:
    """Nothing weaker than what we mint is taken."""

    @pytest.mark.parametrize(
        "signer",
        [
            Signer(NEW, salt="outrider.click.1", key_derivation="hmac", digest_method=hashlib.sha1),
            Signer(NEW, salt="outrider.click.1", key_derivation="django-concat", digest_method=hashlib.sha256),
            Signer(NEW, salt="outrider.click.1", key_derivation="none", digest_method=hashlib.sha256),
            Signer(b"", salt="outrider.click.1", key_derivation="hmac", digest_method=hashlib.sha256),
            Signer(NEW, salt="outrider.open.1", key_derivation="hmac", digest_method=hashlib.sha256),
        ],
    )
    def test_row_10_no_weaker_signature_is_taken(self, signer: Signer) -> None:
        assert refused(signer.sign(CLICK.split(".")[0]).decode())

    def test_row_10_the_signature_is_that_of_a_plain_signer(self) -> None:
        """Without this, the refusals above could be of something else."""
        signer = Signer(NEW, salt="outrider.click.1", key_derivation="hmac", digest_method=hashlib.sha256)
        assert signer.sign(CLICK.split(".")[0]).decode() == CLICK

    @pytest.mark.parametrize(
        "payload",
        [
            b"\x00\x04" + KEY + b"https://example.com/",
            b"\x02\x04" + KEY + b"https://example.com/",
            b"\x01\x84\x00" + KEY + b"https://example.com/",
            b"\x01\xff\xff\xff\xff\xff" + KEY,
            b"\x01\x04" + KEY[:15],
            b"\x01\x04" + KEY + b"\xff",
            b"\x01",
            b"\x00" * 18,
        ],
        ids=["version 0", "version 2", "long varint", "huge varint", "short key", "not UTF-8", "version only", "zeros"],
    )
    def test_rows_10_17_another_payload_under_our_key_is_refused(self, payload: bytes) -> None:
        token = _Key(NEW).seals[Purpose.CLICK].seal(payload).decode()
        assert refused(token)


class TestAlteration:
    """An altered token is refused, and so is what never was one."""

    @pytest.mark.parametrize("position", range(0, len(CLICK), 5))
    def test_row_11_any_changed_character_is_refused(self, position: int) -> None:
        for other in ALPHABET + "=.+/% é\ud800\x00":
            assert other == CLICK[position] or refused(CLICK[:position] + other + CLICK[position + 1 :])

    def test_row_11_every_flipped_bit_is_refused(self) -> None:
        octets = CLICK.encode()
        for at in range(len(octets)):
            for bit in range(8):
                flipped = octets[:at] + bytes([octets[at] ^ 1 << bit]) + octets[at + 1 :]
                assert refused(flipped.decode("latin-1"))

    @pytest.mark.parametrize(
        "token",
        [
            "",
            ".",
            "..",
            "\x00",
            "%2e%2e%2f",
            "\ud800",
            "\udcff\udcfe",
            "\xff\xfe",
            CLICK.replace(".", "%2E"),
            CLICK.lower(),
        ],
    )
    def test_rows_12_13_14_garbage_is_refused(self, token: str) -> None:
        assert refused(token)

    def test_row_15_a_huge_token_is_refused(self) -> None:
        assert refused("A" * 100_000)
        assert refused("A" * (MAX_TOKEN_CHARS - 44) + "." + "A" * 43)


class TestMinting:
    """Equal claims give equal tokens, which give nothing away."""

    def test_a_token_is_deterministic_and_fits_a_url(self) -> None:
        assert Keyring([NEW]).mint(Purpose.CLICK, KEY, 3, URL) == CLICK
        assert set(CLICK) <= {*ALPHABET, "."}

    def test_different_claims_give_different_tokens(self) -> None:
        claims = [(KEY, 3, URL), (KEY, 4, URL), (KEY[::-1], 3, URL), (KEY, 3, URL + "x")]
        assert len({RING.mint(Purpose.CLICK, *claim) for claim in claims}) == len(claims)

    def test_nothing_can_be_read_from_a_token(self) -> None:
        token = RING.mint(Purpose.CLICK, KEY, 0, "https://example.com/?e=ann@example.net")
        octets = base64.urlsafe_b64decode(token.split(".")[0] + "===")
        assert b"example" not in octets
        assert b"ann" not in octets
        assert KEY not in octets

    @pytest.mark.parametrize(
        ("key", "link", "url"), [(b"short", 0, ""), (KEY, -2, ""), (KEY, 2**31, ""), (KEY, 0, "\ud800")]
    )
    def test_mint_refuses_what_no_token_holds(self, key: bytes, link: int, url: str) -> None:
        with pytest.raises(ValueError, match=r"16 bytes|link number|surrogates"):
            RING.mint(Purpose.CLICK, key, link, url)

    def test_the_longest_url_verifies_and_a_longer_one_is_not_minted(self) -> None:
        longest = 3005
        token = RING.mint(Purpose.CLICK, KEY, 0, "x" * longest)
        assert len(token) <= MAX_TOKEN_CHARS
        assert RING.verify(Purpose.CLICK, token).url == "x" * longest
        with pytest.raises(ValueError, match="too long"):
            RING.mint(Purpose.CLICK, KEY, 0, "x" * (longest + 1))


class TestKeyring:
    """Keys have an order and a name that does not lead back to them."""

    @pytest.mark.parametrize("secrets", [[], [b""], [NEW, b""]])
    def test_a_keyring_needs_keys(self, secrets: list[bytes]) -> None:
        with pytest.raises(ValueError, match="signing key"):
            Keyring(secrets)

    def test_fingerprints_name_the_keys_in_order(self) -> None:
        ring = Keyring([NEW, OLD])
        assert ring.fingerprints == (Keyring([NEW]).fingerprint, Keyring([OLD]).fingerprint)
        assert ring.fingerprint == ring.fingerprints[0]
        assert all(len(one) == 16 and int(one, 16) >= 0 for one in ring.fingerprints)
        assert ring.fingerprints[0] not in {hashlib.sha256(NEW).hexdigest()[:16], NEW.hex()[:16]}

    def test_a_pinned_keyring_signs_as_before_the_rotation(self) -> None:
        old = Keyring([OLD])
        ring = Keyring([NEW, OLD])
        pinned = ring.pinned(old.fingerprint)
        assert pinned.mint(Purpose.OPEN, KEY) == old.mint(Purpose.OPEN, KEY)
        assert pinned.fingerprint == old.fingerprint
        assert pinned.verify(Purpose.CLICK, CLICK).url == URL
        assert ring.fingerprint == RING.fingerprint

    def test_a_pin_to_a_key_that_is_gone_signs_with_the_newest(self) -> None:
        ring = Keyring([NEW, OLD])
        assert ring.pinned("0123456789abcdef") is ring
        assert ring.pinned(ring.fingerprint) is ring


@given(st.text())
def test_only_token_errors_escape(garbage: str) -> None:
    """Invariant: whatever a client sends, verify() returns or raises TokenError."""
    assert refused(garbage)


@given(st.text(alphabet=ALPHABET, min_size=46, max_size=300), st.text(alphabet=ALPHABET, min_size=43, max_size=43))
def test_only_token_errors_escape_for_the_right_shape(body: str, signature: str) -> None:
    """Invariant: a forged token of the right shape is refused, whatever its length."""
    assert refused(f"{body}.{signature}")


@given(
    st.sampled_from(Purpose),
    st.binary(min_size=16, max_size=16),
    st.integers(-1, 2**31 - 2),
    st.text(alphabet=st.characters(codec="utf-8"), max_size=700),
)
def test_mint_and_verify_are_inverse(purpose: Purpose, key: bytes, link: int, url: str) -> None:
    """Invariant: what was minted is what is claimed, for any URL."""
    assert RING.verify(purpose, RING.mint(purpose, key, link, url)) == Claim(key=key, link=link, url=url)


@given(st.data())
def test_any_single_character_change_is_refused(data: st.DataObject) -> None:
    """Invariant: a token has one spelling; no other character stands in any place of it."""
    url = data.draw(st.text(alphabet=st.characters(min_codepoint=33, max_codepoint=126), max_size=60))
    token = RING.mint(Purpose.CLICK, KEY, 0, url)
    position = data.draw(st.integers(0, len(token) - 1))
    for other in ALPHABET:
        changed = Token(token[:position] + other + token[position + 1 :])
        assert changed == token or refused(changed)
