"""What was recognised leaves just as if it had been read: every page here goes both ways, compared byte for byte."""

from collections.abc import Iterator
from unittest.mock import patch

import pytest
from hypothesis import given
from hypothesis import strategies as st

import injector
from injector import HeaderEdits, Options, Plan, Rendered, recall
from injector.charsets import Charset
from injector.find import Judgement
from injector.memory import Memory, Rules
from injector.piece import Piece
from tests.unit.injector.mails import STAMP, HexMinter, multipart, options, part, top

EDITS = HeaderEdits(set_message_id=STAMP)
ENCODINGS = ("quoted-printable", "8bit", "7bit", "base64", "")
CARD = """\
<table><tr><td style="font-family:Arial,sans-serif;font-size:14px;line-height:1.5;color:#333333">Words — and more</td>
<td><a href="https://shop.example.com/{0}?a=1&amp;b={0}" style="color:#fff">See {0}</a></td></tr></table>
"""
#: What a page may consist of. Much of it begins in one line and ends in another, or never.
SNIPPETS = (
    CARD.format(1),
    CARD.format(2),
    "<p>Dear {},</p>\n",
    '<p><a href="https://example.com/u/{}">Unsubscribe</a></p>\n',
    "<style>\n<a href='https://example.com/no'>\n{}\n</style>\n",
    "<!-- {}\n<a href='https://example.com/no'>\n-->\n",
    "<!--[if mso]>\n<v:roundrect href='https://example.com/mso'>{}\n</v:roundrect>\n<![endif]-->\n",
    "<!--[if !mso]><!-->\n<a href=https://example.com/others>{}</a>\n<!--<![endif]-->\n",
    "<svg>\n<a href='https://example.com/svg'>{}</a>\n<style>\n</style></svg>\n",
    "<svg><style>\n",
    "<script>\nif (a < b) '</script'\n<a href='https://example.com/no'>\n</script>\n",
    "<a title='\n<a href=https://example.com/no>\n{}' href='https://example.com/late'>\n",
    "<a href='https://example.com/{}'\n<a>\n",
    "<!--\n",
    "-->\n",
    "<textarea>\n",
    "</textarea>\n",
    "</body>\n",
    "<a href='https://example.com/x'\n  clicktracking='off'>{}</a>\n",
    "<a href='https+notrack://example.com/{}'>x</a>\n",
    "<a href='mailto:ann@example.com'>x</a><a href='https://example.com/amsweb.php?{}'>x</a>\n",
    "<a href='https://example.com/long?{}'>x</a>" * 3 + "\n",
    "<p>" + "long words in one line, " * 12 + "{}</p>\n",
    "<p>white space at the end {} \n",
    "<p>" + "x" * 1_100 + "</p>\n",
    "<img src='https://t.example.com/track/o/pixel'>\n",
    "-----BEGIN PGP MESSAGE-----\n",
    "\n\n",
    "<\n",
    "é—ü {}\n",
    "<![CDATA[ {} ]]>\n",
    "<?php {} ?>\n",
)
NAMES = st.text(st.sampled_from("abz Zé'<&=\""), max_size=12)


class Choosy(HexMinter):
    """Leaves a link alone now and then, as when its token would be too long."""

    def click(self, link: int, url: str) -> str | None:
        """Return no address for the second link."""
        return None if link == 1 else super().click(link, url)


@pytest.fixture(autouse=True)
def _a_fresh_memory() -> Iterator[None]:
    recall.forget()
    yield
    recall.forget()


def mail(page: str, encoding: str, charset: str = "utf-8", line_end: str = "\r\n") -> bytes:
    """Return *page* in a message that has a text beside it."""
    octets = page.replace("\n", line_end).encode(charset, "replace")
    text = part(b"https://shop.example.com/1\r\n", "text/plain", encoding=encoding)
    return top(multipart("alternative", text, part(octets, charset=charset, encoding=encoding)))


