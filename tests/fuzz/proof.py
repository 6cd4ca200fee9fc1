"""What must hold for one message, whatever stands in it: the judge of the fuzzer and of the property tests.

It is given what came in and what would leave, and shares no code with what made the one from the other.
"""

import binascii
import re
from collections.abc import Iterable
from typing import Final

import injector
from injector import HeaderEdits, Mail, Options, Plan, Rendered
from injector.encodings import Edit
from tests.leaves import destination_of
from tests.page_tokens import Tag, Text, Token, browser_tokens
from tests.readers import OPT_OUTS

PUBLIC: Final = "https://t.example.com"
STAMP: Final = b"<aaaabbbbccccddddeeeeffff22@example.com>"
RECEIVED: Final = b"Received: from a\r\n\tby b; now\r\n"
EDITS: Final = HeaderEdits(prepend=(RECEIVED,), set_message_id=STAMP, remove=("X-Id-Mail",))

MAX_LINE: Final = 998
QP_LINE: Final = 76
_OURS: Final = re.compile(rf'"{re.escape(PUBLIC)}/track/c/[^"]*"')
_HREFS: Final = frozenset({"href", "xlink:href"})
_HEADER_SPARE: Final = 10


class SpellingMinter:
    """Spells each destination in its URL, so that a reader can tell where it leads."""

    def open(self) -> str:
        """Return the pixel's address."""
        return f"{PUBLIC}/track/o/pixel"

    def click(self, link: int, url: str) -> str:
        """Return an address that holds *url*."""
        return f"{PUBLIC}/track/c/{link}.{url.encode('utf-8', 'surrogatepass').hex()}"

    def unsubscribe(self) -> str:
        """Return the unsubscribe address."""
        return f"{PUBLIC}/unsubscribe/one"

    def destination(self, url: str) -> str | None:
        """Return where one of these addresses leads; None for any other URL."""
        start = f"{PUBLIC}/track/c/"
        if not url.startswith(start):
            return None
        try:
            return bytes.fromhex(url.removeprefix(start).partition(".")[2]).decode("utf-8", "surrogatepass")
        except ValueError:
            return None

    def is_pixel(self, url: str) -> bool:
        """Tell whether this is the address of the pixel."""
        return url == self.open()


MINTER: Final = SpellingMinter()


def rewritten(content: bytes, options: Options, edits: HeaderEdits = EDITS) -> tuple[Plan, Rendered]:
    """Parse, plan and render *content*; an error that the injector kept to itself is one here."""
    mail = injector.parse(content)
    assert mail.reason != "rewrite_failed", "parse() met an error of its own"
    plan = injector.plan(mail, options, campaign=True)
    assert plan.reason != "rewrite_failed", "plan() met an error of its own"
    result = plan.render(MINTER, edits)
    if result.reason == "rewrite_failed":
        plan._render(MINTER, edits)  # so that its error is seen
        raise AssertionError("render() met an error of its own")
    return plan, result


def check(content: bytes, options: Options) -> Rendered:
    """Return what leaves for *content*, after everything that must hold for it was looked at."""
    plan, result = rewritten(content, options)
    body, wrapped = plan.body_splices(MINTER)
    assert (result.links, result.injected) == (wrapped, bool(wrapped) or plan.pixel_part is not None)
    differs_only_there(content, result.content, [*plan.header_splices(MINTER, EDITS), *body])
    assert plan.render(MINTER, EDITS) == result, "the same input gave other octets"
    if plan.mail.reason is None and plan.mail.separated:
        after = injector.parse(result.content)
        same_tree(plan.mail, after)
        legal_lines(plan.mail, after)
        if not body:
            assert result.content[after.body_start :] == content[plan.mail.body_start :]
        rewriting_twice_is_once(plan, after)
    return result


def differs_only_there(content: bytes, result: bytes, splices: Iterable[Edit]) -> None:
    """Assert that *result* is *content* with *splices*, and that they are apart and in order."""
    at = place = 0
    for start, end, new in sorted(splices, key=lambda edit: edit[:2]):
        assert at <= start <= end <= len(content), "splices overlap, or lie outside"
        there = place + start - at
        assert result[place:there] == content[at:start], "an octet changed that nobody meant to change"
        assert result[there : there + len(new)] == new
        at, place = end, there + len(new)
    assert result[place:] == content[at:], "an octet changed that nobody meant to change"


