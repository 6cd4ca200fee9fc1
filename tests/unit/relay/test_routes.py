"""A message's upstreams: the first route that matches, else the general ones."""

import pytest

from relay.routes import parse_notices, parse_route, parse_routing

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


def test_notifications_take_their_own_way_alone() -> None:
    """Whatever the routes say; without one of their own they go like other mail."""
    routes = ["from:*=smtp://one.example.com", "campaign:*=smtp://one.example.com"]
    routing = parse_routing(["smtp://two.example.com"], routes, "smtps://dsn.example.com")
    assert [one.name for one in routing.upstreams_for("", "", notice=True)] == ["dsn.example.com:465"]
    assert [one.name for one in routing.upstreams_for("", "")] == ["two.example.com:25"]
    assert "dsn.example.com:465" in [one.name for one in routing.all_upstreams()]
    for dsn in ("upstream", "off"):
        plain = parse_routing(["smtp://two.example.com"], routes, dsn)
        assert plain.upstreams_for("", "", notice=True) == plain.upstreams_for("", "")


@pytest.mark.parametrize("dsn", ["", "capture", "none", "one.example.com"])
def test_a_wrong_way_of_notifications_is_named(dsn: str) -> None:
    """Files are no way for them: nobody would be told."""
    with pytest.raises(ValueError, match=r"expected upstream, off, smtp://host:port"):
        parse_notices(dsn)