def page_of(page: str, encoding: str) -> bytes:
    """Return *page* as a whole message: nothing is added to its end."""
    return top(part(page.replace("\n", "\r\n").encode(), encoding=encoding))


def both(content: bytes, chosen: Options, minter: HexMinter, *, eight_bit: bool = True) -> tuple[Plan, Rendered]:
    """Return what is planned and rendered with what is remembered, having compared it with what is read."""
    parsed = injector.parse(content)
    known = injector.plan(parsed, chosen, campaign=True)
    read = injector.plan(parsed, chosen, campaign=True, recalls=False)
    assert (known.links, known.reason, known.pixel_part) == (read.links, read.reason, read.pixel_part)
    assert [leaf.found for leaf in known.leaves] == [leaf.found for leaf in read.leaves]
    rendered = known.render(minter, EDITS, eight_bit=eight_bit)
    assert rendered == read.render(minter, EDITS, eight_bit=eight_bit)
    return known, rendered


def recalled(plan: Plan) -> bool:
    """Tell whether the page was recognised."""
    return any(leaf.pieces for leaf in plan.leaves)


def known(content: bytes) -> bool:
    """Tell whether the page of *content* is recognised."""
    return recalled(both(content, options(), HexMinter())[0])


@given(
    snippets=st.lists(st.sampled_from(SNIPPETS), min_size=1, max_size=14),
    names=st.lists(st.tuples(NAMES, st.integers(0, 40)), min_size=3, max_size=4),
    encoding=st.sampled_from(ENCODINGS),
    charset=st.sampled_from(["utf-8", "windows-1251", "iso-2022-jp", "x-nobody"]),
    least=st.integers(1, 120),
    choosy=st.booleans(),
    eight_bit=st.booleans(),
    text_links=st.booleans(),
    line_feeds=st.booleans(),
    ragged=st.booleans(),
)
def test_mails_of_a_campaign_leave_as_if_each_was_read(
    snippets: list[str],
    names: list[tuple[str, int]],
    encoding: str,
    charset: str,
    least: int,
    *,
    choosy: bool,
    eight_bit: bool,
    text_links: bool,
    line_feeds: bool,
    ragged: bool,
) -> None:
    """Whatever a page holds, wherever it is cut or ends, and however often its pieces came before."""
    recall.forget()
    minter = Choosy() if choosy else HexMinter()
    with (
        patch.multiple(recall, LEAST=least, _PAGE=range(1, 1_000_000), _SHARE=1),
        patch.multiple("injector.memory", _HEAD=least, _TELLING=least),
    ):
        for name, missing in names:
            whole = "".join(snippet.replace("{}", name) for snippet in snippets)
            page = whole[: len(whole) - missing]
            spelled = charset if charset not in {"iso-2022-jp", "x-nobody"} else "utf-8"
            # What base64 encodes need not have the line ends of mail.
            line_end = "\n" if line_feeds and encoding == "base64" else "\r\n"
            content = mail(page, encoding, spelled, line_end).replace(spelled.encode(), charset.encode())
            if ragged and encoding == "base64":
                before, label, page_sent = content.rpartition(b"base64\r\n\r\n")
                content = before + label + page_sent.replace(b"\r\n", b" \r\n", 2)
            both(content, options(text_links=text_links), minter, eight_bit=eight_bit)


READERS = ("Ann", "Benjamin", "Zoë", "Ö", "Maximilian", "Eve", "Christabel", "Bo")
CAMPAIGN = "<html><head>\n<style>\np { margin: 0 }\n</style>\n</head><body>\n<p>Dear {},</p>\n" + (
    "".join(map(CARD.format, range(24))) + '<p><a href="https://example.com/u/{}">Unsubscribe</a></p>\n</body></html>\n'
)


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_a_campaign_is_known_after_a_few_mails(encoding: str) -> None:
    """What comes for the second time is kept; the personal pieces are read in each. Names move what follows them."""
    each = [known(mail(CAMPAIGN.replace("{}", name), encoding)) for name in READERS]
    assert each[0] is False
    assert all(each[4:])


