"""Signing again as the last thing before a message leaves, and leaving all the same when that cannot be done."""

from collections.abc import Sequence

import msgspec
import pytest
from prometheus_client import REGISTRY
from structlog.testing import capture_logs

import injector
from injector import dkim
from injector.dkim import Signer, SigningKey
from injector.tokens import Keyring
from ledger.ids import key_bytes
from relay import stamp
from relay.inject import Profile, UrlMinter, decode_profile
from relay.settings import RelaySettings
from relay.sign import sign_again
from relay.stamp import Draft
from sidecar.dkim_keys import record
from tests import dkim as judge
from tests import dkimpy, kept_mail
from tests.relaying import IDENTITY, PUBLIC_URL, submission
from tests.signing import DOMAIN, ed_key, rsa_key, signatures, tags

OURS = f"DKIM-Signature: v=1; d={DOMAIN}; s=old; h=from:message-id;\r\n bh=x; b=y\r\n"
KEYRING = Keyring([b"signing"])
PLAIN = b"From: a@shop.example.com\r\nSubject: x\r\n\r\nHello\r\n"


def draft(signer: Signer, extra: str = OURS, content: bytes | None = None) -> Draft:
    """Return a signed submission as the relay reads it; *content* takes the place of the usual one."""
    profile = Profile(
        options=injector.Options(public_url=PUBLIC_URL, dkim="resign", dkim_domains=(DOMAIN,)),
        signing=KEYRING.fingerprint,
        strip=(),
        hostname="relay.example.com",
        dkim_keys=signer.names,
    )
    submitted = submission(extra=extra)
    if content is not None:
        submitted = msgspec.structs.replace(submitted, content=content)
    return stamp.draft_of(submitted, settings=RelaySettings(), ams_headers=(), profile=decode_profile(profile.encode()))


def rendered(read: Draft, signer: Signer) -> injector.Rendered:
    """Return one recipient's message."""
    addressed = stamp.address(read, "ann@example.net", identity_key=IDENTITY, generation=0)
    return stamp.render(read, addressed, UrlMinter(KEYRING, PUBLIC_URL, key_bytes(addressed.key)), signer)


def names(content: bytes, plain: bytes = PLAIN) -> list[str]:
    """Return the selectors of the signatures before *plain*."""
    return [tags(field)["s"] for field in signatures(content, plain)]


def counted(metric: str, **labels: str) -> float:
    """Return what a counter says."""
    return REGISTRY.get_sample_value(metric, labels) or 0.0


class Unsigned:
    """How many messages left unsigned since the test began."""

    def __init__(self) -> None:
        self._before = {reason: self._now(reason) for reason in ("no_key", "failed")}

    def for_(self, reason: str) -> float:
        """Return how many did so for *reason*."""
        return self._now(reason) - self._before[reason]

    @staticmethod
    def _now(reason: str) -> float:
        return counted("outrider_dkim_unsigned_total", reason=reason)


@pytest.fixture
def unsigned() -> Unsigned:
    """Start to count."""
    return Unsigned()


def test_the_new_signatures_stand_on_top_and_hold() -> None:
    """Everything that the relay changed is below them: Received, the stamp, links, pixel, unsubscribe."""
    signer = Signer([rsa_key(), ed_key()])
    done = rendered(draft(signer), signer)
    assert (done.injected, done.reason, done.links) == (True, None, 1)
    assert done.content.startswith(b"DKIM-Signature: v=1; a=rsa-sha256;")
    assert done.content.count(b"\r\nDKIM-Signature: ") == 1
    for key in (rsa_key(), ed_key()):
        assert judge.verifies(done.content, key.key.public_key())
    broken = done.content.replace(b"/unsubscribe/", b"/unsubscribf/")
    assert not judge.verifies(broken, rsa_key().key.public_key())


