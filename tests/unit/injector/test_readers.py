"""The oracle and the independent readers object to every change that is not ours: a judge that never does is none."""

import base64
from collections.abc import Callable

import pytest

from injector.tokens import Purpose, TokenError
from tests.kept_mail import kept
from tests.readers import Seen, SignedUrls, browser_sees, readers_agree, soup_sees
from tests.splices import undo
from tests.unit.injector.test_corpus import BASE, KEY, KEYRING, rewritten

URLS = SignedUrls(KEYRING, BASE)
PAGE = '<p class="x">one <a href="https://example.com/?a=1&amp;b=2" title="t">two</a></p><!-- three -->'
PIXEL = (
    f'<img src="{BASE}/track/o/{KEYRING.mint(Purpose.OPEN, KEY)}" width="1" height="1" alt="" '
    'style="position:absolute;top:0;left:0;width:1px;height:1px;margin:0;padding:0;border:0">'
)


def tracked(url: str) -> str:
    """Return a link of ours to *url*."""
    return f"{BASE}/track/c/{KEYRING.mint(Purpose.CLICK, KEY, 0, url)}"


WRAPPED = PAGE.replace("https://example.com/?a=1&amp;b=2", tracked("https://example.com/?a=1&b=2"))


def swapped(old: bytes, new: bytes) -> Callable[[bytes], bytes]:
    """Return a change that must be one."""

    def change(content: bytes) -> bytes:
        assert content.count(old) >= 1
        return content.replace(old, new, 1)

    return change


def reencoded(content: bytes) -> bytes:
    """Return *content* with its only base64 body in lines of another length: the same octets in another dress."""
    head, body = content.split(b"\r\n\r\n", 1)
    text = base64.b64encode(base64.b64decode(body))
    return head + b"\r\n\r\n" + b"\r\n".join(text[at : at + 72] for at in range(0, len(text), 72)) + b"\r\n"


class TestPages:
    """A page may differ in wrapped hrefs, marks and one pixel."""

    @pytest.mark.parametrize("sees", [soup_sees, browser_sees])
    def test_what_is_ours_is_counted(self, sees: Callable[[str, str, SignedUrls], Seen]) -> None:
        seen = sees(PAGE, WRAPPED + PIXEL, URLS)
        assert seen == Seen(links=("https://example.com/?a=1&b=2",), pixels=1)
        marked = PAGE.replace("<a ", "<a data-no-track ")
        assert sees(marked, PAGE, URLS) == Seen(excepted=1)
        assert sees(PAGE.replace("https:", "https+notrack:"), PAGE, URLS) == Seen(excepted=1)

    def test_what_outlook_reads_is_a_page_too(self) -> None:
        before, after = f"<!--[if mso]>{PAGE[:-14]}<![endif]-->", f"<!--[if mso]>{WRAPPED[:-14]}<![endif]-->"
        assert soup_sees(before, after, URLS) == browser_sees(before, after, URLS) != Seen()

    def test_an_element_that_a_browser_opens_again_for_the_pixel_is_no_change(self) -> None:
        before, after = "<p><b>bold</p></body>", f"<p><b>bold</p>{PIXEL}</body>"
        assert browser_sees(before, after, URLS) == Seen(pixels=1)

    @pytest.mark.parametrize("sees", [soup_sees, browser_sees])
    @pytest.mark.parametrize(
        "after",
        [
            WRAPPED.replace("one", "One"),
            WRAPPED.replace("three", "four"),
            WRAPPED.replace('class="x"', 'class="y"'),
            WRAPPED.replace(' title="t"', ""),
            WRAPPED.replace("</p>", "</p><br>"),
            WRAPPED.replace("<p", "<div").replace("</p>", "</div>"),
            WRAPPED + PIXEL + PIXEL,
            WRAPPED + PIXEL.replace("position:absolute", "display:none"),
            WRAPPED + PIXEL.replace('width="1"', 'width="600"'),
            PAGE.replace("https://example.com/?a=1&amp;b=2", f"{BASE}/track/c/forged"),
            f"<!--{WRAPPED}-->",
        ],
    )
    def test_anything_else_is_an_error(self, sees: Callable[[str, str, SignedUrls], Seen], after: str) -> None:
        with pytest.raises(AssertionError):
            sees(PAGE, after, URLS)

    @pytest.mark.parametrize("url", ["https://example.com/?a=1&amp;b=2", "https://example.com/", ""])
    def test_a_link_that_leads_elsewhere_is_an_error(self, url: str) -> None:
        with pytest.raises(AssertionError):
            browser_sees(PAGE, PAGE.replace("https://example.com/?a=1&amp;b=2", tracked(url)), URLS)