def test_a_campaign_in_base64_is_known_by_lines_that_end_in_line_feeds_and_are_long() -> None:
    """That is how many mailers encode a page: no line of it is a line of the mail."""
    page = CAMPAIGN.replace("<p>Dear", "<p>" + "x" * 1_100 + "</p>\n<p>Dear")
    each = [known(mail(page.replace("{}", name), "base64", line_end="\n")) for name in READERS]
    assert all(each[4:])


def test_base64_whose_lines_are_not_alike_is_read_as_a_whole() -> None:
    """Its lines are looked at one by one in any case."""
    content = page_of(CAMPAIGN, "base64")
    header, _, body = content.partition(b"\r\n\r\n")
    assert [known(content) for _ in range(3)] == [False, True, True]
    for ragged in (body.replace(b"\r\n", b" \r\n"), b"\r\n" + body, body[:8] + b"\r\n" + body[8:], body + b"\n"):
        plan, rendered = both(header + b"\r\n\r\n" + ragged, options(), HexMinter())
        assert not recalled(plan)
        assert rendered.links == 25


@pytest.mark.parametrize("encoding", ["quoted-printable", "8bit", "base64"])
def test_a_campaign_that_is_known_is_known_at_once_behind_any_number_of_strangers(encoding: str) -> None:
    """After many pages that were new most are not learnt from; what is known is recognised all the same."""
    for name in READERS:
        known(mail(CAMPAIGN.replace("{}", name), encoding))
    for many in (16, 23, 40):
        strangers = ["".join(CARD.format(f"{many}-{number}-{at}") for at in range(12)) for number in range(many)]
        assert not any(known(mail(stranger, encoding)) for stranger in strangers)
        assert known(mail(CAMPAIGN.replace("{}", f"reader {many}"), encoding))


@pytest.mark.parametrize("others", [1, 2, 3, 6, 7, 8, 15])
@pytest.mark.parametrize("before", [15, 16, 17, 18])
def test_a_campaign_that_takes_turns_with_strangers_becomes_known(before: int, others: int) -> None:
    """However many of them come between two of its mails: which page is learnt from has no period."""
    memory = Memory(rules_of(options()))
    learnt = 0
    for _ in range(before):
        memory.end_page(found=False)
    for _ in range(200):
        learnt += memory.is_learning()
        for _ in range(1 + others):
            memory.end_page(found=False)
    assert 200 / 16 < learnt < 200 / 4


def test_what_is_new_in_most_of_its_pieces_is_read_as_a_whole() -> None:
    """And after many such pages most are not gone through to their end."""
    pages = ["".join(CARD.format(f"{mailing}-{number}") for number in range(12)) for mailing in range(30)]
    for page in pages:
        plan, rendered = both(mail(page, "8bit"), options(), HexMinter())
        assert not recalled(plan)
        assert rendered.links == 12


def test_nothing_is_kept_that_came_once() -> None:
    """A name in a greeting stands in one mail: it is not held in memory for the next."""
    for name in READERS:
        both(mail(CAMPAIGN.replace("{}", name), "8bit"), options(), HexMinter())
    kept = b"".join(kept_by(recall._memory(rules_of(options()))))
    assert b"shop.example.com" in kept
    assert not any(f"Dear {name}".encode() in kept for name in READERS)


@pytest.mark.parametrize("encoding", ["quoted-printable", "8bit"])
def test_only_the_line_with_the_name_is_read(encoding: str) -> None:
    """Of a piece that is new in each mail, the lines that are not become pieces of their own."""
    page = CAMPAIGN.replace("Dear {},", "</p>\n<p>for {}</p>\n<p>or {}</p>\n<p>to you")
    for name in READERS:
        plan, _ = both(mail(page.replace("{}", name), encoding), options(), HexMinter())
    [raw] = [piece.raw for leaf in plan.leaves for piece in leaf.pieces if b"<p>for" in piece.raw]
    assert raw == f"<p>for {name}</p>\r\n<p>or {name}</p>\r\n".encode()


