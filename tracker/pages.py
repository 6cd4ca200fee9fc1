"""The few pages that people see, in their language, without a script, a cookie or anything that a request said.

Every page is made once, before the first request: what cannot vary cannot be injected into. An operator's own template
takes the place of ours; whatever it holds, no script runs, and no form leads anywhere else.
"""

import base64
import hashlib
import re
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
    """Return a page in the request's language, by the application's template."""
    return request.app.get(PAGES, OURS).answer(request, which, status)


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
_STYLES = re.compile(r"<style>(.*?)</style>", re.DOTALL)


class TemplateError(ValueError):
    """A template cannot serve as the pages' own: it is no template, or nobody could unsubscribe with it."""


class Pages:
    """Every page in every language, made of one template."""

    def __init__(self, template: str) -> None:
        environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
        fixed = {"style": _STYLE, "field": BUTTON_FIELD, "value": BUTTON_VALUE}
        try:
            made = environment.from_string(template)
            self.texts = {
                (name, which): made.render(language=name, page=which.value, words=words[which], **fixed)
                for name, words in _WORDS.items()
                for which in Page
            }
        except jinja2.TemplateError as error:
            raise TemplateError(f"expected a template of Jinja: {error.message}") from None
        # An undefined name may also do what no undefined name can.
        except (TypeError, ValueError, ArithmeticError) as error:
            raise TemplateError(f"expected a template that renders: {type(error).__name__}") from None
        for (name, which), text in self.texts.items():
            if which is Page.ASK and not _asks(text):
                raise TemplateError(
                    f"its page {which.value} ({name}) has no form by which to unsubscribe: "
                    '<form method="post"> with <button name="{{ field }}" value="{{ value }}">'
                )
        self._answers = {place: (text.encode(), _headers(text)) for place, text in self.texts.items()}

    def answer(self, request: web.Request, which: Page, status: int) -> web.Response:
        """Return a page in the request's language."""
        chosen = language(request.headers.get("Accept-Language", ""))
        body, headers = self._answers[chosen, which]
        return web.Response(status=status, body=body, headers={**headers, "Content-Language": chosen})


def _asks(text: str) -> bool:
    form = re.search(r"<form\b[^>]*\bmethod=[\"']?post\b.*?</form>", text, re.DOTALL | re.IGNORECASE)
    return form is not None and f'name="{BUTTON_FIELD}"' in form[0] and f'value="{BUTTON_VALUE}"' in form[0]


def _headers(text: str) -> dict[str, str]:
    styles = {base64.b64encode(hashlib.sha256(style.encode()).digest()).decode() for style in _STYLES.findall(text)}
    style = " ".join(f"'sha256-{digest}'" for digest in sorted(styles)) or "'none'"
    # A logo: it learns that somebody looks, and neither who nor by which link.
    images = "img-src https: data:; " if "<img" in text.lower() else ""
    return {
        **BASE_HEADERS,
        "Content-Type": "text/html; charset=utf-8",
        "Vary": "Accept-Language",
        "X-Frame-Options": "DENY",
        "Content-Security-Policy": (
            f"default-src 'none'; style-src {style}; {images}form-action 'self'; frame-ancestors 'none'; "
            "base-uri 'none'"
        ),
    }


#: Our own pages, and the place of an application's.
OURS = Pages((_HERE / "page.html").read_text(encoding="utf-8"))
PAGES = web.AppKey("pages", Pages)
