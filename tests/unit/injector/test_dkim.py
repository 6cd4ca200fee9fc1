"""DKIM signatures: the canonical form, what is covered, and what others say of the result."""

import base64
import hashlib
import random

import pytest
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, generate_private_key
from hypothesis import given
from hypothesis import strategies as st

from injector import dkim
from injector.dkim import COVERED, SEALED_WHEN_ABSENT, Signer, SigningKey, body_digest, relaxed_field, sign
from sidecar.dkim_keys import record
from tests import dkim as judge
from tests import dkimpy
from tests.signing import DOMAIN, both, ed_key, rsa_key, signatures, tags

_BITS = st.sampled_from(
    [b"a", b"B=", b".", b" ", b"  ", b"\t", b" \t", b"\r\n", b" \r\n", b"\r", b"\n", b"\xff", b"\x0b", b"\x85"]
)
OCTETS = st.lists(_BITS, max_size=40).map(b"".join)


def canonical_body(body: bytes) -> bytes:
    """Return RFC 6376 3.4.4 to the letter, octet by octet, and slow."""
    lines: list[bytearray] = [bytearray()]
    at = 0
    while at < len(body):
        if body[at : at + 2] == b"\r\n":
            lines.append(bytearray())
            at += 2
            continue
        if body[at] not in b" \t":
            lines[-1].append(body[at])
        elif lines[-1][-1:] != b" ":
            lines[-1] += b" "
        at += 1
    whole = [bytes(line[:-1] if line[-1:] == b" " else line) for line in lines]
    while whole and not whole[-1]:
        whole.pop()
    return b"".join(line + b"\r\n" for line in whole)


