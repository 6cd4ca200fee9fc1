"""A message's upstreams: the first route that matches, else the general ones."""

import pytest

from relay.routes import parse_route, parse_routing

ROUTING = parse_routing(
    ["smtp://one.example.com", "smtp://two.example.com"],
    [
        "from:Shop.example=smtp://shop.example.com",
        "campaign:spring*=smtp://spring.example.com:587?starttls=required smtp://reserve.example.com",
        "from:*.shop.example=smtp://u:a%2Cb=c@sub.example.com:587",
    ],
)


@pytest.mark.parametrize(
    ("sender", "campaign", "names"),
    [
        ("a@example.com", "", ["one.example.com:25", "two.example.com:25"]),
        ("", "", ["one.example.com:25", "two.example.com:25"]),
        ("a@SHOP.example", "spring-1", ["shop.example.com:25"]),
        ("a@example.com", "spring-1", ["spring.example.com:587", "reserve.example.com:25"]),
        ("a@example.com", "Spring-1", ["one.example.com:25", "two.example.com:25"]),
        ("a@mail.shop.example", "65", ["sub.example.com:587"]),
        ("a@notshop.example", "65", ["one.example.com:25", "two.example.com:25"]),
    ],
)
def test_the_first_match_wins(sender: str, campaign: str, names: list[str]) -> None:
    """By the envelope sender's domain, whatever its case, or by the campaign."""
    assert [upstream.name for upstream in ROUTING.upstreams_for(sender, campaign)] == names


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("example.com=smtp://h", "expected from:DOMAIN=URL"),
        ("to:example.com=smtp://h", "expected from:DOMAIN=URL"),
        ("from:example.com", "expected from:DOMAIN=URL"),
        ("from:=smtp://h", "expected from:DOMAIN=URL"),
        ("from:a[bc].example=smtp://h", "expected from:DOMAIN=URL"),
        ("from:example.com= ", "expected from:DOMAIN=URL"),
        ("from:example.com=http://h", "expected smtp://"),
        ("from:example.com=smtp://h smtp://h:99999", "port"),
    ],
)
def test_a_wrong_route_is_named(text: str, problem: str) -> None:
    """Each mistake gets its own words."""
    with pytest.raises(ValueError, match=problem):
        parse_route(text)
