"""An operator's own page: people see it, it can do what ours does, and no more than ours may."""

import base64
import hashlib

from ledger.events import EventType
from tests.tracker_support import Kept, tracking
from tracker.pages import Pages

STYLE = "h1 { color: #123456 }"
TEMPLATE = f"""<!doctype html><html lang="{{{{ language }}}}"><style>{STYLE}</style><script>evil()</script>
<img src="https://shop.example.com/logo.png"><h1>Shop: {{{{ words.title }}}}</h1><p>{{{{ words.text }}}}</p>
{{% if page == "ask" %}}<form method="post">
<button name="{{{{ field }}}}" value="{{{{ value }}}}">{{{{ words.button }}}}</button></form>{{% endif %}}"""


async def test_people_see_it_and_unsubscribe_with_it() -> None:
    """In their language; a mail program's one click needs no page at all."""
    kept = Kept()
    async with tracking(kept, pages=Pages(TEMPLATE)) as tracker:
        asked = await tracker.ask(tracker.leave, headers={"Accept-Language": "de"})
        assert (asked.status, asked.headers["content-language"]) == (200, "de")
        assert "<h1>Shop: Abmelden</h1>" in asked.body.decode()
        for body in (b"unsubscribe=yes", b"List-Unsubscribe=One-Click"):
            done = await tracker.ask(tracker.leave, "POST", body=body)
            assert (done.status, b"Shop: You are unsubscribed" in done.body) == (200, True)
        unknown = await tracker.ask("/track/c/x")
        assert (unknown.status, b"Shop: This link does not work" in unknown.body) == (404, True)
    assert [hit.type for hit in kept.hits] == [EventType.UNSUBSCRIBED] * 2


async def test_it_is_locked_down_like_ours() -> None:
    """Its styles count and its images; a script does not run, whoever wrote it, and nobody frames it."""
    digest = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
    async with tracking(Kept(), pages=Pages(TEMPLATE)) as tracker:
        answer = await tracker.ask(tracker.leave)
    assert answer.headers["content-security-policy"] == (
        f"default-src 'none'; style-src 'sha256-{digest}'; img-src https: data:; form-action 'self'; "
        "frame-ancestors 'none'; base-uri 'none'"
    )
    assert answer.headers["referrer-policy"] == "no-referrer"
    assert "set-cookie" not in answer.headers
