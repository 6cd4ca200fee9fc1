"""Neither the way that a path is written nor what a header says of its sender leads the tracker astray."""

import pytest

from tests.tracker_support import Kept, tracking
from tracker.settings import TrackerSettings


@pytest.mark.parametrize("before", ["/", "/.", "//x", "/x/..", "/%2F"])
async def test_w11_a_token_below_another_path_is_a_bad_link(before: str) -> None:
    """No path is repaired."""
    kept = Kept()
    async with tracking(kept) as tracker:
        refusal = await tracker.ask("/track/c/nothing")
        assert refusal.status == 404
        assert (await tracker.ask(before + tracker.click)).shown == refusal.shown
    assert kept.hits == []


@pytest.mark.parametrize("name", ["Forwarded", "X-Real-IP", "True-Client-IP", "CF-Connecting-IP", "X-Client-IP"])
async def test_w12_no_other_header_says_where_a_client_is(name: str) -> None:
    """Not from a trusted proxy either: it would have to strip every one of them."""
    kept = Kept()
    said = "for=203.0.113.9" if name == "Forwarded" else "203.0.113.9"
    async with tracking(kept, settings=TrackerSettings(trusted_proxies=("127.0.0.0/8",))) as tracker:
        await tracker.ask(tracker.pixel, headers={name: said})
    assert [hit.network for hit in kept.hits] == ["127.0.0.0/24"]
