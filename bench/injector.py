"""Measure the injector: its HTML step, whole messages, and mail made to stall it, against what everybody uses.

The baseline is BeautifulSoup, parsing and writing out the same page with the same links replaced. A bar in microseconds
was set on one machine; here it is the same share of the baseline, measured beside it.
"""

import email
import email.policy
from collections.abc import Iterator
from functools import partial
from itertools import cycle
from time import process_time_ns
from typing import Final

from bs4 import BeautifulSoup
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa

import injector
from bench import mails, proofs
from bench.harness import Bar, Case
from bench.proofs import Step
from bench.report import Found, of_cases
from bench.stage import Stage
from injector.dkim import SigningKey, sign
from injector.encodings import splice
from injector.find import Judgement, scan_leaves
from injector.leaf import Leaf, open_leaf
from injector.tokens import Keyring
from relay.inject import UrlMinter

_BASE: Final = "https://track.example.com"
_OPTIONS: Final = injector.Options(public_url=_BASE)
_KEYRING: Final = Keyring([b"a bench's key signs nothing else"])
_KEY: Final = bytes(range(16))
_EDITS: Final = injector.HeaderEdits(
    prepend=(b"Received: from mailer.example.com by relay.example.com;\r\n\tSat, 21 Nov 2026 08:00:01 +0000\r\n",),
    set_message_id=b"<aaaabbbbccccddddeeeeffffgg@example.com>",
    remove=("Bcc", "Resent-Bcc"),
)
# The policy that does least: it changes nothing of what it read.
_POLICY: Final = email.policy.compat32.clone(linesep="\r\n")
_ENCODINGS: Final = ("quoted-printable", "base64", "8bit")
#: As long as the address of a link of ours is.
_TRACKED: Final = f"{_BASE}/track/c/{'x' * 240}"
_QUOTED: Final = f'"{_TRACKED}"'.encode()
_PIXEL: Final = f'<img src="{_BASE}/track/o/x" width="1" height="1" alt="">'.encode()

_LINKS: Final = 16
_MANY_LINKS: Final = 67
#: More mails than the injector remembers links of, so that each link is new to it; and others for whole messages.
_VARIANTS: Final = range(1_000, 1_160)
_OTHER_VARIANTS: Final = range(2_000, 2_600)
#: Mails of one campaign, and how many of them come before any is measured.
_READERS: Final = range(600)
_FIRST_MAILS: Final = 8
#: The size of hostile mail, which is also measured at half of it.
MEGABYTE: Final = 1_000_000

#: What the baseline took where the bars in microseconds were set.
_YARDSTICK_US: Final = 5_267.0
_HTML_BAR: Final = Bar(ratio=1 / 40)
_MESSAGE_BAR: Final = Bar(ratio=300 / _YARDSTICK_US)
_SIGN_BAR: Final = Bar(cpu_us=500)
# Twice the octets may take twice the time; the rest is the machine's noise. Quadratic is four times.
_HOSTILE_BAR: Final = Bar(ratio=2.5, cpu_us=200_000)
_HOSTILE_ROUNDS: Final = 3

#: A case takes about 30 ms in a round.
_ROUNDS: Final = 9
_PACE_CALLS: Final = 5

_SOUP: Final = "html 20 KB: BeautifulSoup"
_SOUP_LARGE: Final = "html 98 KB: BeautifulSoup"
_MESSAGE: Final = "message: quoted-printable"


class ConstantMinter:
    """Answers at once: what is left is the injector's own work."""

    def open(self) -> str:
        """Return the pixel's address."""
        return f"{_BASE}/track/o/{'x' * 89}"

    def click(self, link: int, url: str) -> str | None:  # noqa: ARG002 - the protocol's arguments
        """Return an address as long as a real one."""
        return _TRACKED

    def unsubscribe(self) -> str:
        """Return the unsubscribe address."""
        return f"{_BASE}/unsubscribe/{'x' * 89}"


