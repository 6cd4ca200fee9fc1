"""One plan serves every recipient, and whatever goes wrong the mail leaves."""

import email
import email.policy

import msgspec
import pytest

import injector
from injector import HeaderEdits, Plan
from tests.unit.injector.mails import (
    BASE,
    STAMP,
    HexMinter,
    body_of,
    destination,
    html_of,
    links_of,
    multipart,
    options,
    part,
    rewrite,
    top,
)

LINK = b'<p>Hi <a href="https://example.com/?a=1&amp;b=2">go</a></p>'


class Starved(bytes):
    """Octets for which there is no memory left once somebody looks into them."""

    def startswith(self, *_: object) -> bool:
        """Fail as the interpreter does."""
        raise MemoryError

    def find(self, *_: object) -> int:
        """Fail as the interpreter does."""
        raise MemoryError


class Unreadable(dict[str, str]):
    """Parameters for which there is no memory left."""

    def get(self, *_: object) -> str:
        """Fail as the interpreter does."""
        raise MemoryError


def planned(content: bytes) -> Plan:
    """Return the plan of a campaign's message."""
    return injector.plan(injector.parse(content), options(), campaign=True)


class TestRender:
    """One plan serves every recipient, and the same input gives the same octets."""

    def test_m11_three_recipients_of_one_plan_differ_only_in_what_is_theirs(self) -> None:
        plan = planned(top(multipart("alternative", part(b"t", "text/plain"), part(LINK))))

        class Numbered(HexMinter):
            def __init__(self, number: int) -> None:
                self.number = number

            def open(self) -> str:
                """Return this recipient's pixel."""
                return f"{BASE}/track/o/{self.number}"

        edits = [HeaderEdits(set_message_id=b"<%d@example.com>" % number) for number in range(3)]
        results = [plan.render(Numbered(number), edit).content for number, edit in enumerate(edits)]
        assert len(set(results)) == 3
        assert plan.render(Numbered(0), edits[0]).content == results[0]
        assert results[1].replace(b"<1@", b"<0@").replace(b"/track/o/1", b"/track/o/0") == results[0]

    def test_a_link_that_the_minter_declines_stays(self) -> None:
        class Choosy(HexMinter):
            def click(self, link: int, url: str) -> str | None:
                """Decline the second link."""
                return None if link == 1 else super().click(link, url)

        html = b'<a href="https://example.com/1">1</a><a href=https://example.com/2>2</a>'
        result = rewrite(top(part(html)), minter=Choosy())
        assert (result.links, result.injected) == (1, True)
        assert b"<a href=https://example.com/2>2</a>" in result.content

    def test_nothing_left_to_inject_says_so(self) -> None:
        class Declining(HexMinter):
            def click(self, link: int, url: str) -> str | None:
                """Decline every link."""

        result = rewrite(top(part(LINK)), options(opens=False), minter=Declining())
        assert (result.injected, result.reason, result.links) == (False, "nothing_to_track", 0)

    @pytest.mark.parametrize("encoding", ["8bit", "quoted-printable", "base64"])
    def test_h32_a_body_that_passes_twice_is_rewritten_once(self, encoding: str) -> None:
        once = rewrite(top(part(LINK, encoding=encoding)))
        twice = rewrite(once.content, edits=HeaderEdits())
        assert (once.links, twice.links) == (1, 0)
        assert twice.content == once.content

    def test_an_own_looking_link_of_somebody_else_is_wrapped(self) -> None:
        html = b'<a href="https://t.example.com.example.net/track/c/x">x</a>'
        assert rewrite(top(part(html))).links == 1

    def test_vendor_opt_outs_are_honoured_and_removed(self) -> None:
        html = (
            b'<a href="https://example.com/1" clicktracking="off">1</a>'
            b'<a href="https://example.com/1">2</a><a href="https+notrack://example.com/3">3</a>'
        )
        result = html_of(rewrite(top(part(html)), options(opens=False)).content)
        assert b"clicktracking" not in result
        assert [destination(link) or link for link in links_of(result)] == [
            "https://example.com/1",
            "https://example.com/1",
            "https://example.com/3",
        ]
        assert result.count(BASE.encode()) == 1


