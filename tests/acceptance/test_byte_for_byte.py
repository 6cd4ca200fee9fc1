"""Promise 4: nothing changes in a message but what was meant to; undoing the changes gives back the input.

The corpus is submitted over SMTP and read where the capture upstream wrote it. `tests/splices.py` undoes what the
documentation names, and nothing else; what is left must be the submitted bytes.
"""

from collections.abc import AsyncIterator

import msgspec
import pytest
import pytest_asyncio
from cryptography.hazmat.primitives.asymmetric import rsa

from injector.tokens import Keyring
from tests import dkim
from tests.conftest import next_port
from tests.kept_mail import EXPECTED, kept, names
from tests.leaves import leaves, split
from tests.playing import accepted, asked, mail
from tests.running import Outrider, outrider, short_directory
from tests.splices import undo

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.xdist_group("byte_for_byte"),
    pytest.mark.timeout(180),
]

#: Its links stand in one mail of the corpus already; nobody is asked there.
PUBLIC_URL = "https://track.example.com"


class Scene(msgspec.Struct, frozen=True, kw_only=True):
    """An Outrider with the capture upstream."""

    target: Outrider
    keyring: Keyring

    async def through(self, submitted: bytes, recipient: str = "ann@example.net") -> tuple[str, bytes]:
        """Submit a message, and return its key and the bytes that left."""
        key = await accepted(self.target.smtp, submitted, recipient)
        return key, (self.target.data_dir / "capture" / f"{key}.eml").read_bytes()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def scene() -> AsyncIterator[Scene]:
    """Run an Outrider for every test of this file."""
    with short_directory() as data_dir:
        settings = {"inject__dkim": "keep", "tracker__public_url": PUBLIC_URL}
        async with outrider(data_dir, next_port, **settings) as target:
            keyring = Keyring([(data_dir / "signing.key").read_bytes().strip()])
            yield Scene(target=target, keyring=keyring)


@pytest.mark.parametrize("name", names())
async def test_undoing_the_documented_changes_gives_back_the_submitted_bytes(scene: Scene, name: str) -> None:
    """Received, Message-ID, List-Unsubscribe, hrefs and the pixel apart, what left is what came; and it says why."""
    submitted, expected = kept(name), EXPECTED[name]
    key, left = await scene.through(submitted)
    undone = undo(left, submitted, keyring=scene.keyring, public_url=PUBLIC_URL)
    assert undone.content == submitted
    shown = await asked(scene.target, f"/api/messages/{key}")
    if expected.keeps_id:
        assert undone.stamped is None
        assert f"Message-ID: <{shown['message_id']}>\r\n".encode() in submitted
    else:
        assert undone.stamped is not None
        assert shown["message_id"] == undone.stamped.decode()
        assert undone.stamped.startswith(f"{key}@".encode())
    assert shown["campaign_id"] == expected.campaign
    assert (undone.unsubscribe is not None) is expected.unsubscribe
    assert shown["tracking"] == {
        "injected": expected.injected,
        "reason": expected.reason,
        "links": expected.links,
    }
    assert (len(undone.links), undone.pixels) == (expected.links, int(expected.pixel))
    assert (undone.excepted, undone.removed) == (
        expected.excepted,
        tuple(field.encode() for field in expected.removed),
    )
    if not expected.injected:
        assert split(left)[1] == split(submitted)[1], "the body of an untouched mail is another"


@pytest.mark.parametrize("name", ["newsletter_with_pdf_and_image", "calendar_invitation", "forwarded_message"])
async def test_attachments_are_bit_identical(scene: Scene, name: str) -> None:
    """PDF, image, calendar, a page that is attached, a mail in the mail: encoded and decoded, octet by octet."""
    submitted = kept(name)
    _, left = await scene.through(submitted)
    before, after = leaves(submitted), leaves(left)
    assert [leaf.kind for leaf in before] == [leaf.kind for leaf in after]
    same = [came for came, gone in zip(before, after, strict=True) if came == gone]
    # Of each of these mails exactly one part is the page that the reader sees.
    assert len(same) == len(before) - 1


async def test_each_recipient_gets_the_same_but_for_what_is_his(scene: Scene) -> None:
    """Three people of one transaction: To and Cc as written, nobody's address in another's copy, all undo to one."""
    submitted = kept("windows_1251_base64")
    people = [f"same.{number}@example.org" for number in range(3)]
    submission = await accepted(scene.target.smtp, submitted, *people)
    listed = (await asked(scene.target, f"/api/messages?submission={submission}"))["messages"]
    assert sorted(message["recipient"] for message in listed) == people
    stamps = set()
    for message in listed:
        left = (scene.target.data_dir / "capture" / f"{message['key']}.eml").read_bytes()
        undone = undo(left, submitted, keyring=scene.keyring, public_url=PUBLIC_URL)
        assert undone.content == submitted
        assert not any(person.encode() in left for person in people)
        stamps.add(undone.stamped)
    assert len(stamps) == 3


