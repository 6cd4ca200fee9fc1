"""The header by which a provider's events will name our key."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

import injector
from injector.dkim import Signer
from injector.tokens import Keyring
from ledger.ids import key_bytes
from providers.registry import PROVIDERS
from providers.webhook import Provider
from relay import stamp
from relay.inject import Profile, UrlMinter
from relay.settings import RelaySettings
from relay.stamp import Draft
from tests.relaying import IDENTITY, submission
from tests.vendors import JSON, TAGS

KEYRING = Keyring([b"signing"])
SIGNATURE = "DKIM-Signature: v=1; a=rsa-sha256; d=shop.example; s=s; h={names};\r\n bh=aaaa; b=bbbb\r\n"


def draft_of(extra: str = "", *, strip: tuple[str, ...] = (), dkim: str = "keep") -> Draft:
    """Return a draft of a message with the header lines *extra*."""
    profile = Profile(
        options=injector.Options(public_url="http://127.0.0.1:8080", dkim="strip" if dkim == "strip" else "keep"),
        signing=KEYRING.fingerprint,
        strip=strip,
        hostname="relay.example.com",
    )
    return stamp.draft_of(submission(extra=extra), settings=RelaySettings(), ams_headers=(), profile=profile)


def render(draft: Draft, provider: Provider | None) -> bytes:
    """Return what leaves for one recipient."""
    addressed = stamp.address(draft, "ann@example.net", identity_key=IDENTITY, generation=0)
    minter = UrlMinter(KEYRING, "http://127.0.0.1:8080", key_bytes(addressed.key))
    return stamp.render(draft, addressed, minter, Signer(), provider).content


def key_of(draft: Draft) -> str:
    """Return the message's key."""
    return stamp.address(draft, "ann@example.net", identity_key=IDENTITY, generation=0).key


def answering(values: dict[str, str]) -> Provider:
    """Return a provider that wants just these header values."""
    return msgspec.structs.replace(TAGS, stamp=lambda _key, _present: values)


def without(content: bytes, *names: str) -> bytes:
    """Return *content* without the header fields of these names."""
    head, _, body = content.partition(b"\r\n\r\n")
    kept = bytearray()
    skipping = False
    for line in head.split(b"\r\n"):
        if line[:1] not in {b" ", b"\t"}:
            skipping = line.partition(b":")[0].decode() in names
        if not skipping:
            kept += line + b"\r\n"
    return bytes(kept) + b"\r\n" + body


def test_it_is_added_below_our_received_line_and_nothing_else_changes() -> None:
    """Without a provider the message is what it always was."""
    draft = draft_of()
    sent = render(draft, TAGS)
    assert sent.startswith(b"Received: ")
    assert f"X-Tags: outrider={key_of(draft)}\r\nX-Keep: true\r\n".encode() in sent
    assert without(sent, "X-Tags", "X-Keep") == render(draft, None)
    assert sent == render(draft, TAGS)


def test_what_the_mailer_wrote_is_merged() -> None:
    """One field of the name leaves, with both."""
    draft = draft_of("X-Tags: a=1,\r\n\tb=2\r\n")
    sent = render(draft, TAGS)
    assert injector.parse(sent).headers.all("X-Tags") == [f"a=1, b=2, outrider={key_of(draft)}"]
    assert without(sent, "X-Tags", "X-Keep") == without(render(draft, None), "X-Tags")


def test_a_value_that_is_there_already_is_left_as_it_is() -> None:
    """A second pass through a relay with the same keys changes nothing more, not even the folding."""
    draft = draft_of("x-keep:  true\r\n")
    assert b"\r\nx-keep:  true\r\n" in render(draft, TAGS)
    assert render(draft, TAGS).lower().count(b"x-keep:") == 1


def test_a_long_value_is_folded_at_its_spaces() -> None:
    """RFC 5322 2.1.1: 76 octets where it can be; unfolded it is the value to the octet."""
    value = "{" + ", ".join(f'"name {number}": "a  value"' for number in range(40)) + "}"
    draft = draft_of()
    sent = render(draft, answering({"X-Tags": value}))
    lines = [line for line in sent.partition(b"\r\n\r\n")[0].split(b"\r\n") if b'"name' in line or b"value" in line]
    assert len(lines) > 10
    assert max(map(len, lines)) <= 76
    assert injector.parse(sent).headers.all("X-Tags") == [value]


@given(st.text(alphabet='ab :,"{}', max_size=300))
def test_no_value_breaks_the_message(value: str) -> None:
    """Invariant: whatever a provider answers, the other fields and the body are untouched, and no line is too long."""
    draft = draft_of()
    sent = render(draft, answering({"X-Tags": value}))
    assert without(sent, "X-Tags") == render(draft, None)
    assert all(line.strip() for line in sent.partition(b"\r\n\r\n")[0].split(b"\r\n"))
    if value.strip() == value and value:
        assert injector.parse(sent).headers.all("X-Tags") == [value]


