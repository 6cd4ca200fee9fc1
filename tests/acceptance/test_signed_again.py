"""INJECT__DKIM=resign: a newsletter that its mailer signed is tracked, and leaves with a signature that holds.

The judges know nothing of the code: `tests/dkim.py`, and dkimpy where Debian's package of it is installed.
"""

import contextlib
from collections.abc import AsyncIterator

import msgspec
import pytest
import pytest_asyncio
from cryptography.hazmat.primitives.asymmetric import rsa

from injector.tokens import Keyring
from sidecar.dkim_keys import record
from tests import dkim, dkimpy, kept_mail
from tests.conftest import next_port
from tests.playing import accepted, asked, mail, tracked, until
from tests.running import Outrider, outrider, short_directory
from tests.signing import DOMAIN, both, kept
from tests.sink import Sink
from tests.splices import split, undo

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.xdist_group("signed_again"),
    pytest.mark.timeout(180),
]

COVERED = ("From", "To", "Subject", "Date", "Message-ID", "MIME-Version", "Content-Type", "From")
RECORDS = {key.name: record(key) for key in both()}


class Scene(msgspec.Struct, frozen=True, kw_only=True):
    """An Outrider that holds keys of one domain, and the upstream that it sends to."""

    target: Outrider
    sink: Sink
    keyring: Keyring
    #: What arrived at the upstream, accepted or not.
    seen: list[bytes]

    @property
    def public_url(self) -> str:
        """What every URL of ours begins with."""
        return f"http://127.0.0.1:{self.target.http}"

    async def through(self, submitted: bytes) -> tuple[str, bytes]:
        """Submit a message, and return its key and the bytes that left."""
        key = await accepted(self.target.smtp, submitted, "ann@example.net")
        return key, self.sink.kept[-1].content


def signed_by_the_mailer(content: bytes, domain: str = DOMAIN) -> tuple[bytes, rsa.RSAPublicKey]:
    """Return *content* as a mailer with a key of its own signs it, and its public key."""
    private = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    submitted = dkim.sign(content, private, how="relaxed", names=COVERED, domain=domain)
    assert dkim.verifies(submitted, private.public_key())
    return submitted, private.public_key()


def fields(content: bytes) -> list[bytes]:
    """Return the names of the header fields, in order."""
    head, _ = split(content)
    return [line.partition(b":")[0] for line in head.split(b"\r\n") if line and line[:1] not in b" \t"]


def without_signatures(content: bytes) -> bytes:
    """Return *content* without the two fields at its top."""
    lines = content.split(b"\r\n")
    starts = [at for at, line in enumerate(lines) if line and line[:1] not in b" \t"]
    assert all(lines[at].startswith(b"DKIM-Signature: ") for at in starts[:2])
    return b"\r\n".join(lines[starts[2] :])


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def scene() -> AsyncIterator[Scene]:
    """Run an Outrider with an RSA and an Ed25519 key for every test of this file."""
    with short_directory() as data_dir, short_directory() as keys:
        sink, seen = Sink(), list[bytes]()

        async def see(_: str, content: bytes | None) -> None:
            if content is not None:
                seen.append(content)

        sink.witness = see
        async with (
            sink.listening(),
            outrider(
                data_dir,
                next_port,
                inject__dkim="resign",
                inject__dkim_keys=",".join(kept(key, keys) for key in both()),
                relay__upstream=f"smtp://127.0.0.1:{sink.port}?starttls=off",
                relay__retry_first="0.1",
            ) as target,
        ):
            keyring = Keyring([(data_dir / "signing.key").read_bytes().strip()])
            yield Scene(target=target, sink=sink, keyring=keyring, seen=seen)


async def test_a_signed_newsletter_is_tracked_and_verifies(scene: Scene) -> None:
    """Links wrapped, pixel in, unsubscribe offered and covered; our signatures on top, the dead one gone."""
    plain = mail("news.1@mailer.example.com")
    submitted, mailers = signed_by_the_mailer(plain)
    key, left = await scene.through(submitted)

    assert fields(left)[:3] == [b"DKIM-Signature", b"DKIM-Signature", b"Received"]
    assert fields(left).count(b"DKIM-Signature") == 2
    for ours in both():
        assert dkim.verifies(left, ours.key.public_key())
    assert not dkim.verifies(left, mailers)

    found = tracked(left)
    assert found.message_id == f"{key}@{DOMAIN}"
    assert (len(found.links), found.unsubscribe.startswith(f"{scene.public_url}/unsubscribe/")) == (1, True)
    undone = undo(without_signatures(left), plain, keyring=scene.keyring, public_url=scene.public_url)
    assert undone.content == plain
    shown = await asked(scene.target, f"/api/messages/{key}")
    assert shown["tracking"] == {"injected": True, "reason": None, "links": 1}