async def test_control_headers_go_and_nothing_beside_them(scene: Scene) -> None:
    """Bcc and X-Outrider-Track are not for the recipient; their neighbours stay where they were."""
    secret = "Bcc: hidden@example.org,\r\n second@example.org\r\nX-Outrider-Track: clicks\r\nX-After: yes\r\n"
    submitted = mail("control.1@mailer.example.com", extra="X-Before: yes\r\n" + secret)
    _, left = await scene.through(submitted)
    assert b"hidden" not in left
    assert b"Track:" not in left
    undone = undo(left, submitted, keyring=scene.keyring, public_url=PUBLIC_URL)
    assert undone.content == submitted
    assert undone.removed == (b"bcc", b"x-outrider-track")
    assert (len(undone.links), undone.pixels) == (1, 0)


@pytest.mark.parametrize(
    ("value", "links", "pixels"), [("all", 1, 1), ("clicks", 1, 0), ("opens", 0, 1), ("none", 0, 0)]
)
async def test_a_message_says_what_is_tracked_in_it(scene: Scene, value: str, links: int, pixels: int) -> None:
    """X-Outrider-Track: one word of four, and everything else as it came."""
    line = f"X-Outrider-Track: {value}\r\n"
    submitted = mail(f"track.{value}@mailer.example.com", extra=line)
    key, left = await scene.through(submitted)
    undone = undo(left, submitted, keyring=scene.keyring, public_url=PUBLIC_URL)
    assert undone.content == submitted
    assert undone.removed == (b"x-outrider-track",)
    assert (len(undone.links), undone.pixels) == (links, pixels)
    reason = (await asked(scene.target, f"/api/messages/{key}"))["tracking"]["reason"]
    assert reason == (None if links or pixels else "tracking_off")


async def test_a_link_that_its_sender_excepted_loses_the_mark_and_nothing_else(scene: Scene) -> None:
    """`clicktracking=off`, `data-no-track` and `+notrack` are meant for us: they go, and the links stay."""
    marked = (
        b'<a href="https://example.com/1" clicktracking=off>1</a>'
        b"<a data-no-track class=\"x\" href='https://example.com/2'>2</a>"
        b'<a href="https+notrack://example.com/3">3</a>'
    )
    plain = marked.replace(b" clicktracking=off", b"").replace(b" data-no-track", b"").replace(b"+notrack", b"")
    submitted = mail("excepted.1@mailer.example.com", text="MARKED").replace(b"MARKED", marked)
    key, left = await scene.through(submitted)
    assert plain in left
    undone = undo(left, submitted, keyring=scene.keyring, public_url=PUBLIC_URL)
    assert undone.content == submitted
    assert (undone.links, undone.excepted) == (("https://example.com/?a=1&b=2",), 3)
    assert (await asked(scene.target, f"/api/messages/{key}"))["tracking"]["links"] == 1


SIGNED = ("From", "To", "Subject", "Date", "Message-ID", "MIME-Version", "Content-Type", "List-Unsubscribe", "From")


@pytest.mark.parametrize("how", ["simple", "relaxed"])
@pytest.mark.parametrize("name", ["windows_1251_base64", "newsletter_with_pdf_and_image", "koi8_r_quoted_printable"])
async def test_somebody_elses_dkim_signature_still_verifies(
    scene: Scene, name: str, how: dkim.Canonicalization
) -> None:
    """With INJECT__DKIM=keep a signed mail gets a Received line and nothing else; its own Message-ID is its alias."""
    private = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    own_id = f"dkim.{how}.{name}@mailer.example.com"
    head, body = split(kept(name))
    lines = [line for line in head.split(b"\r\n") if not line.lower().startswith(b"message-id")]
    unfolded = [line for line in lines if not line.startswith(b" <issue-11")]
    plain = b"\r\n".join([f"Message-ID: <{own_id}>".encode(), *unfolded]) + body
    submitted = dkim.sign(plain, private, how=how, names=SIGNED)
    public = private.public_key()
    assert dkim.verifies(submitted, public)
    assert not dkim.verifies(submitted.replace(b"Subject: ", b"Subject: Not "), public)
    assert not dkim.verifies(submitted[:-4] + b"!\r\n\r\n", public)

    key, left = await scene.through(submitted)
    assert dkim.verifies(left, public)
    assert left.endswith(submitted)
    received = left.removesuffix(submitted)
    assert received.startswith(b"Received: from ")
    assert received.count(b"\r\n") == received.count(b"\r\n\t") + 1
    shown = await asked(scene.target, f"/api/messages/{own_id}")
    assert (shown["key"], shown["message_id"]) == (key, own_id)
    assert shown["tracking"] == {"injected": False, "reason": "dkim_signed", "links": 0}
