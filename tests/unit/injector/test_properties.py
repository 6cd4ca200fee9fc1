"""Properties that hold for any mail, with the standard library and BeautifulSoup as independent readers."""

import email
import email.policy
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

import injector
from injector import HeaderEdits, Rendered
from tests.fuzz.generated import mails, mutated
from tests.fuzz.proof import differs_only_there
from tests.unit.injector.mails import (
    STAMP,
    HexMinter,
    leaves,
    longest_line,
    options,
    part,
    rewrite,
    top,
)

EDITS = HeaderEdits(prepend=(b"Received: from a\r\n\tby b; now\r\n",), set_message_id=STAMP, remove=("X-Id-Mail",))
PIXEL = re.compile(rb'<img src="[^"]*/track/o/pixel"[^>]*>')


def rendered(content: bytes) -> tuple[injector.Plan, Rendered]:
    """Return plan and result for *content*."""
    plan = injector.plan(injector.parse(content), options(text_links=True), campaign=True)
    return plan, plan.render(HexMinter(), EDITS)


class TestAnyMail:
    """Invariants of every ordinary mail; `test_oracles.py` has those that other readers are asked about."""

    @given(mails())
    def test_undoing_the_splices_gives_the_input(self, content: bytes) -> None:
        """Invariant: nothing changed but the splices."""
        plan, result = rendered(content)
        assert result.reason != "rewrite_failed"
        splices = [*plan.header_splices(HexMinter(), EDITS), *plan.body_splices(HexMinter())[0]]
        differs_only_there(content, result.content, splices)

    @given(mails())
    def test_the_same_input_gives_the_same_octets(self, content: bytes) -> None:
        """Invariant: rendering twice, or planning anew, changes nothing."""
        plan, result = rendered(content)
        assert plan.render(HexMinter(), EDITS) == result
        assert rendered(content)[1] == result

    @given(mails())
    def test_the_tree_is_the_same(self, content: bytes) -> None:
        """Invariant: for us and for the standard library, the parts and their types are the same ones."""
        _, result = rendered(content)
        before, after = injector.parse(content), injector.parse(result.content)
        assert [(x.path, x.kind, x.enclosing) for x in after.leaves] == [
            (x.path, x.kind, x.enclosing) for x in before.leaves
        ]
        tree = [x.get_content_type() for x in email.message_from_bytes(content).walk()]
        assert [x.get_content_type() for x in email.message_from_bytes(result.content).walk()] == tree

    @given(mails())
    def test_one_pixel_at_most(self, content: bytes) -> None:
        """Invariant: in a whole message there is one pixel, in a page and nowhere else, however many pages it has."""
        plan, result = rendered(content)
        found = {kind: len(PIXEL.findall(body.replace(b"\0", b""))) for kind, body in leaves(result.content)}
        pages = [body for kind, body in leaves(result.content) if kind == "text/html"]
        assert sum(len(PIXEL.findall(body.replace(b"\0", b""))) for body in pages) == (plan.pixel_part is not None)
        assert not any(count for kind, count in found.items() if kind != "text/html")

    @given(mails())
    def test_attachments_are_the_same_to_the_bit(self, content: bytes) -> None:
        """Invariant: a part that is not the text of the message leaves with the octets it came with."""
        _, result = rendered(content)
        for leaf, new in zip(injector.parse(content).leaves, injector.parse(result.content).leaves, strict=True):
            if leaf.kind not in {"text/html", "text/plain"} or leaf.named:
                assert result.content[new.body_start : new.body_end] == content[leaf.body_start : leaf.body_end]

    @given(mails())
    def test_lines_are_legal_and_one_id_leaves(self, content: bytes) -> None:
        """Invariant: no line of a part that changed is over 998 octets; there is one Message-ID, and no Bcc."""
        _, result = rendered(content)
        message = email.message_from_bytes(result.content)
        assert message.get_all("Message-ID") == [STAMP.decode()]
        assert message.get_all("Bcc") is None
        theirs = email.message_from_bytes(content).get_all("List-Unsubscribe", [])
        assert len(message.get_all("List-Unsubscribe", [])) == max(1, len(theirs))
        for leaf, new in zip(injector.parse(content).leaves, injector.parse(result.content).leaves, strict=True):
            old = content[leaf.body_start : leaf.body_end]
            left = result.content[new.body_start : new.body_end]
            assert left == old or longest_line(left) <= 998


class TestAnyOctets:
    """Invariants of whatever a client may send."""

    @given(st.binary(max_size=400) | mutated())
    def test_nothing_is_raised_and_nothing_is_lost(self, content: bytes) -> None:
        """Invariant: any octets are parsed, planned and rendered; what leaves ends with what came, or was undone."""
        plan, result = rendered(content)
        if result.reason == "rewrite_failed":
            assert not result.injected
        else:
            splices = [*plan.header_splices(HexMinter(), EDITS), *plan.body_splices(HexMinter())[0]]
            differs_only_there(content, result.content, splices)

    @given(st.binary(max_size=400) | mutated())
    def test_our_lines_are_the_first_header_lines(self, content: bytes) -> None:
        """Invariant: the standard library finds the Received line that we put on top, and one stamp unless sealed."""
        plan, result = rendered(content)
        head = result.content[plan.mail.headers_start :]
        assert head.startswith(EDITS.prepend[0])
        message = email.message_from_bytes(head, policy=email.policy.compat32)
        assert message["Received"] is not None
        if not plan.keeps_message_id and plan.mail.separated:
            assert message.get_all("Message-ID", [""])[0] in {STAMP.decode(), ""}

    @pytest.mark.parametrize("name", ["nested", "angle", "quotes", "references", "soft breaks", "one line"])
    def test_a_megabyte_of_anything_is_answered(self, name: str) -> None:
        """Hostile bodies stay linear through all stages; the test's own time-out is the bound."""
        body = {
            "nested": b"<div>" * 200_000,
            "angle": b"<" * 1_000_000,
            "quotes": b'<a href="' * 110_000,
            "references": b'<a href="' + b"&amp" * 250_000 + b'">',
            "soft breaks": b"<a href=3Dhttps://example.com/>" + b"=\r\n" * 330_000 + b"</body>",
            "one line": b"<a href=https://example.com/>x</a>" * 4_900,
        }[name]
        encoding = "quoted-printable" if name == "soft breaks" else "8bit"
        result = rewrite(top(part(b"")[:-2] + f"Content-Transfer-Encoding: {encoding}\r\n\r\n".encode() + body))
        assert result.reason != "rewrite_failed"