def test_a_name_that_stands_twice_in_a_mail_came_once() -> None:
    """What is seen is seen in a mail before."""
    page = CAMPAIGN + "<p>{}</p>\n" + "".join(map(CARD.format, range(24, 48))) + "<p>{}</p>\n"
    for name in READERS:
        both(mail(page.replace("{}", name), "8bit"), options(), HexMinter())
    kept = kept_by(recall._memory(rules_of(options())))
    assert not any(f"<p>{name}".encode() in each for each in kept for name in READERS)


def test_a_name_in_what_ends_in_a_known_piece_is_not_kept_either() -> None:
    """Both are one piece then: that the second came before says nothing of the first."""
    memory = Memory(rules_of(options()))
    known = b"<p>" + b"x" * 900 + b"</style>\r\n"
    for _ in range(2):
        pieces_of(b"<p>" + b"y" * 900 + b"</p>\r\n" + known, memory)
    assert memory.recall(known, 0) is not None
    for name in (b"Ann", b"Zoe"):
        [piece] = pieces_of(b"<p>" + b"z" * 800 + b"<style>/* " + name + b" */\r\n" + known, memory)
        assert name in piece.raw
    assert not any(name in each for each in kept_by(memory) for name in (b"Ann", b"Zoe"))


@pytest.mark.parametrize("encoding", ["quoted-printable", "8bit"])
@pytest.mark.parametrize(
    ("last", "more"),
    [
        ("<p>5 <", "a href='https://example.com/late'>x</a>\n"),
        ("<p>" + "x" * 800, "y" * 800 + "</p>\n"),
        ("<p>bye</p>", "</body></html>\n"),
        ("<p>-----BEGIN PGP ", "MESSAGE-----\n"),
        ("<img src='https://t.example.com/track", "/o/pixel'>\n"),
        ("<p>bye</p>\n", "</body></html>\n"),
    ],
)
def test_where_one_page_ends_another_may_go_on(last: str, more: str, encoding: str) -> None:
    """What is known from the end of a page runs on into what stands behind it in another, unless it ends a line."""
    page = "".join(map(CARD.format, range(20)))
    for _ in range(4):
        both(page_of(page + last, encoding), options(), HexMinter())
    both(page_of(page + last + more, encoding), options(), HexMinter())


def test_a_page_that_ends_in_a_soft_line_break_has_its_pixel_before_it() -> None:
    """As if it had been read: behind it nothing may stand."""
    content = page_of("".join(map(CARD.format, range(20))) + "<p>bye", "quoted-printable") + b"=\r\n"
    for _ in range(4):
        both(content, options(), HexMinter())


def test_two_pages_of_which_one_has_too_many_links() -> None:
    """It is left alone, and the other is not."""
    links = "".join(f"<a href='https://example.com/{number % 7}'>x</a>\n" for number in range(5_001))
    pages = [part(page.replace("\n", "\r\n").encode(), encoding="8bit") for page in (links, CAMPAIGN)]
    content = top(multipart("mixed", *pages))
    for _ in range(4):
        both(content, options(), HexMinter())


def test_pieces_under_other_settings_are_other_pieces() -> None:
    """What was judged under one setting is not taken for another."""
    content = mail(CAMPAIGN, "quoted-printable")
    for _ in range(3):
        for chosen in (options(), options(clicks=False), options(opens=False), options(public_url="https://u.example")):
            both(content, chosen, HexMinter())


