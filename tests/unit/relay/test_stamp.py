"""What identifies a submission's messages."""

import msgspec
import pytest

import injector
from injector.dkim import Signer
from injector.tokens import Keyring
from ledger.ids import key_bytes
from relay import stamp
from relay.inject import Profile, UrlMinter, decode_profile
from relay.settings import RelaySettings
from relay.stamp import Addressed, Draft
from tests.relaying import IDENTITY, submission

KEYRING = Keyring([b"signing"])
PROFILE = Profile(
    options=injector.Options(public_url="http://127.0.0.1:8080"),
    signing=KEYRING.fingerprint,
    strip=("X-Id-Mail",),
    hostname="relay.example.com",
)


def _draft(settings: RelaySettings | None = None, **changes: object) -> Draft:
    return stamp.draft_of(
        submission(**changes),  # type: ignore[arg-type]  # fields by name
        settings=settings or RelaySettings(),
        ams_headers=("X-Id-Mail",),
        profile=PROFILE,
    )


def _render(draft: Draft, addressed: Addressed | None = None) -> bytes:
    addressed = addressed or stamp.address(draft, "ann@example.net", identity_key=IDENTITY, generation=0)
    minter = UrlMinter(KEYRING, "http://127.0.0.1:8080", key_bytes(addressed.key))
    return stamp.render(draft, addressed, minter, Signer()).content


def test_the_original_id_is_the_origin() -> None:
    """Received lines and the like do not make another message; another id does."""
    assert _draft().origin == _draft(extra="Received: from a\r\n\tby b\r\n").origin
    assert _draft().origin != _draft(message_id="<other@mailer.example>").origin


def test_without_an_id_the_content_is_the_origin() -> None:
    """Date included, what travel adds left out."""
    bare = _draft(message_id=None)
    assert bare.origin.startswith(b"content:")
    assert bare.origin == _draft(message_id=None, extra="Received: from a\r\n\tby b\r\n").origin
    assert bare.origin != _draft(message_id=None, body="<p>other</p>").origin
    assert bare.origin != _draft(message_id=None, extra="X-Other: 1\r\n").origin
    assert bare.window == 3600


@pytest.mark.parametrize("value", ["<bad id>", "nothing", "<a@b@c d>", "<>", "<" + "a" * 300 + "@b>"])
def test_what_is_no_message_id_is_none(value: str) -> None:
    """A broken id identifies nothing."""
    assert _draft(message_id=value).original_id is None


def test_the_domain_is_the_senders() -> None:
    """From first, the setting before it."""
    assert _draft().domain == "shop.example"
    assert _draft(RelaySettings(message_id_domain="mid.example.com")).domain == "mid.example.com"


def test_a_kept_id_is_kept() -> None:
    """STAMP=missing leaves a conversation's Message-ID alone, and stamps where there is none."""
    settings = RelaySettings(stamp="missing")
    assert b"Message-ID: <original@mailer.example>\r\n" in _render(_draft(settings))
    assert b"@shop.example>\r\n" in _render(_draft(settings, message_id=None))


def test_a_retry_sends_the_same_bytes() -> None:
    """What was stored renders as the first try did, whatever the settings say by then."""
    draft = _draft()
    kept, campaign = stamp.unstored(stamp.stored(draft), draft.submission.content)
    later = stamp.draft_of(
        kept,
        settings=RelaySettings(stamp="missing", campaign_headers=("X-Nothing",)),
        ams_headers=(),
        profile=decode_profile(PROFILE.encode()),
        campaign=campaign,
    )
    # The row remembers under which Message-ID it was first sent.
    addressed = stamp.address(draft, "ann@example.net", identity_key=IDENTITY, generation=0)
    assert _render(later, addressed) == _render(draft)


def test_control_headers_are_stripped_where_asked() -> None:
    """The campaign header does not have to be seen by everybody."""
    assert b"X-Id-Mail" not in _render(_draft())


def test_bcc_never_leaves() -> None:
    """Whoever is in Bcc is nobody's business."""
    assert b"hidden@example.net" not in _render(_draft(extra="Bcc: hidden@example.net\r\n"))


def test_recipients_that_normalise_to_one_are_one_message() -> None:
    """The first spelling stays; the local part's case counts."""
    assert stamp.unique_recipients(["a@X.example", "b@x.example", "a@x.example", "A@x.example"]) == [
        "a@X.example",
        "b@x.example",
        "A@x.example",
    ]


def test_a_profile_is_named_by_what_it_says() -> None:
    """Equal profiles share a digest, different ones do not."""
    assert decode_profile(PROFILE.encode()) == PROFILE
    assert msgspec.structs.replace(PROFILE, hostname="other.example.com").digest != PROFILE.digest