@pytest.mark.parametrize(
    "value",
    [
        "",
        " ",
        "a\r\nBcc: ann@example.net",
        "a\nb",
        "a\0b",
        "привет",
        "x" * 1000,
        "a" + " b" * 10 + "c" * 998,
        " a",
        "a\t",
    ],
)
def test_a_value_that_cannot_stand_in_a_header_is_left_out(value: str) -> None:
    """No injection, no line over 998 octets, nothing but ASCII."""
    draft = draft_of("X-Tags: mine\r\n")
    assert render(draft, answering({"X-Tags": value})) == render(draft, None)


def test_a_name_that_was_not_announced_is_left_out() -> None:
    """`stamped` is what may change."""
    draft = draft_of()
    assert render(draft, answering({"Subject": "x"})) == render(draft, None)


def test_several_fields_of_a_name_stay_as_they_are() -> None:
    """Nobody knows which of them the provider reads."""
    draft = draft_of("X-Json: {}\r\nX-Json: {}\r\n")
    assert render(draft, JSON) == render(draft, None)


def test_what_cannot_be_merged_stays() -> None:
    """The mailer's own value is worth more than our key."""
    draft = draft_of("X-Json: {broken\r\n")
    assert render(draft, JSON) == render(draft, None)


def test_a_stripped_field_is_not_merged_with() -> None:
    """The operator wants it gone; ours takes its place."""
    draft = draft_of("X-Tags: secret\r\n", strip=("x-tags",))
    sent = render(draft, TAGS)
    assert b"secret" not in sent
    assert sent.count(b"X-Tags:") == 1


def test_a_provider_that_fails_costs_no_mail() -> None:
    """It leaves as through an upstream that nobody knows, and the log says so."""

    def fail(key: str, _present: object) -> dict[str, str]:
        raise ValueError(key)

    draft = draft_of()
    with capture_logs() as logs:
        assert render(draft, msgspec.structs.replace(TAGS, stamp=fail)) == render(draft, None)
    assert [(one["event"], one["error"]) for one in logs] == [("vendor_header_failed", "ValueError")]
    assert key_of(draft) not in str(logs)


@pytest.mark.parametrize("provider", PROVIDERS.values(), ids=lambda one: one.name)
def test_every_providers_header_leaves(provider: Provider) -> None:
    """What it announces is what is added, all of it fits, and the rest is untouched."""
    draft = draft_of()
    sent = render(draft, provider)
    written = [name for name in provider.stamped if injector.parse(sent).headers.count(name)]
    assert set(written) == set(provider.stamp(key_of(draft), {}))
    assert all(injector.parse(sent).headers.count(name) == 1 for name in written)
    assert without(sent, *written) == render(draft, None)


class TestSignedMail:
    """A signature that has to hold is not broken for a label."""

    def test_a_field_that_the_signature_does_not_cover_is_added(self) -> None:
        """An added field of a name that is not signed leaves the signature whole."""
        draft = draft_of(SIGNATURE.format(names="from:subject"))
        sent = render(draft, TAGS)
        assert f"X-Tags: outrider={key_of(draft)}\r\n".encode() in sent
        assert without(sent, "X-Tags", "X-Keep") == render(draft, None)

    def test_a_field_that_it_does_not_cover_is_merged(self) -> None:
        """Replaced as in any other mail."""
        draft = draft_of("X-Tags: a=1\r\n" + SIGNATURE.format(names="from:subject"))
        sent = render(draft, TAGS)
        assert f"X-Tags: a=1, outrider={key_of(draft)}\r\n".encode() in sent
        assert sent.count(b"X-Tags:") == 1

    @pytest.mark.parametrize("extra", ["", "X-Tags: a=1\r\n"])
    def test_a_covered_field_is_neither_changed_nor_added(self, extra: str) -> None:
        """A name in h= says also that there is no further one of it (RFC 6376 5.4)."""
        draft = draft_of(extra + SIGNATURE.format(names="From : x-tags:\r\n X-KEEP"))
        assert render(draft, TAGS) == render(draft, None)

    def test_a_signature_that_cannot_be_read_covers_all(self) -> None:
        """Nobody knows what it covers."""
        draft = draft_of("DKIM-Signature: v=1; broken\r\n")
        assert render(draft, TAGS) == render(draft, None)

    def test_a_signature_that_is_taken_off_covers_nothing(self) -> None:
        """With `strip` the message is like any other."""
        draft = draft_of("X-Tags: a=1\r\n" + SIGNATURE.format(names="from:x-tags"), dkim="strip")
        assert f"X-Tags: a=1, outrider={key_of(draft)}\r\n".encode() in render(draft, TAGS)
