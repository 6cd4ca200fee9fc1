"""Pages are complete in every language, and a stranger's Accept-Language cannot disturb them."""

import re
import string
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tracker import pages
from tracker.pages import OURS, Page, Pages, TemplateError, language

LANGUAGES = ("en", "ru", "de")


@pytest.mark.parametrize(
    ("accept", "chosen"),
    [
        ("", "en"),
        ("de", "de"),
        ("DE-at", "de"),
        ("fr, ru;q=0.3, de;q=0.7", "de"),
        ("ru;q=0, en;q=0.1", "en"),
        ("ru;q=0", "en"),
        ("ru;q=nan, de;q=0.2", "de"),
        ("ru;q=1e9, de", "de"),
        ("ru;q=7, de", "ru"),
        ("de;level=1, ru", "ru"),
        (", ".join(["fr"] * 50 + ["ru"]), "en"),
        ("deutsch", "en"),
    ],
)
def test_the_readers_language_is_chosen(accept: str, chosen: str) -> None:
    """The greatest weight wins, then the first; what we do not have, or cannot read, is passed over."""
    assert language(accept) == chosen


@given(st.text(alphabet=string.printable + "\u00e9\ud800", max_size=2000))
def test_any_header_has_an_answer(accept: str) -> None:
    """Invariant: whatever is sent, the language is one of ours."""
    assert language(accept) in LANGUAGES


@pytest.mark.parametrize("which", Page)
@pytest.mark.parametrize("name", LANGUAGES)
def test_every_page_is_there_and_can_be_used_by_everybody(name: str, which: Page) -> None:
    """A language, a title, one heading, a viewport; no script, no handler, nothing loaded, no field left open."""
    page = OURS.texts[name, which]
    assert page.startswith("<!doctype html>")
    for once in (f'<html lang="{name}">', "<title>", "<h1>", "<main>", '<meta name="viewport"'):
        assert page.count(once) == 1
    for never in ("<script", "<img", "<link", "<iframe", " style=", "http:", "https:", "{{", "{%"):
        assert never not in page, never
    assert re.search(r"<[^>]* on[a-z]+=", page) is None
    assert ("<button" in page) == (which is Page.ASK)


def test_every_language_says_everything() -> None:
    """No page falls back to another language in the middle, and none says the same as another."""
    assert tuple(pages._WORDS) == LANGUAGES
    for words in pages._WORDS.values():
        assert set(words) == set(Page)
        assert len({msgspec.json.encode(said) for said in words.values()}) == len(Page)


OWN = """<html lang="{{ language }}"><style>h1{color:#123456}</style><img src="https://shop.example.com/logo.png">
<h1>Shop: {{ words.title }}</h1>
{% if page == "ask" %}<form method="post">
<button name="{{ field }}" value="{{ value }}">{{ words.button }}</button></form>
{% else %}{{ words.text }}{% endif %}"""


def test_an_operators_template_makes_every_page() -> None:
    """In each language, with our words or with others."""
    own = Pages(OWN)
    assert set(own.texts) == set(OURS.texts)
    assert "<h1>Shop: Abmelden</h1>" in own.texts["de", Page.ASK]
    assert own.texts["en", Page.FAILED].count("<form") == 0


def test_the_template_of_the_manual_serves() -> None:
    """What an operator copies out of docs/howto.md."""
    manual = (Path(__file__).parents[3] / "docs" / "howto.md").read_text(encoding="utf-8")
    (template,) = re.findall(r"```html\n(.*?)```", manual, re.DOTALL)
    assert "Abmelden" in Pages(template).texts["de", Page.ASK]


@pytest.mark.parametrize(
    ("template", "why"),
    [
        ("", "no form by which to unsubscribe"),
        ("<h1>{{ words.title }}</h1>", "no form by which to unsubscribe"),
        (OWN.replace('method="post"', ""), "no form by which to unsubscribe"),
        (OWN.replace("{{ value }}", "no"), "no form by which to unsubscribe"),
        (OWN + "{% if %}", "expected a template of Jinja"),
        (OWN + "{{ recipient }}", "'recipient' is undefined"),
        (OWN + "{{ 1 / 0 }}", "expected a template that renders: ZeroDivisionError"),
        (OWN + "{{ words.title + 1 }}", "expected a template that renders: TypeError"),
        (OWN + "{% include '/etc/passwd' %}", "expected a template that renders: TypeError"),
    ],
)
def test_a_template_with_which_nobody_could_unsubscribe_is_refused(template: str, why: str) -> None:
    """It is said at the start, and not by a person who could not leave."""
    with pytest.raises(TemplateError, match=why):
        Pages(template)
