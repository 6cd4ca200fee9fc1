"""Promise 9, the URL's part: nobody can read an address, a name or a campaign from a URL of ours, or from a log."""

import base64
import codecs
import hashlib
import logging
from collections.abc import Iterator
from urllib.parse import quote

import pytest
from structlog.testing import capture_logs

from injector.tokens import Keyring, Purpose
from tests.tracker_support import KEY, SECRET, Kept, tracking

ADDRESS = "ann.person@example.com"
NAME = "Ann Person"
CAMPAIGN = "spring-campaign-4711"
LINK = f"https://shop.example.com/{CAMPAIGN}?email={ADDRESS}&name={quote(NAME)}"


def disguises(secret: str) -> Iterator[bytes]:
    """Yield every common way to write *secret*, each long enough not to occur by chance."""
    raw = secret.encode()
    for spelled in (raw, raw.upper(), quote(secret, safe="").encode(), codecs.encode(secret, "rot13").encode()):
        yield spelled
        yield spelled[::-1]
        yield spelled.hex().encode()
        for offset in range(3):
            # Without the characters at both ends, which depend on the neighbours.
            for encode in (base64.b64encode, base64.urlsafe_b64encode):
                yield encode(b"\0" * offset + spelled).rstrip(b"=")[4 if offset else 0 : -1]
    for digest in ("md5", "sha1", "sha256"):
        for text in (raw, raw.lower()):
            hashed = hashlib.new(digest, text, usedforsecurity=False)
            yield hashed.hexdigest().encode()
            yield hashed.digest()
            yield base64.urlsafe_b64encode(hashed.digest()).rstrip(b"=")[:-1]


def everything_in(path: str) -> bytes:
    """Return a URL's text and all that base64 hides in it, at every offset."""
    token = path.rpartition("/")[2]
    parts = [path.encode()]
    for text in (token, *token.split(".")):
        for offset in range(4):
            shifted = text.replace(".", "")[offset:]
            parts.append(base64.urlsafe_b64decode(shifted[: len(shifted) // 4 * 4]))
    return b"\n".join(parts)


@pytest.mark.parametrize("purpose", Purpose)
@pytest.mark.parametrize("secret", [ADDRESS, NAME, CAMPAIGN, "shop.example.com"])
def test_no_url_of_ours_gives_it_away(purpose: Purpose, secret: str) -> None:
    """Also where the mailer's own link held it: the payload is encrypted."""
    token = Keyring([SECRET]).mint(purpose, KEY, 3, LINK)
    content = everything_in(f"https://track.example.com/track/{token}")
    for disguise in disguises(secret):
        assert disguise not in content
        assert disguise.lower() not in content.lower()


def test_the_search_finds_what_is_not_hidden() -> None:
    """A token that only signs would be found out: the test above can fail."""
    signed_only = base64.urlsafe_b64encode(b"k" * 16 + LINK.encode()).rstrip(b"=").decode() + "." + "A" * 43
    content = everything_in(f"https://track.example.com/track/{signed_only}")
    assert any(disguise in content for disguise in disguises(ADDRESS))


async def test_no_answer_or_log_gives_it_away(caplog: pytest.LogCaptureFixture) -> None:
    """A run with good, bad and failing requests writes nothing personal, and only Location holds the link."""
    kept = Kept()
    with caplog.at_level(logging.DEBUG), capture_logs() as events:
        async with tracking(kept) as tracker:
            answers = []
            for broken in (False, True):
                kept.broken = broken
                for purpose in Purpose:
                    path = tracker.path(purpose, LINK, 3)
                    headers = {"Cookie": f"who={ADDRESS}", "Referer": f"https://mail.example.net/?{ADDRESS}"}
                    answers += [
                        await tracker.ask(path, headers=headers),
                        await tracker.ask(f"{path}?email={ADDRESS}"),
                        await tracker.ask(f"{path}{ADDRESS}"),
                        await tracker.ask(path, "POST", body=b"List-Unsubscribe=One-Click"),
                    ]
    said = (caplog.text + repr(events)).encode()
    shown = b"\n".join(
        answer.body + repr({name: value for name, value in answer.headers.items() if name != "location"}).encode()
        for answer in answers
    )
    for disguise in disguises(ADDRESS):
        assert disguise not in said
        assert disguise not in shown
    tokens = {tracker.path(purpose, LINK, 3).rpartition("/")[2].encode() for purpose in Purpose}
    assert not any(token in said or token in shown for token in tokens)