class TestCanonicalForm:
    """RFC 6376 3.4."""

    @given(OCTETS, st.integers(min_value=1, max_value=8))
    def test_a_body_is_read_as_the_rfc_says(self, body: bytes, piece: int) -> None:
        """Invariant: the digest is that of the slow form, wherever the body is cut into pieces."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(dkim, "_PIECE", piece)
            assert body_digest(b"header" + body, 6) == hashlib.sha256(canonical_body(body)).digest()

    @pytest.mark.parametrize(
        ("body", "canonical"),
        [
            (b"", b""),
            (b"\r\n\r\n\r\n", b""),
            (b" \t\r\n \r\n\t", b""),
            (b"x", b"x\r\n"),
            (b"x \t", b"x\r\n"),
            (b"x\r\n \r\n\r\n", b"x\r\n"),
            (b"\r\n\r\nx\r\n", b"\r\n\r\nx\r\n"),
            # RFC 6376 3.4.6
            (b" C \r\nD \t E\r\n\r\n\r\n", b" C\r\nD E\r\n"),
        ],
    )
    def test_white_space_and_empty_lines_at_the_end(self, body: bytes, canonical: bytes) -> None:
        assert body_digest(body, 0) == hashlib.sha256(canonical).digest()
        assert canonical_body(body) == canonical

    def test_the_example_of_rfc_8463(self) -> None:
        body = b"Hi.\r\n\r\nWe lost the game.  Are you hungry yet?\r\n\r\nJoe.\r\n"
        assert base64.b64encode(body_digest(body, 0)) == b"2jUSOH9NhtVGCQWNr9BrIAPreKQjO6Sn7XIkfJVOzv8="

    @pytest.mark.parametrize(
        ("field", "canonical"),
        [
            # RFC 6376 3.4.6
            (b"A: X", b"a:X"),
            (b"B : Y\t\r\n\tZ  ", b"b:Y Z"),
            (b"Subject:x", b"subject:x"),
            (b"Subject:", b"subject:"),
            (b"Subject: \r\n \t\r\n x", b"subject:x"),
            (b"Subject: \xd0\x96 : \xff", b"subject:\xd0\x96 : \xff"),
        ],
    )
    def test_a_field_is_unfolded_and_its_name_is_small(self, field: bytes, canonical: bytes) -> None:
        assert relaxed_field(field) == canonical

    @pytest.mark.timeout(20)
    @pytest.mark.parametrize("bit", [b" ", b"\t", b"\r\n", b" \r\n", b"x ", b"\t \t", b"  x", b"\r\n  "])
    def test_hostile_white_space_costs_no_more_than_its_size(self, bit: bytes) -> None:
        body = bit * (8_000_000 // len(bit))
        assert len(body_digest(body, 0)) == 32


class TestSignature:
    """The field, and what it covers."""

    CONTENT = (
        b"Received: from a\r\nFrom: a@shop.example.com\r\nTo: b@example.net\r\nSubject: one\r\nSubject: two\r\n"
        b"List-Unsubscribe: <https://t.example.com/u>\r\nList-Unsubscribe-Post: List-Unsubscribe=One-Click\r\n"
        b"Message-ID: <x@shop.example.com>\r\nX-Own: 1\r\n\r\nHello\r\n"
    )

    def test_one_for_each_key_and_rsa_on_top(self) -> None:
        signer = Signer(reversed(both()))
        signed = sign(self.CONTENT, signer.keys_for(DOMAIN))
        top, below = map(tags, signatures(signed, self.CONTENT))
        assert (top["a"], top["s"], top["d"]) == ("rsa-sha256", "r1", DOMAIN)
        assert (below["a"], below["s"], below["d"]) == ("ed25519-sha256", "e1", DOMAIN)
        for found in (top, below):
            assert set(found) == {"v", "a", "c", "d", "s", "h", "bh", "b"}, "a time or a length is in it"
            assert (found["v"], found["c"]) == ("1", "relaxed/relaxed")

    def test_what_is_covered_and_sealed(self) -> None:
        (field,) = signatures(sign(self.CONTENT, [ed_key()]), self.CONTENT)
        names = tags(field)["h"].split(":")
        assert {name: names.count(name) for name in names} == {
            "From": 2,
            "Reply-To": 1,
            "To": 2,
            "Cc": 1,
            "Subject": 3,
            "Message-ID": 2,
            "List-Unsubscribe": 2,
            "List-Unsubscribe-Post": 2,
        }

    def test_everything_that_can_be_covered_is(self) -> None:
        content = b"".join(b"%b: 1\r\n" % name.upper() for name in COVERED) + b"\r\n"
        (field,) = signatures(sign(content, [ed_key()]), content)
        assert tags(field)["h"].split(":") == [name.decode() for name in COVERED for _ in range(2)]
        assert set(COVERED) >= SEALED_WHEN_ABSENT

    def test_equal_input_gives_equal_bytes(self) -> None:
        assert sign(self.CONTENT, both()) == sign(self.CONTENT, both())

    @pytest.mark.parametrize("domain", [DOMAIN, ".".join(["label-of-twenty-nine-characters"[:29]] * 8)])
    def test_lines_are_short(self, domain: str) -> None:
        key = SigningKey(selector="s" * 63, domain=domain, key=rsa_key().key)
        (field,) = signatures(sign(self.CONTENT, [key]), self.CONTENT)
        lines = field.split(b"\r\n")
        assert [line for line in lines if len(line) > 77 and domain.encode() not in line] == []
        assert all(line.startswith(b"\t") for line in lines[1:-1])

    @pytest.mark.parametrize(
        "content",
        [
            CONTENT,
            b"From: a@shop.example.com",
            b"From: a@shop.example.com\r\n",
            b"From: a@shop.example.com\r\n\r\n",
            b"\r\nno header at all",
            b"From : a@shop.example.com\r\nSubject:\r\n \r\n folded\r\n\r\nno line end",
        ],
    )
    def test_a_message_of_any_shape_is_signed_so_that_it_verifies(self, content: bytes) -> None:
        signed = on_the_wire(sign(content, both()))
        for key in both():
            assert judge.verifies(signed, key.key.public_key())


class TestSigner:
    """Which keys sign."""

    def test_the_pinned_ones_while_one_of_them_is_held(self) -> None:
        signer = Signer([*both(), rsa_key("other.example.com")])
        assert [key.name for key in signer.keys_for(DOMAIN)] == [f"r1._domainkey.{DOMAIN}", f"e1._domainkey.{DOMAIN}"]
        assert signer.keys_for(DOMAIN, [f"e1._domainkey.{DOMAIN}", "gone._domainkey.example.com"]) == (ed_key(),)
        assert signer.keys_for(DOMAIN, [f"old._domainkey.{DOMAIN}"]) == both()

    def test_a_domain_that_is_not_held_has_none(self) -> None:
        assert Signer(both()).keys_for("example.com") == ()
        assert Signer().keys_for(DOMAIN) == ()


def on_the_wire(content: bytes) -> bytes:
    """Return *content* as SMTP delivers it: its last line has an end."""
    return content if content.endswith(b"\r\n") else content + b"\r\n"


def any_message(chance: random.Random) -> bytes:
    """Return a message with a header and a body of odd shapes, as a verifier that is no relay can read it."""

    def octets(bits: list[bytes], most: int) -> bytes:
        return b"".join(chance.choice(bits) for _ in range(chance.randrange(most)))

    odd = [b"a", b"Z", b" ", b"\t", b"  ", b"=?utf-8?q?x?=", b"\xd0\x96", b":", b"\r\n ", b"\r\n\t", b";"]
    names = [chance.choice([*COVERED, b"X-Other", b"Received"]) for _ in range(chance.randrange(12))]
    fields = [b"From: Shop <news@shop.example.com>"]
    fields += [name + chance.choice([b":", b": "]) + octets(odd, 12) + b"." for name in names]
    chance.shuffle(fields)
    body = octets([b"line", b" ", b"\t", b"\r\n", b"\r\n\r\n", b" \r\n", b".", b"\xff", b"=20\r\n"], 40)
    return on_the_wire(b"\r\n".join(fields) + b"\r\n\r\n" + body)


def test_dkimpy_says_that_they_hold_and_that_nothing_may_change() -> None:
    """Two hundred messages, both kinds of key; then each with one thing changed that a signature must not survive."""
    chance = random.Random(6376)  # noqa: S311 - a seed, so that a failure is found again
    keys = [*both(), ed_key("other.example.com", "e2")]
    intact = [sign(any_message(chance), keys) for _ in range(200)]
    broken = []
    for signed in intact:
        head, gap, body = signed.partition(b"\r\n\r\n")
        broken.append(
            chance.choice(
                [
                    head + gap + body + b"more\r\n",
                    head + gap + b"!" + body,
                    *(head + b"\r\n" + name + b": added" + gap + body for name in SEALED_WHEN_ABSENT),
                    b"From: added@example.com\r\n" + signed,
                    signed.replace(b"news@", b"nevs@"),
                ]
            )
        )
    found = dkimpy.verdicts([*intact, *broken], {key.name: record(key) for key in keys})
    assert found[: len(intact)] == [[True, True, True]] * len(intact)
    assert found[len(intact) :] == [[False, False, False]] * len(broken)


def test_dkimpy_sees_a_key_that_is_not_published() -> None:
    """The judge looks at the record: another key in its place, and nothing holds."""
    content = TestSignature.CONTENT
    stranger = SigningKey(selector="r1", domain=DOMAIN, key=_another())
    assert dkimpy.verdicts([sign(content, both())], {rsa_key().name: record(stranger)}) == [[False, False]]


def _another() -> RSAPrivateKey:
    return generate_private_key(public_exponent=65537, key_size=2048)