async def bench(stage: Stage) -> Found:
    """Measure the injector in this process; it needs no server."""
    return of_cases(cases(), rounds=stage.rounds or _ROUNDS)


def pace() -> float:
    """Return how much slower this machine is now than the one that bars in microseconds were set on; 1: not at all."""
    page = mails.newsletter()
    started = process_time_ns()
    for _ in range(_PACE_CALLS):
        _soup(page)
    return max(1.0, (process_time_ns() - started) / 1_000 / _PACE_CALLS / _YARDSTICK_US)


def cases() -> list[Case]:
    """Return what is measured, baselines first."""
    return [*_html_cases(), *_message_cases(), *_signing_cases(), *_hostile_cases()]


def _html_cases() -> Iterator[Case]:
    page, large = mails.newsletter(), mails.newsletter(links=_MANY_LINKS, octets=98_000)
    new = cycle([_leaf(mails.newsletter(variant=number)) for number in _VARIANTS])
    few, many = (proofs.replaced(links, _TRACKED) for links in (_LINKS, _MANY_LINKS))
    yield Case(name=_SOUP, run=partial(_soup, page), flaw=few, yardstick_us=_YARDSTICK_US)
    few, more = (proofs.wrapped(links + mails.OUTLOOK_LINKS, _TRACKED) for links in (_LINKS, _MANY_LINKS))
    yield _html_case("html 20 KB", partial(_html_step, _leaf(page)), few, _SOUP)
    yield _html_case("html 20 KB, each link new", lambda: _html_step(next(new)), few, _SOUP)
    yield Case(name=_SOUP_LARGE, run=partial(_soup, large), flaw=many)
    yield _html_case("html 98 KB", partial(_html_step, _leaf(large)), more, _SOUP_LARGE)


def _html_case(name: str, run: proofs.Run, flaw: proofs.Flaw, baseline: str) -> Case:
    return Case(name=name, run=run, flaw=flaw, baseline=baseline, bar=_HTML_BAR)


def _message_cases() -> Iterator[Case]:
    real = UrlMinter(_KEYRING, _BASE, _KEY)
    content = mails.message(mails.personal(mails.newsletter(), 0), "quoted-printable")
    yield Case(
        name="message: email, read and written", run=partial(_email, content), flaw=proofs.same(content), baseline=_SOUP
    )
    for encoding in _ENCODINGS:
        campaign = [mails.message(mails.personal(mails.newsletter(), number), encoding) for number in _READERS]
        yield _message_case(f"message: {encoding}", campaign, real)
        if encoding == "quoted-printable":
            yield _message_case(f"message: {encoding}, no tokens", campaign, ConstantMinter())
        yield _message_case(f"message: {encoding}, not recognised", campaign, real, recalls=False)
        plan = _plan(campaign[0])
        yield Case(
            name=f"message: {encoding}, next recipient",
            run=partial(plan.render, real, _EDITS),
            flaw=proofs.rendered(plan, real, _EDITS),
            baseline=_SOUP,
            bar=_MESSAGE_BAR,
        )
    new = [mails.message(mails.newsletter(variant=number), "quoted-printable") for number in _OTHER_VARIANTS]
    yield _message_case("message: quoted-printable, each link new", new, real)
    urls = [link.url for link in plan.links]
    yield Case(
        name=f"message: its {len(urls) + 2} tokens",
        run=partial(_tokens, real, urls),
        flaw=proofs.claimed(_KEYRING, _KEY, urls),
        baseline=_MESSAGE,
    )


def _message_case(name: str, contents: list[bytes], minter: injector.Minter, *, recalls: bool = True) -> Case:
    for content in contents[:_FIRST_MAILS]:
        _plan(content, recalls=recalls)
    turn = cycle(contents)
    return Case(
        name=name,
        run=lambda: _plan(next(turn), recalls=recalls).render(minter, _EDITS),
        # The first call, whose result is looked at, takes the first of them.
        flaw=proofs.rendered(_plan(contents[0], recalls=recalls), minter, _EDITS),
        baseline=_SOUP,
        bar=_MESSAGE_BAR,
    )


