"""The few pages that people see, in their language, without a script, a cookie or anything that a request said.

Every page is made once when this is imported: what cannot vary cannot be injected into.
"""

import base64
import hashlib
from enum import StrEnum
from pathlib import Path
from types import MappingProxyType

import jinja2
import msgspec
from aiohttp import web

#: What the page's own button sends.
BUTTON_FIELD = "unsubscribe"
BUTTON_VALUE = "yes"

#: On every answer. It holds for a redirect too: the mailer's site does not learn which mail led there.
BASE_HEADERS = MappingProxyType(
    {
        "Cache-Control": "no-store, no-cache, must-revalidate, private, max-age=0",
        "Referrer-Policy": "no-referrer",
        "X-Robots-Tag": "noindex, nofollow",
        "X-Content-Type-Options": "nosniff",
        "Server": "outrider",
    }
)

_HERE = Path(__file__).parent


class Page(StrEnum):
    """The pages."""

    ASK = "ask"
    DONE = "done"
    FAILED = "failed"
    UNKNOWN = "unknown"
    FRONT = "front"


class _Words(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    title: str
    text: str
    button: str = ""


_WORDS = msgspec.toml.decode((_HERE / "words.toml").read_bytes(), type=dict[str, dict[Page, _Words]])
_FIRST = next(iter(_WORDS))
# More than any browser sends; the header is a stranger's.
_MAX_PREFERENCES = 20


def language(accept: str) -> str:
    """Return the best language we have for an Accept-Language header."""
    best, best_weight = _FIRST, 0.0
    for preference in accept[:1000].split(",")[:_MAX_PREFERENCES]:
        tag, _, weight_text = preference.partition(";")
        name = tag.strip().lower().partition("-")[0]
        weight = _weight(weight_text)
        if name in _WORDS and weight > best_weight:
            best, best_weight = name, weight
    return best


def page(request: web.Request, which: Page, status: int = 200) -> web.Response:
    """Return a page in the request's language."""
    chosen = language(request.headers.get("Accept-Language", ""))
    headers = {**_PAGE_HEADERS, "Content-Language": chosen}
    return web.Response(status=status, body=_PAGES[chosen, which], headers=headers)


def plain(status: int, text: str) -> web.Response:
    """Return one line of plain text."""
    return web.Response(status=status, text=f"{text}\n", headers=BASE_HEADERS)


def _weight(text: str) -> float:
    """Return the q of RFC 9110 12.4.2; 0 for what is none."""
    name, equals, value = text.strip().partition("=")
    if not name:
        return 1.0
    if name.strip() != "q" or not equals or not set(value) <= set("0123456789."):
        return 0.0
    try:
        return min(float(value), 1.0)
    except ValueError:
        return 0.0


_STYLE = (_HERE / "page.css").read_text(encoding="utf-8")


def _rendered() -> dict[tuple[str, Page], bytes]:
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    template = environment.from_string((_HERE / "page.html").read_text(encoding="utf-8"))
    fixed = {"style": _STYLE, "field": BUTTON_FIELD, "value": BUTTON_VALUE}
    return {
        (name, which): template.render(language=name, words=words[which], **fixed).encode()
        for name, words in _WORDS.items()
        for which in Page
    }


_PAGES = _rendered()
_STYLE_HASH = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()

_PAGE_HEADERS = MappingProxyType(
    {
        **BASE_HEADERS,
        "Content-Type": "text/html; charset=utf-8",
        "Vary": "Accept-Language",
        "X-Frame-Options": "DENY",
        "Content-Security-Policy": (
            f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; form-action 'self'; frame-ancestors 'none'; "
            "base-uri 'none'"
        ),
    }
)