async def test_dkimpy_says_so_too_and_that_the_unsubscribe_is_covered(scene: Scene) -> None:
    """Both signatures hold; with another unsubscribe address, one more link or a second From, neither does."""
    submitted, _ = signed_by_the_mailer(mail("news.2@mailer.example.com"))
    _, left = await scene.through(submitted)
    changed = [
        left.replace(b"/unsubscribe/", b"/unsubscribf/"),
        left.replace(b"List-Unsubscribe=One-Click", b"List-Unsubscribe=Two-Clicks"),
        left.replace(b"</body>", b"<a href='https://example.net/'>more</a></body>"),
        left.replace(b"From: Shop", b"From: Bank <news@example.net>\r\nFrom: Shop"),
    ]
    assert all(one != left for one in changed)
    assert dkimpy.verdicts([left, *changed], RECORDS) == [[True, True], *([[False, False]] * len(changed))]


@pytest.mark.parametrize("name", ["windows_1251_base64", "koi8_r_quoted_printable", "newsletter_with_pdf_and_image"])
async def test_any_encoding_verifies(scene: Scene, name: str) -> None:
    """Cyrillic in base64 and quoted-printable, attachments: what is signed is what leaves."""
    submitted, _ = signed_by_the_mailer(kept_mail.kept(name))
    key, left = await scene.through(submitted)
    for ours in both():
        assert dkim.verifies(left, ours.key.public_key())
    assert dkimpy.verdicts([left], RECORDS) == [[True, True]]
    assert (await asked(scene.target, f"/api/messages/{key}"))["tracking"]["injected"]


async def test_a_foreign_signature_stays_and_holds(scene: Scene) -> None:
    """Of a domain whose key we do not hold: nothing but a Received line, as with `keep`; so too beside one of ours."""
    submitted, theirs = signed_by_the_mailer(mail("news.3@mailer.example.com"), domain="example.net")
    key, left = await scene.through(submitted)
    assert left.endswith(submitted)
    assert fields(left)[:2] == [b"Received", b"DKIM-Signature"]
    assert dkim.verifies(left, theirs)
    shown = await asked(scene.target, f"/api/messages/{key}")
    assert shown["message_id"] == "news.3@mailer.example.com"
    assert shown["tracking"] == {"injected": False, "reason": "dkim_signed", "links": 0}

    foreign, theirs = signed_by_the_mailer(mail("news.4@mailer.example.com"), domain="example.net")
    mixed, _ = signed_by_the_mailer(foreign)
    _, left = await scene.through(mixed)
    assert left.endswith(mixed)
    assert dkim.verifies(left.replace(mixed, foreign), theirs)


async def test_mail_that_nobody_signed_is_not_signed(scene: Scene) -> None:
    """`resign` renews what was there; who signs nothing has an upstream that does."""
    _, left = await scene.through(mail("news.5@mailer.example.com"))
    assert b"DKIM-Signature" not in left
    assert tracked(left).links


async def test_a_queued_retry_leaves_with_the_same_bytes(scene: Scene) -> None:
    """Refused for now after its final dot, sent later from the queue: not one octet is another, the signature's too."""
    submitted, _ = signed_by_the_mailer(mail("news.6@mailer.example.com"))
    accept = scene.sink.dot
    answers = iter(["451 4.3.0 Later"])
    scene.sink.dot = lambda recipient: next(answers, "") or accept(recipient)
    before = len(scene.seen)
    with contextlib.ExitStack() as stack:
        stack.callback(setattr, scene.sink, "dot", accept)
        key = await accepted(scene.target.smtp, submitted, "bob@example.net")

        async def sent() -> bool:
            return bool((await asked(scene.target, f"/api/messages/{key}"))["status"] == "sent")

        await until(sent)
    first, second = scene.seen[before:]
    assert first == second
    for ours in both():
        assert dkim.verifies(second, ours.key.public_key())