def _signing_cases() -> Iterator[Case]:
    content = _whole(mails.message(mails.newsletter(), "quoted-printable"), ConstantMinter()).content
    keys: dict[str, rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey] = {
        "RSA-2048": rsa.generate_private_key(public_exponent=65537, key_size=2048),
        "Ed25519": ed25519.Ed25519PrivateKey.generate(),
    }
    for name, key in keys.items():
        signing = SigningKey(selector="bench", domain="example.com", key=key)
        yield Case(
            name=f"dkim: {name}",
            run=partial(sign, content, (signing,)),
            flaw=proofs.signed(content, key),
            baseline=_SOUP,
            bar=_SIGN_BAR,
        )


def _hostile_cases() -> Iterator[Case]:
    for unit in mails.HOSTILE:
        leaves = [_leaf(mails.hostile_page(unit, octets)) for octets in (MEGABYTE // 2, MEGABYTE)]
        name = f"hostile html: {unit.decode()}"
        yield from _growing(name, [(partial(_html_step, leaf), proofs.undone) for leaf in leaves])
    minter = ConstantMinter()
    for name in mails.HOSTILE_MESSAGES:
        contents = [mails.hostile_message(name, octets) for octets in (MEGABYTE // 2, MEGABYTE)]
        yield from _growing(
            f"hostile message: {name}",
            [(partial(_whole, each, minter), proofs.body_kept(each)) for each in contents],
        )


def _growing(name: str, sizes: list[tuple[proofs.Run, proofs.Flaw]]) -> Iterator[Case]:
    """Yield the case of half a megabyte, and that of a whole one, whose baseline it is."""
    (half, half_flaw), (whole, whole_flaw) = sizes
    small = f"{name} 0.5 MB"
    yield Case(name=small, run=half, flaw=half_flaw, most_rounds=_HOSTILE_ROUNDS)
    yield Case(
        name=f"{name} 1 MB",
        run=whole,
        flaw=whole_flaw,
        baseline=small,
        bar=_HOSTILE_BAR,
        most_rounds=_HOSTILE_ROUNDS,
    )


def _soup(page: bytes) -> bytes:
    soup = BeautifulSoup(page.decode(), "html.parser")
    for tag in soup.find_all("a", href=True):
        if str(tag["href"]).startswith("https:"):
            tag["href"] = _TRACKED
    return str(soup).encode()


def _leaf(page: bytes) -> Leaf:
    content = b"MIME-Version: 1.0\r\nContent-Type: text/html; charset=utf-8\r\n\r\n" + page
    return open_leaf(content, injector.parse(content).leaves[0], None)


def _html_step(leaf: Leaf) -> Step:
    """Find and judge the links of a decoded page, and put other addresses and a pixel into it."""
    body = leaf.body or b""
    scanned = scan_leaves([leaf], Judgement(True, False, _OPTIONS.skip, _BASE), {})
    if scanned is None:
        return Step(body, body, [])
    [found] = scanned
    edits = [(start, end, _QUOTED if link >= 0 else new) for start, end, link, new in found.marks]
    if found.pixel_at >= 0:
        edits.append((found.pixel_at, found.pixel_at, _PIXEL))
        edits.sort()
    return Step(body, splice(body, edits), edits)


def _plan(content: bytes, *, recalls: bool = True) -> injector.Plan:
    return injector.plan(injector.parse(content), _OPTIONS, campaign=True, recalls=recalls)


def _whole(content: bytes, minter: injector.Minter) -> injector.Rendered:
    return _plan(content).render(minter, _EDITS)


def _email(content: bytes) -> bytes:
    return email.message_from_bytes(content, policy=_POLICY).as_bytes()


def _tokens(minter: UrlMinter, urls: list[str]) -> list[str]:
    clicks = [minter.click(number, url) or "" for number, url in enumerate(urls)]
    return [*clicks, minter.open(), minter.unsubscribe()]
