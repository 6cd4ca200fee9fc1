"""Whose upstream an address names."""

import pytest

from providers.webhook import Provider
from relay.routes import parse_routing
from relay.upstream_address import parse
from tests.vendors import JSON, TAGS, known


@pytest.fixture(autouse=True)
def _known(monkeypatch: pytest.MonkeyPatch) -> None:
    known(monkeypatch)


@pytest.mark.parametrize(
    ("url", "provider"),
    [
        ("smtp://mail.example.com", None),
        ("smtp://mail.example.com?profile=tags", TAGS),
        ("smtps://mail.example.com:465?rate=5/s&profile=json", JSON),
        ("smtp://tags.example.com", TAGS),
        ("smtp://EU.Tags.example.com.:587", TAGS),
        ("smtp://nottags.example.com", None),
        ("smtp://tags.example.com.example.net", None),
        # The operator's word stands above the name.
        ("smtp://tags.example.com?profile=generic", None),
        ("smtp://tags.example.com?profile=json", JSON),
        ("capture", None),
    ],
)
def test_the_profile_is_named_or_told_by_the_host(url: str, provider: Provider | None) -> None:
    """By the whole ending of the name, never by a part of a label."""
    assert parse(url).provider is provider


@pytest.mark.parametrize("name", ["ses2", "", "Tags", "tags json"])
def test_an_unknown_profile_names_the_known_ones(name: str) -> None:
    """Nothing is guessed from a word that nobody knows."""
    with pytest.raises(ValueError, match=rf"unknown profile '{name}'; known: fresh, json, tags, generic"):
        parse(f"smtp://tags.example.com?profile={name.replace(' ', '%20')}")


def test_an_unknown_option_names_the_known_ones() -> None:
    """The profile is one of them."""
    with pytest.raises(ValueError, match="unknown option 'profil'; known: starttls, rate, profile"):
        parse("smtp://tags.example.com?profil=tags")


def test_guesses_are_told_once_for_each_upstream() -> None:
    """What the operator said himself is no guess."""
    routing = parse_routing(
        ["smtp://tags.example.com", "smtp://json.example.com?profile=json", "smtp://mail.example.com"],
        ["from:a.example=smtp://tags.example.com", "from:b.example=smtp://json.example.com:587"],
        "smtp://eu.json.example.com",
    )
    assert [(address.name, provider.name) for address, provider in routing.guessed()] == [
        ("tags.example.com:25", "tags"),
        ("json.example.com:587", "json"),
        ("eu.json.example.com:25", "json"),
    ]