def test_kinds_of_mail_that_take_turns_are_all_known() -> None:
    """A mailer with several encodings, some of whose mails say that they are not to be tracked."""
    chosen = options(), options(clicks=False)
    for _ in range(3):
        turns = [
            recalled(both(mail(CAMPAIGN, encoding), each, HexMinter())[0])
            for encoding in ("quoted-printable", "8bit", "base64")
            for each in chosen
        ]
    assert all(turns)


def test_a_page_without_lines_is_read_as_a_whole() -> None:
    """There is nowhere to cut it, and it is too large to be kept."""
    content = mail(CAMPAIGN.replace("\n", " ") * 3 + "\n", "quoted-printable")
    for _ in range(3):
        assert not recalled(both(content, options(), HexMinter())[0])


def test_a_link_whose_address_is_longer_than_its_neighbours_is_folded_anew() -> None:
    """A line is cut where lines of its length were cut before."""

    class Growing(HexMinter):
        size = 0

        def click(self, link: int, url: str) -> str | None:
            """Return a longer address each time."""
            self.size += 1
            return f"{super().click(link, url)}{'x' * self.size}{'=' if self.size % 7 == 0 else ''}"

    content = mail(CAMPAIGN, "quoted-printable")
    for _ in range(3):
        plan = injector.plan(injector.parse(content), options(), campaign=True)
    assert recalled(plan)
    read = injector.plan(injector.parse(content), options(), campaign=True, recalls=False)
    one, other = Growing(), Growing()
    for _ in range(12):
        assert plan.render(one, EDITS) == read.render(other, EDITS)


def test_memory_forgets_what_was_not_asked_for() -> None:
    """Two generations of so many octets: what came again lives on, the rest goes."""
    memory = Memory(rules_of(options()))
    pieces = [f"<p>{number} {'x' * 900}</p>\r\n".encode() for number in range(4)]
    with patch.multiple("injector.memory", _OCTETS_KEPT=1_500, _SEEN_KEPT=2):
        assert memory.recall(pieces[0], 0) is None
        # That it stands twice in one page says nothing.
        assert [seen_by(memory, pieces[0], pieces[0]), seen_by(memory, pieces[0])] == [[False, False], [True]]
        kept = read_and_kept(memory, pieces[0])
        assert memory.recall(pieces[0], 0) is kept
        for piece in pieces[1:3]:
            read_and_kept(memory, piece)
        # In the older generation now, and asked for: it moves to the younger one.
        assert memory.recall(pieces[0], 0) is kept
        for piece in pieces[1:] * 3:
            read_and_kept(memory, piece)
        assert memory.recall(pieces[0], 0) is None
        assert [seen_by(memory, piece) for piece in pieces] == [[True], [False], [False], [False]]
        assert [seen_by(memory, pieces[0]), seen_by(memory, pieces[2])] == [[False], [True]]


def pieces_of(raw: bytes, memory: Memory) -> list[Piece]:
    """Return what *raw* consists of, as one page."""
    pieces = recall._pieces(recall._cut(raw, memory), memory)
    memory.end_page(found=bool(pieces))
    return pieces


def seen_by(memory: Memory, *octets: bytes) -> list[bool]:
    """Tell of each of *octets*, in one page, whether it came before."""
    seen = [memory.see(each) for each in octets]
    memory.end_page(found=False)
    return seen


def read_and_kept(memory: Memory, octets: bytes) -> Piece:
    """Return *octets* as a piece that is known from now on."""
    piece = memory.read(octets)
    assert piece is not None
    memory.keep(piece, None)
    return piece


def rules_of(chosen: Options) -> Rules:
    """Return how pieces in UTF-8 and 8bit are read under *chosen* where a mail says nothing about it."""
    judgement = Judgement(chosen.clicks, chosen.text_links, chosen.skip, chosen.public_url)
    return Rules(quoted=False, base64=False, charset=Charset(codec="utf-8"), judgement=judgement)


def kept_by(memory: Memory) -> list[bytes]:
    """Return the octets that are remembered."""
    return [piece.raw for alike in memory._young.values() for piece in alike]
