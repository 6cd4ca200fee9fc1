"""Properties that hold for any mail, with the standard library and BeautifulSoup as independent readers."""

import email
import email.policy
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import injector
from injector import HeaderEdits, Rendered
from injector.encodings import undo
from tests.unit.injector.mails import (
    PDF,
    STAMP,
    HexMinter,
    destination,
    leaves,
    links_of,
    longest_line,
    multipart,
    options,
    part,
    rewrite,
    top,
)

EDITS = HeaderEdits(prepend=(b"Received: from a\r\n\tby b; now\r\n",), set_message_id=STAMP, remove=("X-Id-Mail",))
PIXEL = re.compile(rb'<img src="[^"]*/track/o/pixel"[^>]*>')
WORDS = st.text("abc <>&=.\"'é你ж\t-", max_size=40)
URLS = st.sampled_from(
    [
        "https://example.com/",
        "https://example.com/?a=1&b=2",
        "http://example.net/x_(y)#z",
        "https://example.org:8443/%20",
    ]
)


@st.composite
def pages(draw: st.DrawFn) -> bytes:
    """Return html lines with links, some of them long."""
    lines = ["<html><body>"]
    for words in draw(st.lists(WORDS, max_size=6)):
        url = draw(URLS).replace("&", "&amp;")
        safe = words.replace("<", "&lt;")
        lines.append(f'<p>{safe * draw(st.sampled_from([1, 1, 1, 30]))}</p><a href="{url}" title="t">{safe}</a>')
    if draw(st.booleans()):
        lines.append("</body></html>")
    return "\r\n".join(lines).encode()


@st.composite
def parts(draw: st.DrawFn, depth: int = 2) -> bytes:
    """Return a leaf or a multipart."""
    choice = draw(st.integers(0, 5 if depth else 3))
    encoding = draw(st.sampled_from(["8bit", "quoted-printable", "base64"]))
    if choice == 0:
        return part(draw(pages()), encoding=encoding)
    if choice == 1:
        return part(draw(WORDS).encode(), "text/plain", encoding)
    if choice == 2:
        return part(PDF, "application/pdf", "base64", charset="")
    if choice == 3:
        return part(draw(pages()), encoding=encoding, extra=b"Content-Disposition: attachment; filename=a.html\r\n")
    subtype = draw(st.sampled_from(["mixed", "alternative", "related"]))
    children = draw(st.lists(parts(depth=depth - 1), min_size=1, max_size=3))
    return multipart(subtype, *children, boundary="b" * (depth + 1))


@st.composite
def mails(draw: st.DrawFn) -> bytes:
    """Return a message."""
    fields = draw(
        st.lists(
            st.sampled_from(
                [
                    b"Message-ID: <one@x>",
                    b"Message-ID:\r\n <two@x>",
                    b"Bcc: b@example.com",
                    b"X-Id-Mail: 42",
                    b"X-Outrider-Track: clicks",
                    b"List-Unsubscribe: <mailto:u@example.com>",
                    b"Subject: \xe9 =?utf-8?q?x?=",
                ]
            ),
            max_size=4,
        )
    )
    return top(draw(parts()), *fields)


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """Return a message with pieces cut out, doubled or overwritten."""
    content = bytearray(draw(mails()))
    for _ in range(draw(st.integers(1, 6))):
        at = draw(st.integers(0, len(content)))
        end = min(len(content), at + draw(st.integers(0, 40)))
        with_ = draw(st.sampled_from([b"", b"\r\n", b"\r\n\r\n", b"--bbb", b"=", b"\x00", b"\xff", b"<a href=", b";"]))
        content[at:end] = with_ + (content[at:end] * 2 if draw(st.booleans()) else b"")
    return bytes(content)


def rendered(content: bytes) -> tuple[injector.Plan, Rendered]:
    """Return plan and result for *content*."""
    plan = injector.plan(injector.parse(content), options(text_links=True), campaign=True)
    return plan, plan.render(HexMinter(), EDITS)


class TestAnyMail:
    """Invariants of every ordinary mail."""

    @settings(deadline=None)
    @given(mails())
    def test_undoing_the_splices_gives_the_input(self, content: bytes) -> None:
        """Invariant: nothing changed but the splices."""
        plan, result = rendered(content)
        splices = sorted(plan.header_splices(HexMinter(), EDITS) + plan.body_splices(HexMinter())[0])
        assert result.reason != "rewrite_failed"
        assert undo(result.content, content, splices) == content

    @settings(deadline=None)
    @given(mails())
    def test_the_same_input_gives_the_same_octets(self, content: bytes) -> None:
        """Invariant: rendering twice, or planning anew, changes nothing."""
        plan, result = rendered(content)
        assert plan.render(HexMinter(), EDITS) == result
        assert rendered(content)[1] == result

    @settings(deadline=None)
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

    @settings(deadline=None)
    @given(mails())
    def test_every_leaf_says_the_same_but_for_links_and_pixel(self, content: bytes) -> None:
        """Invariant: decoded by somebody else and the pixel taken out, only the links differ, and they lead home."""
        _, result = rendered(content)
        pixels = 0
        for (kind, before), (same_kind, after) in zip(leaves(content), leaves(result.content), strict=True):
            assert kind == same_kind
            pixels += len(PIXEL.findall(after))
            plain = PIXEL.sub(b"", after)
            if kind != "text/html" or plain == before:
                assert kind == "text/plain" or plain == before
                continue
            homes = [destination(link) or link for link in links_of(plain)]
            assert homes == links_of(before)
            assert re.sub(rb'href="[^"]*"', b"", plain) == re.sub(rb'href="[^"]*"', b"", before)
        assert pixels <= 1

    @settings(deadline=None)
    @given(mails())
    def test_attachments_are_the_same_to_the_bit(self, content: bytes) -> None:
        """Invariant: a part that is not the text of the message leaves with the octets it came with."""
        _, result = rendered(content)
        for leaf, new in zip(injector.parse(content).leaves, injector.parse(result.content).leaves, strict=True):
            if leaf.kind == "application/pdf" or leaf.named:
                assert result.content[new.body_start : new.body_end] == content[leaf.body_start : leaf.body_end]

    @settings(deadline=None)
    @given(mails())
    def test_lines_are_legal_and_one_id_leaves(self, content: bytes) -> None:
        """Invariant: no line of ours is over 998 octets; there is one Message-ID, and no Bcc."""
        _, result = rendered(content)
        message = email.message_from_bytes(result.content)
        assert message.get_all("Message-ID") == [STAMP.decode()]
        assert message.get_all("Bcc") is None
        theirs = email.message_from_bytes(content).get_all("List-Unsubscribe", [])
        assert len(message.get_all("List-Unsubscribe", [])) == max(1, len(theirs))
        for leaf in injector.parse(result.content).leaves:
            if not leaf.named:
                assert longest_line(result.content[leaf.body_start : leaf.body_end]) <= 998


class TestAnyOctets:
    """Invariants of whatever a client may send."""

    @settings(deadline=None)
    @given(st.binary(max_size=400) | mutated())
    def test_nothing_is_raised_and_nothing_is_lost(self, content: bytes) -> None:
        """Invariant: any octets are parsed, planned and rendered; what leaves ends with what came, or was undone."""
        plan, result = rendered(content)
        if result.reason == "rewrite_failed":
            assert not result.injected
        else:
            splices = plan.header_splices(HexMinter(), EDITS) + plan.body_splices(HexMinter())[0]
            assert undo(result.content, content, sorted(splices)) == content

    @settings(deadline=None)
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
