"""What others see of a message before and after, and what it costs: the standard library, BeautifulSoup and a browser.

None of them knows the injector; where they agree that only hrefs and one image differ, nothing else does.
"""

from hypothesis import given
from hypothesis import strategies as st

from injector import HeaderEdits, Options
from tests.fuzz.generated import mails, mutated
from tests.fuzz.proof import MINTER, PUBLIC, RECEIVED, STAMP, check, rewritten
from tests.readers import readers_agree

PLAINLY = Options(public_url=PUBLIC)
WHOLLY = Options(public_url=PUBLIC, text_links=True, dkim="strip")


class TestReaders:
    """Independent readers of the message that left."""

    @given(mails())
    def test_only_hrefs_and_one_image_differ(self, content: bytes) -> None:
        """Invariant: the tree and every untouched leaf are equal, and a page differs in hrefs and one pixel."""
        plan, result = rewritten(content, PLAINLY, HeaderEdits(prepend=(RECEIVED,), set_message_id=STAMP))
        seen = readers_agree(content, result.content, MINTER)
        assert seen.pixels == (plan.pixel_part is not None)
        # Of what Outlook alone sees both readers see nothing, unless they look into its comments, which they do.
        assert len(seen.links) == result.links

    @given(mails())
    def test_every_promise_holds(self, content: bytes) -> None:
        """Invariant: nothing raised, undo gives the input, lines are legal, the tree is the same, twice is once."""
        check(content, PLAINLY)
        check(content, WHOLLY)

    @given(mutated())
    def test_every_promise_holds_for_damaged_mail(self, content: bytes) -> None:
        """Invariant: the same for what only began as a message."""
        content = content.replace(b"\0", b"").replace(b"\r", b"").replace(b"\n", b"\r\n")
        check(content, PLAINLY)
        check(content, WHOLLY)

    @given(st.binary(max_size=400))
    def test_every_promise_holds_for_any_octets(self, content: bytes) -> None:
        """Invariant: the same for what never was one."""
        content = content.replace(b"\0", b"").replace(b"\r", b"").replace(b"\n", b"\r\n")
        check(content, PLAINLY)
        check(content, WHOLLY)