class TestMessages:
    """Neither the oracle nor the readers accept a message in which anything else changed."""

    @pytest.mark.parametrize(
        ("name", "change"),
        [
            ("newsletter_with_pdf_and_image", swapped(b"This is the epilogue", b"This was the epilogue")),
            ("newsletter_with_pdf_and_image", swapped(b"iVBORw0KGgo", b"iVBORw0KGgp")),
            ("newsletter_with_pdf_and_image", swapped(b"charset=utf-8", b'charset="utf-8"')),
            ("newsletter_with_pdf_and_image", swapped(b"an attachment's link", b"An attachment's link")),
            ("newsletter_with_pdf_and_image", swapped(b"Subject: What", b"Subject:  What")),
            ("newsletter_with_pdf_and_image", swapped(b"\r\n <mailto:leave", b" <mailto:leave")),
            ("newsletter_with_pdf_and_image", swapped(b"mixed-7f3a--", b"mixed-7f3a--\r\nmore")),
            ("smime_signed", swapped(b"trailing space=20", b"trailing space")),
            ("dkim_signed", swapped(b"relaxed/relaxed", b"relaxed/simple")),
            ("windows_1251_eight_bit", swapped("Здравствуйте".encode("cp1251"), "Здравствуйте".encode())),
            ("windows_1251_eight_bit", swapped(b"charset=windows-1251", b"charset=utf-8")),
            ("two_hundred_links", swapped(b"<ul>", b"<ul=3E")),
            ("own_links_inside", swapped(b"AbCdEf", b"abcdef")),
            ("calendar_request_outlook", swapped(b"QkVHSU46VkNB", b"QkVHSU46VkNC")),
        ],
    )
    def test_a_change_that_is_not_ours_is_noticed(self, name: str, change: Callable[[bytes], bytes]) -> None:
        content, left = kept(name), change(rewritten(name).content)
        try:
            undone = undo(left, content, keyring=KEYRING, public_url=BASE)
        except (AssertionError, ValueError, TokenError):
            return
        assert undone.content != content

    @pytest.mark.parametrize(
        ("name", "change"),
        [
            ("newsletter_with_pdf_and_image", swapped(b"This is the epilogue", b"This was the epilogue")),
            ("newsletter_with_pdf_and_image", swapped(b"iVBORw0KGgo", b"iVBORw0KGgp")),
            ("newsletter_with_pdf_and_image", swapped(b"an attachment's link", b"An attachment's link")),
            ("newsletter_with_pdf_and_image", swapped(b"Subject: What", b"Subject: what")),
            ("smime_signed", swapped(b"Signed, with", b"Signed with")),
            ("smime_signed", swapped(b"the contract", b"a contract")),
            ("boundary_is_prefix_of_another", swapped(b"\r\n--abc\r\n", b"\r\n--ab\r\n")),
        ],
    )
    def test_readers_notice_it_too(self, name: str, change: Callable[[bytes], bytes]) -> None:
        with pytest.raises((AssertionError, ValueError)):
            readers_agree(kept(name), change(rewritten(name).content), URLS)

    def test_lines_that_were_encoded_anew_without_need_are_noticed(self) -> None:
        name = "base64_lines_of_71"
        left = rewritten(name).content
        assert undo(left, kept(name), keyring=KEYRING, public_url=BASE).content == kept(name)
        with pytest.raises(AssertionError, match="before the first edit"):
            undo(reencoded(left), kept(name), keyring=KEYRING, public_url=BASE)

    def test_a_token_of_somebody_elses_is_none(self) -> None:
        left = rewritten("transactional").content
        at = left.index(b"/track/c/") + 20
        with pytest.raises(TokenError):
            undo(
                left[:at] + bytes([left[at] ^ 1]) + left[at + 1 :],
                kept("transactional"),
                keyring=KEYRING,
                public_url=BASE,
            )