def test_a_retry_signs_with_the_keys_that_were_held_then() -> None:
    """The same bytes, though a key came meanwhile; and with what is held when none of them is left."""
    first = Signer([rsa_key()])
    read = draft(first)
    later = Signer([rsa_key(), ed_key()])
    assert rendered(read, later) == rendered(read, first)
    rotated = rendered(read, Signer([ed_key()]))
    assert judge.verifies(rotated.content, ed_key().key.public_key())


def test_mail_of_others_and_unsigned_mail_is_not_signed() -> None:
    """No signature that was not there before, and none beside somebody else's."""
    signer = Signer([rsa_key()])
    assert b"DKIM-Signature" not in rendered(draft(signer, extra=""), signer).content
    foreign = rendered(draft(signer, extra=OURS.replace(DOMAIN, "example.net")), signer)
    assert foreign.reason == "dkim_signed"
    assert foreign.content.count(b"DKIM-Signature") == 1


def test_a_key_that_is_gone_does_not_keep_mail_back(unsigned: Unsigned) -> None:
    """The message leaves unsigned, it is counted, and the log names the domain and nobody's address."""
    with capture_logs() as logs:
        done = rendered(draft(Signer([rsa_key()])), Signer())
    assert done.injected
    assert b"DKIM-Signature" not in done.content
    assert unsigned.for_("no_key") == 1
    assert logs == [{"event": "dkim_key_missing", "domains": [DOMAIN], "log_level": "warning"}]


def test_of_two_domains_the_one_that_is_held_is_signed_for(unsigned: Unsigned) -> None:
    """Half is better than nothing, and counted."""
    content = sign_again(PLAIN, ["gone.example.com", DOMAIN], signer=Signer([rsa_key()]), pinned=())
    assert names(content) == ["r1"]
    assert unsigned.for_("no_key") == 1


def test_signing_that_fails_does_not_keep_mail_back(unsigned: Unsigned, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever goes wrong, the message leaves; its content is in no log."""

    def fail(content: bytes, keys: Sequence[SigningKey]) -> bytes:
        raise ValueError(content, keys)

    monkeypatch.setattr(dkim, "sign", fail)
    with capture_logs() as logs:
        assert sign_again(PLAIN, [DOMAIN], signer=Signer([rsa_key()]), pinned=()) == PLAIN
    assert unsigned.for_("failed") == 1
    assert logs == [{"event": "dkim_signing_failed", "error": "ValueError", "log_level": "error"}]


def test_the_corpus_verifies_whatever_was_done_to_it() -> None:
    """Each mail that is kept, signed by us before: what the relay renders of it holds, says dkimpy too."""
    signer = Signer([rsa_key(), ed_key()])
    done: dict[str, bytes] = {}
    left_alone = set()
    for name in kept_mail.names():
        read = draft(signer, content=OURS.encode() + kept_mail.kept(name))
        if read.plan.resigned_for:
            done[name] = rendered(read, signer).content
        else:
            left_alone.add(name)
    assert "arc_sealed" in left_alone
    assert len(done) >= 50
    for content in done.values():
        assert judge.verifies(content, rsa_key().key.public_key())
    found = dkimpy.verdicts(list(done.values()), {key.name: record(key) for key in (rsa_key(), ed_key())})
    assert {name: held for name, held in zip(done, found, strict=True) if held != [True, True]} == {}


def test_what_is_signed_is_counted() -> None:
    """Once for a message, however many keys signed it."""
    before = counted("outrider_dkim_signed_total")
    sign_again(PLAIN, [DOMAIN], signer=Signer([rsa_key(), ed_key()]), pinned=())
    assert counted("outrider_dkim_signed_total") - before == 1


def test_a_profile_from_before_there_were_keys_is_understood() -> None:
    """What an older version queued has neither domains nor names of keys."""
    profile = draft(Signer([rsa_key()])).profile
    document = msgspec.json.decode(profile.encode())
    del document["dkim_keys"], document["options"]["dkim_domains"]
    document["options"]["dkim"] = "keep"
    old = decode_profile(msgspec.json.encode(document).decode())
    assert (old.dkim_keys, old.options.dkim_domains) == ((), ())
