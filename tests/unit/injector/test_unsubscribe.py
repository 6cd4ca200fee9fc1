"""Campaign mail offers one-click where nobody offered anything; what the mailer offers stays as it wrote it."""

import email
import email.policy

import pytest

from injector import HeaderEdits
from injector.headers import one_click_allowed
from tests.unit.injector.mails import BASE, body_of, options, part, rewrite, top

OFFER = f"List-Unsubscribe: <{BASE}/unsubscribe/one>\r\n".encode()
ONE_CLICK = b"List-Unsubscribe-Post: List-Unsubscribe=One-Click\r\n"


class TestUnsubscribe:
    """Campaign mail offers one-click where nobody offered anything."""

    def test_m08_a_long_list_unsubscribe_of_the_mailer_is_not_encoded(self) -> None:
        field = b"List-Unsubscribe: <mailto:u@x.example.com>, <https://x.example.com/" + b"q" * 90 + b">\r\n"
        result = rewrite(top(part(b"<p>x"), field[:-2])).content
        assert field in result
        assert result.lower().count(b"list-unsubscribe") == 1

    @pytest.mark.parametrize(
        "lines",
        [
            b"List-Unsubscribe: <mailto:u@example.com>",
            b"List-Unsubscribe: <https://example.com/u>",
            b"List-Unsubscribe: <http://example.com/u>, <mailto:u@example.com>",
            b"list-unsubscribe :<https://example.com/u>",
            b"List-Unsubscribe: <mailto:u@example.com?subject=x>,\r\n <https://example.com/u?a=\r\n\tb>",
            b"List-Unsubscribe: <https://example.com/" + b"q" * 1_500 + b">",
            b"List-Unsubscribe:",
            b"List-Unsubscribe: nonsense \xe9",
            b"List-Unsubscribe: <https://example.com/u>\r\n" + ONE_CLICK[:-2],
            b"List-Unsubscribe-Post: something=else\r\nList-Unsubscribe: <https://example.com/u>",
        ],
    )
    def test_m12_what_the_mailer_offers_stays_and_is_never_joined_by_ours(self, lines: bytes) -> None:
        """Nor is One-Click announced for an address that is not ours: who knows what a POST does there."""
        content = top(part(b"<p>x"), lines)
        result = rewrite(content, edits=HeaderEdits()).content
        assert result.startswith(content[: -len(body_of(content))])
        assert (OFFER in result, result.count(b"-Post:")) == (False, lines.count(b"-Post:"))

    def test_m12_two_of_the_mailer_stay_two(self) -> None:
        """The row asks for one (RFC 2369 2); the contract stands over it: what came in leaves byte for byte."""
        fields = (b"list-unsubscribe: <mailto:u@example.com>", b"List-Unsubscribe: <https://example.com/u>")
        result = rewrite(top(part(b"<p>x"), *fields)).content
        assert b"\r\n".join(fields) in result
        assert result.lower().count(b"list-unsubscribe") == 2

    def test_m12_ours_is_known_when_a_message_passes_twice(self) -> None:
        once = rewrite(top(part(b"<p>x")), edits=HeaderEdits()).content
        assert once.startswith(OFFER + ONE_CLICK)
        assert rewrite(once, edits=HeaderEdits()).content == once

    def test_m12_ours_is_read_by_others_as_one_address_with_one_click(self) -> None:
        sent = email.message_from_bytes(rewrite(top(part(b"<p>x"))).content, policy=email.policy.SMTP)
        assert sent.get_all("List-Unsubscribe") == [f"<{BASE}/unsubscribe/one>"]
        assert sent.get_all("List-Unsubscribe-Post") == ["List-Unsubscribe=One-Click"]

    def test_campaign_mail_offers_one_click_on_two_unfolded_lines(self) -> None:
        result = rewrite(top(part(b"<p>x"))).content
        assert f"List-Unsubscribe: <{BASE}/unsubscribe/one>\r\n".encode() in result
        assert b"\r\nList-Unsubscribe-Post: List-Unsubscribe=One-Click\r\n" in result

    def test_a_message_that_is_not_tracked_offers_it_all_the_same(self) -> None:
        result = rewrite(top(part(b"<p>x"), b"X-Outrider-Track: none", b"X-Mailgun-Track: no"), edits=HeaderEdits())
        assert result.reason == "tracking_off"
        assert result.content.startswith(OFFER + ONE_CLICK)

    @pytest.mark.parametrize(("campaign", "wanted"), [(False, True), (True, False)])
    def test_other_mail_offers_nothing(self, *, campaign: bool, wanted: bool) -> None:
        result = rewrite(top(part(b"<p>x")), options(unsubscribe=wanted), campaign=campaign)
        assert b"List-Unsubscribe" not in result.content

    @pytest.mark.parametrize("line", [ONE_CLICK, b"list-unsubscribe-post:\r\n x\r\n"])
    def test_m12_a_post_line_without_an_address_is_kept_and_not_doubled(self, line: bytes) -> None:
        content = top(part(b"<p>x"), line[:-2])
        result = rewrite(content, edits=HeaderEdits()).content
        assert result.startswith(OFFER + content[: -len(body_of(content))])
        assert result.lower().count(b"list-unsubscribe-post:") == 1

    @pytest.mark.parametrize(
        ("url", "allowed"),
        [
            ("https://t.example.com", True),
            ("http://127.0.0.1:8080", True),
            ("http://127.9.9.9", True),
            ("http://localhost:8080", True),
            ("http://[::1]:8080", True),
            ("http://t.example.com", False),
            ("http://127.0.0.1.example.com", False),
            ("http://localhost.example.com", False),
            ("http://128.0.0.1", False),
            ("http://[::1", False),
            ("", False),
        ],
    )
    def test_one_click_needs_https_or_loopback(self, url: str, *, allowed: bool) -> None:
        assert one_click_allowed(url) is allowed

    def test_without_one_click_only_the_link_is_offered(self) -> None:
        result = rewrite(top(part(b"<p>x")), options(public_url="http://t.example.com")).content
        assert result.count(b"List-Unsubscribe: <") == 1
        assert b"List-Unsubscribe-Post" not in result

    @pytest.mark.parametrize("url", ["https://t.example.com/a b", "https://t.example.com/\r\nX: y", "https://t.é/"])
    def test_an_unsubscribe_address_that_cannot_stand_in_a_header_is_left_out(self, url: str) -> None:
        class Odd:
            def open(self) -> str:
                """Return the pixel's address."""
                return f"{BASE}/o"

            def click(self, link: int, url: str) -> str | None:
                """Return a link's address."""
                return f"{BASE}/c/{link}{len(url)}"

            def unsubscribe(self) -> str:
                """Return what no header may hold."""
                return url

        result = rewrite(top(part(b"<p>x")), minter=Odd())
        assert result.injected
        assert b"List-Unsubscribe" not in result.content
