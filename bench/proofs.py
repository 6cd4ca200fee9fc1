"""Prove that what was measured is right: a fast rewriter that loses a link is no rewriter.

Each function returns a question for the harness, which is answered with what is wrong, or with None.
"""

import email
import email.policy
import re
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from hashlib import sha256
from typing import NamedTuple

from bs4 import BeautifulSoup
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from cryptography.hazmat.primitives.hashes import SHA256

import injector
from injector.encodings import BY_PLACE, Edit, splice, undo
from injector.tokens import Claim, Keyring, Purpose, TokenError

Run = Callable[[], object]
Flaw = Callable[[object], str | None]


class Step(NamedTuple):
    """A page before and after its links were replaced, and the edits that did it."""

    before: bytes
    after: bytes
    edits: list[Edit]


def undone(result: object) -> str | None:
    """Return what is wrong with a step: its edits taken back must give the page."""
    if not isinstance(result, Step):
        return "no step"
    return None if undo(result.after, result.before, result.edits) == result.before else "undo does not give the input"


def wrapped(links: int, url: str) -> Flaw:
    """Ask whether a step put *url* into *links* places, and its edits undo."""

    def flaw(result: object) -> str | None:
        wrong = undone(result)
        if wrong is None and isinstance(result, Step):
            found = result.after.count(url.encode())
            wrong = None if found == links else f"{found} links, not {links}"
        return wrong

    return flaw


def replaced(links: int, url: str) -> Flaw:
    """Ask whether a page holds *url* in *links* places."""

    def flaw(result: object) -> str | None:
        found = result.count(url.encode()) if isinstance(result, bytes) else 0
        return None if found == links else f"{found} links, not {links}"

    return flaw


def same(content: bytes) -> Flaw:
    """Ask whether a result is *content*."""
    return lambda result: None if result == content else "not what came in"


def rendered(plan: injector.Plan, minter: injector.Minter, edits: injector.HeaderEdits) -> Flaw:
    """Ask whether a message undoes to what came in, and leads, as other libraries read it, where its plan says."""
    content = plan.mail.content
    body, hrefs = plan.body_splices(minter)
    splices = sorted([*plan.header_splices(minter, edits), *body], key=BY_PLACE)
    wanted = {minter.click(link.number, link.url) for link in plan.links}

    def flaw(result: object) -> str | None:
        if not isinstance(result, injector.Rendered) or not result.injected or result.links != hrefs:
            return "not injected"
        if result.content != splice(content, splices) or undo(result.content, content, splices) != content:
            return "undo does not give the input"
        return None if wanted and wanted == _read(result.content, minter.open()) else "not the links of the plan"

    return flaw


def _read(content: bytes, pixel: str) -> set[str | None]:
    """Return where the web links of a message lead; nothing if its pixel is not there, once."""
    part = email.message_from_bytes(content, policy=email.policy.default).get_body(("html",))
    soup = BeautifulSoup("" if part is None else part.get_content(), "html.parser")
    if len(soup.find_all("img", src=pixel)) != 1:
        return set()
    return {href for tag in soup.find_all("a") if (href := str(tag["href"])).startswith("https:")}


def body_kept(content: bytes) -> Flaw:
    """Ask whether a message nothing was put into ends as *content* does, and one with links has all octets of it."""

    def flaw(result: object) -> str | None:
        if not isinstance(result, injector.Rendered):
            return "not rendered"
        if result.injected:
            return None if len(result.content) > len(content) else "octets are lost"
        return None if result.content.endswith(content[-1_000:]) else "the body is not what came in"

    return flaw


def signed(content: bytes, key: RSAPrivateKey | Ed25519PrivateKey) -> Flaw:
    """Ask whether a result is *content* under one DKIM signature of *key*, relaxed/relaxed (RFC 6376 3.7)."""
    head, _, body = content.partition(b"\r\n\r\n")
    lines = [re.sub(rb"[ \t]+", b" ", line).rstrip(b" ") for line in body.split(b"\r\n")]
    digest = b64encode(sha256(b"\r\n".join(lines).rstrip(b"\r\n") + b"\r\n").digest())
    fields = [_relaxed(field) for field in re.split(rb"\r\n(?![ \t])", head)]

    def flaw(result: object) -> str | None:
        if not isinstance(result, bytes) or not result.endswith(content):
            return "not the message under a signature"
        signature = _relaxed(result[: -len(content) - 2])
        tags = dict(re.findall(rb"([a-z]+)=([^;]*)", signature))
        if tags[b"bh"].strip() != digest:
            return "not the digest of the body"
        covered = b"".join(_taken(fields, tags[b"h"].split(b":")))
        signer = partial(key.public_key().verify, b64decode(tags[b"b"]))
        unsigned = sha256(covered + re.sub(rb"(?<=; b=).*", b"", signature)).digest()
        try:
            if isinstance(key, RSAPrivateKey):
                signer(unsigned, PKCS1v15(), Prehashed(SHA256()))
            else:
                signer(unsigned)
        except InvalidSignature:
            return "the signature does not verify"
        return None

    return flaw


def _taken(fields: Sequence[bytes], names: Iterable[bytes]) -> Iterator[bytes]:
    """Yield what *names* mean: the last field of each name that was not taken yet (RFC 6376 5.4.2)."""
    left = list(fields)
    for name in names:
        at = next((at for at in reversed(range(len(left))) if left[at].startswith(name.strip().lower() + b":")), None)
        if at is not None:
            yield left.pop(at) + b"\r\n"


def _relaxed(field: bytes) -> bytes:
    name, _, value = field.partition(b":")
    return name.strip().lower() + b":" + re.sub(rb"[ \t]+", b" ", value.replace(b"\r\n", b"")).strip(b" ")


def claimed(keyring: Keyring, key: bytes, urls: Sequence[str]) -> Flaw:
    """Ask whether addresses carry tokens for *urls*, one open and one unsubscribe."""
    purposes = [*(Purpose.CLICK for _ in urls), Purpose.OPEN, Purpose.UNSUBSCRIBE]
    claims = [Claim(key=key, link=number, url=url) for number, url in enumerate(urls)]
    nothing = Claim(key=key, link=-1, url="")

    def flaw(result: object) -> str | None:
        tokens = [str(address).rpartition("/")[2] for address in result] if isinstance(result, list) else []
        try:
            found = [keyring.verify(purpose, token) for purpose, token in zip(purposes, tokens, strict=True)]
        except (TokenError, ValueError) as error:
            return type(error).__name__
        return None if found == [*claims, nothing, nothing] else "not the tokens of these links"

    return flaw