class TestFailure:
    """Whatever goes wrong, the mail leaves, with as much of its header edits as can be made."""

    EDITS = HeaderEdits(prepend=(b"Received: x\r\n",), set_message_id=STAMP)

    def test_a_minter_that_fails_costs_the_tracking_only(self) -> None:
        class Failing(HexMinter):
            def click(self, link: int, url: str) -> str | None:
                """Fail."""
                raise RecursionError(link, url)

        content = top(part(LINK), b"Bcc: b@example.com")
        result = rewrite(content, minter=Failing(), edits=self.EDITS)
        assert (result.reason, result.injected, result.links) == ("rewrite_failed", False, 0)
        assert body_of(result.content) == body_of(content)
        assert STAMP in result.content
        assert b"Bcc" not in result.content
        assert b"List-Unsubscribe: <" in result.content

    def test_a_minter_that_fails_at_everything_costs_the_unsubscribe_too(self) -> None:
        class Failing(HexMinter):
            def open(self) -> str:
                """Fail."""
                raise MemoryError

            def unsubscribe(self) -> str:
                """Fail."""
                raise ValueError

        result = rewrite(top(part(LINK)), minter=Failing(), edits=self.EDITS)
        assert (result.reason, STAMP in result.content) == ("rewrite_failed", True)
        assert b"List-Unsubscribe" not in result.content

    def test_an_address_that_is_not_ascii_costs_the_tracking_only(self) -> None:
        class Odd(HexMinter):
            def click(self, link: int, url: str) -> str | None:
                """Return what is not ASCII."""
                return f"https://t.example.com/é{link}{len(url)}"

        content = top(part(b"https://example.com/", "text/plain"))
        result = rewrite(content, options(text_links=True), minter=Odd())
        assert (result.reason, body_of(result.content)) == ("rewrite_failed", body_of(content))

    def test_edits_that_overlap_do_not_lose_the_mail(self) -> None:
        """The part's Content-Transfer-Encoding would have to change and to go."""
        content = top(part(b"x" * 1_500, encoding="8bit"))
        edits = HeaderEdits(prepend=(b"Received: x\r\n",), remove=("Content-Transfer-Encoding", "Message-ID"))
        result = rewrite(content, edits=edits)
        assert (result.reason, body_of(result.content)) == ("rewrite_failed", body_of(content))
        assert result.content.startswith(b"Received: x\r\n")

    def test_a_part_that_does_not_decode_to_what_was_meant_is_not_sent(self) -> None:
        """The plan is damaged here by hand: its marks lie one octet beside the links."""
        content = top(part(LINK, encoding="quoted-printable"))
        plan = planned(content)
        (leaf,) = plan.leaves
        damaged = msgspec.structs.replace(leaf, places=tuple(place - 1 for place in leaf.places))
        result = msgspec.structs.replace(plan, leaves=(damaged,)).render(HexMinter(), self.EDITS)
        assert (result.reason, body_of(result.content)) == ("rewrite_failed", body_of(content))
        assert STAMP in result.content

    def test_a_plan_that_cannot_be_made_leaves_the_body_alone(self) -> None:
        content = top(part(LINK))
        mail = injector.parse(content)
        leaf = msgspec.structs.replace(mail.leaves[0], parameters=Unreadable())
        plan = injector.plan(msgspec.structs.replace(mail, leaves=(leaf,)), options(), campaign=True)
        assert (plan.reason, plan.keeps_message_id) == ("rewrite_failed", False)
        result = plan.render(HexMinter(), self.EDITS)
        assert (result.reason, body_of(result.content)) == ("rewrite_failed", body_of(content))

    def test_header_edits_that_cannot_be_made_leave_the_prepended_lines(self) -> None:
        edits = HeaderEdits(prepend=(b"Received: x\r\n",), set_message_id=Starved(b"<a@b>"))
        content = b"From ann Mon\r\n" + top(part(LINK))
        result = rewrite(content, edits=edits)
        assert (result.reason, result.injected) == ("rewrite_failed", False)
        assert result.content == content.replace(b"From ann Mon\r\n", b"From ann Mon\r\nReceived: x\r\n")

    def test_a_content_that_cannot_be_read_leaves_with_the_prepended_lines(self) -> None:
        content = Starved(top(part(LINK)))
        result = rewrite(content, edits=self.EDITS)
        assert (result.reason, result.injected) == ("rewrite_failed", False)
        assert result.content.endswith(content)
        assert result.content.startswith(b"Received: x\r\n")

    def test_parsed_again_the_result_has_the_same_tree(self) -> None:
        content = top(multipart("mixed", multipart("alternative", part(LINK), boundary="i"), part(LINK), boundary="o"))
        before = [(leaf.path, leaf.kind) for leaf in injector.parse(content).leaves]
        after = injector.parse(rewrite(content).content)
        assert [(leaf.path, leaf.kind) for leaf in after.leaves] == before
        assert not email.message_from_bytes(after.content, policy=email.policy.default).defects