def same_tree(before: Mail, after: Mail) -> None:
    """Assert that the parts are the same ones, of the same kinds, and judged the same."""
    if before.content.count(b"\r\n", 0, before.body_start) > 1_000 - _HEADER_SPARE:
        return  # with our lines it may be over the limit of a header
    if before.body_start > 256 * 1024 - 4_096:
        return
    assert (after.reason, after.kind) == (before.reason, before.kind)
    assert [(part.path, part.kind, part.parameters, part.enclosing, part.reason) for part in after.leaves] == [
        (part.path, part.kind, part.parameters, part.enclosing, part.reason) for part in before.leaves
    ]


def legal_lines(before: Mail, after: Mail) -> None:
    """Assert that no part has a longer line, or an octet over 127, than its encoding and its input allow."""
    for was, became in zip(before.leaves, after.leaves, strict=True):
        old = before.content[was.body_start : was.body_end]
        new = after.content[became.body_start : became.body_end]
        if new == old:
            assert became.encoding in {was.encoding, "quoted-printable"}
            continue
        lines = new.split(b"\r\n")
        assert max(map(len, lines)) <= MAX_LINE, "a touched part has a line that no server has to take"
        assert new.isascii() or not old.isascii(), "an octet over 127 appeared"
        assert b"\r" not in b"".join(lines)
        assert b"\n" not in b"".join(lines)
        if became.encoding == "quoted-printable":
            theirs = frozenset(old.split(b"\r\n")) if was.encoding == "quoted-printable" else frozenset()
            assert all(len(line) <= QP_LINE or line in theirs for line in lines), "a folded line is over 76 octets"
        if became.encoding != was.encoding:
            assert became.encoding == "quoted-printable"
            meant = binascii.a2b_qp(new).split(b"\r\n")
            assert max(map(len, old.split(b"\r\n") + meant)) > MAX_LINE, "folded without need"


def rewriting_twice_is_once(plan: Plan, after: Mail) -> None:
    """Assert that a message that passes again gets nothing more; what its sender excepted has lost its mark by then."""
    if plan.mail.headers.count("x-outrider-track") or any(
        found.reason in {"opt_out", "notrack"} for leaf in plan.leaves for found in leaf.found
    ):
        return
    second = injector.plan(after, plan.options, campaign=True)
    if plan.keeps_message_id and not second.keeps_message_id:
        return
    splices, wrapped = second.body_splices(MINTER)
    assert not wrapped, "a link was wrapped again"
    assert not splices, "a message that passes twice was changed again"


def a_browser_agrees(before: str, after: str) -> None:
    """Assert that for a browser's parser nothing differs but hrefs, each leading where it led, whatever the page is.

    `tests.readers` is stricter and knows what a sound page looks like; this one takes any soup of tags.
    """
    came, gone = browser_tokens(before), browser_tokens(after)
    for was, became in zip(came, gone, strict=True):
        if was != became:
            _only_links_differ(was, became)


def _only_links_differ(was: Token, became: Token) -> None:
    if isinstance(was, Text) and isinstance(became, Text):
        # Outlook reads what stands in a comment; beside our links nothing stands there that did not before.
        assert (was.kind, became.kind) == ("comment", "comment"), (was, became)
        letters = iter(was.text)
        assert all(letter in letters for letter in _OURS.sub("", became.text)), (was, became)
        return
    assert isinstance(was, Tag), (was, became)
    assert isinstance(became, Tag), (was, became)
    assert was.name == became.name
    # Of two marks of one name the second comes to life when the first one goes.
    before, after = (
        {name: value or "" for name, value in tag.attributes.items() if name not in OPT_OUTS} for tag in (was, became)
    )
    assert list(before) == list(after), (was, became)
    for name, value in after.items():
        if value != before[name]:
            assert name in _HREFS, (was, became)
            _leads_there(before[name], value)


def _leads_there(written: str, wrapped: str) -> None:
    destination = MINTER.destination(wrapped)
    if destination is None:
        assert written.replace("+notrack", "", 1) == wrapped, (written, wrapped)
    else:
        assert destination == destination_of(written, "utf-8"), (written, wrapped)
