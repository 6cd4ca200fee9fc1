"""Every mail that is kept is rewritten as expected, and every other reader sees nothing else change.

No server runs here: the plan is rendered with the tokens of a real keyring, undone by `tests/splices.py`, and shown to
the independent readers of `tests/readers.py`.
"""

import html
import re
from collections.abc import Iterator
from functools import cache

import msgspec
import pytest

import injector
from injector import HeaderEdits, Options, Rendered
from injector.tokens import Keyring, Purpose
from tests.kept_mail import EXPECTED, index, kept, names
from tests.leaves import leaves, split, text_of
from tests.readers import SignedUrls, readers_agree
from tests.splices import undo

#: Where the links lead that `own_links_inside` holds.
BASE = "https://track.example.com"
KEYRING = Keyring([b"a key of thirty-two octets or so."])
KEY = b"0123456789abcdef"
EDITS = HeaderEdits(
    prepend=(b"Received: from mailer.example.com\r\n\tby relay.example.com;\r\n\tnow\r\n",),
    set_message_id=b"<aaaabbbbccccddddeeeeffff22@example.com>",
)

_ADDRESS = re.compile(r"[\w.%+-]+@((?:[\w-]+\.)+[A-Za-z]{2,})")
_HOST = re.compile(r"(?:https?|ftp)(?:\+notrack)?:/{1,2}(?:[^\s/?#@\"'<>\\]*@)?([^\s/?#@\"'<>()|\\;,]+)", re.IGNORECASE)
_EXAMPLE = re.compile(r"(?:[\w-]+\.)*example\.(?:com|net|org)(?::\d+)?")
#: Names of languages and vocabularies, which nobody visits; and the ranges that are for documentation.
_NOBODY = re.compile(
    r"www\.w3\.org|schemas\.microsoft\.com|schema\.org|192\.0\.2\.\d+|\[2001:db8:[0-9a-f:]*\](?::\d+)?"
)

every = pytest.mark.parametrize("name", names())


class KeyringMinter:
    """Spells the URLs of one recipient's message, signed."""

    def open(self) -> str:
        """Return the pixel's address."""
        return f"{BASE}/track/o/{KEYRING.mint(Purpose.OPEN, KEY)}"

    def click(self, link: int, url: str) -> str | None:
        """Return the tracked address of *url*."""
        return f"{BASE}/track/c/{KEYRING.mint(Purpose.CLICK, KEY, link, url)}"

    def unsubscribe(self) -> str:
        """Return the unsubscribe address."""
        return f"{BASE}/unsubscribe/{KEYRING.mint(Purpose.UNSUBSCRIBE, KEY)}"


def rewrite(content: bytes, options: Options, edits: HeaderEdits, *, campaign: bool) -> Rendered:
    """Parse, plan and render *content*."""
    return injector.plan(injector.parse(content), options, campaign=campaign).render(KeyringMinter(), edits)


@cache
def rewritten(name: str) -> Rendered:
    """Return what a kept mail becomes with the default settings."""
    return rewrite(kept(name), Options(public_url=BASE), EDITS, campaign=EXPECTED[name].campaign is not None)


class TestTheFolder:
    """Files, index and expectations are about the same mails, and nobody real is named in them."""

    def test_every_mail_stands_in_the_index_once_and_in_order(self) -> None:
        assert [name for name, _ in index()] == names()

    def test_every_mail_is_expected_to_become_something(self) -> None:
        assert list(EXPECTED) == names()

    def test_there_are_as_many_as_were_promised(self) -> None:
        assert len(names()) >= 64
        assert sum(len(kept(name)) for name in names()) <= 600_000

    @every
    def test_a_mail_travels_as_it_stands_in_its_file(self, name: str) -> None:
        content = kept(name)
        assert content.count(b"\n") == content.count(b"\r\n") == content.count(b"\r") > 0
        assert len(content) <= 30_720

    @every
    def test_addresses_and_hosts_are_examples(self, name: str) -> None:
        assert [host for host in _hosts(name) if not _is_example(host)] == []

    def test_hosts_were_looked_at_in_every_encoding(self) -> None:
        assert "shop.example.com" in set(_hosts("windows_1251_base64"))
        assert "shop.example.com" in set(_hosts("japanese_shift_jis"))
        assert "shop.example.com" in set(_hosts("utf_16_base64"))
        assert not _is_example("shop.example.co")


def _hosts(name: str) -> Iterator[str]:
    header = kept(name)
    texts = []
    for leaf in leaves(header):
        try:
            texts.append(html.unescape(text_of(leaf)))
        except (ValueError, LookupError):
            # Damaged, or in a charset that nobody knows, on purpose.
            texts.append(leaf.raw.decode("latin-1"))
        header = header.replace(leaf.raw, b"") if leaf.raw else header
    for text in (header.decode("utf-8", "replace"), *texts):
        for host in (*_ADDRESS.findall(text), *_HOST.findall(text)):
            yield str(host).lower()


def _is_example(host: str) -> bool:
    return bool(_EXAMPLE.fullmatch(host) or _NOBODY.fullmatch(host))


class TestWhatBecomesOfThem:
    """What leaves is what the documentation says, and undoing it gives back what came."""

    @every
    def test_it_becomes_what_is_expected(self, name: str) -> None:
        expected, result = EXPECTED[name], rewritten(name)
        assert (result.links, result.reason) == (expected.links, expected.reason)
        assert result.injected is expected.injected

    @every
    def test_undoing_the_documented_changes_gives_back_what_came(self, name: str) -> None:
        content, expected = kept(name), EXPECTED[name]
        undone = undo(rewritten(name).content, content, keyring=KEYRING, public_url=BASE)
        assert undone.content == content
        assert (len(undone.links), undone.pixels) == (expected.links, int(expected.pixel))
        assert undone.excepted == expected.excepted
        assert undone.removed == tuple(name.encode() for name in expected.removed)
        assert (undone.stamped is None) is expected.keeps_id
        assert (undone.unsubscribe is not None) is expected.unsubscribe

    @every
    def test_every_reader_sees_the_same_mail_but_for_what_is_ours(self, name: str) -> None:
        content, expected = kept(name), EXPECTED[name]
        seen = readers_agree(content, rewritten(name).content, SignedUrls(KEYRING, BASE))
        assert (len(seen.links), seen.pixels) == (expected.links, int(expected.pixel))
        assert seen.excepted == expected.excepted

    @every
    def test_h32_rewriting_what_was_rewritten_changes_nothing(self, name: str) -> None:
        """But for links whose sender excepted them, because the mark that said so was taken out the first time."""
        expected, once = EXPECTED[name], rewritten(name).content
        options = Options(public_url=BASE, opens=expected.pixel, clicks=expected.links > 0)
        again = rewrite(once, options, HeaderEdits(), campaign=expected.campaign is not None)
        assert again.links == expected.excepted
        assert expected.excepted or again.content == once

    @every
    def test_a_mail_with_a_reason_keeps_its_body(self, name: str) -> None:
        same = split(rewritten(name).content)[1] == split(kept(name))[1]
        # Of a mail without an empty line, the header that was put before it is all there is.
        assert same is (not EXPECTED[name].injected)


def test_expectations_are_read_strictly() -> None:
    """A field that nobody knows is a mistake in the file, and not a fact."""
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({"link": 1}, type(EXPECTED["amp"]))
