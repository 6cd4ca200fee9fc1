"""What is nested so deeply that it can just be read, and no longer be written, is refused and never a fault of ours."""

import sys
import traceback
from contextlib import suppress

import msgspec
import pytest

from providers.registry import PROVIDERS
from providers.webhook import MalformedError, Provider, Request
from tests.unit.providers.samples import ses

EVERYBODY = pytest.mark.parametrize("provider", PROVIDERS.values(), ids=lambda one: one.name)


def depths() -> range:
    """Return the depths around the one at which Python gives up here: it counts the calls above a test too."""
    left = sys.getrecursionlimit() - sum(1 for _ in traceback.walk_stack(None))
    return range(left - 40, left + 10)


def posted(provider: Provider, body: str) -> bytes:
    """Return the octets in which the provider posts this."""
    return msgspec.json.encode(ses.notification(body)) if provider.name == "ses" else body.encode()


@EVERYBODY
@pytest.mark.parametrize(
    ("before", "after"), [('{"event":', "}"), ("[", "]"), ('[{"msys":', "}]"), ('{"event-data":{"a":', "}}")]
)
def test_a_deep_body_is_read_or_malformed(provider: Provider, before: str, after: str) -> None:
    """At every depth."""
    headers = {"content-type": "application/json"}
    for depth in depths():
        body = posted(provider, before + '{"a":' * depth + "1" + "}" * depth + after)
        # Nothing else is ever raised.
        with suppress(MalformedError):
            assert provider.parse(Request(method="POST", headers=headers, query={}, body=body)).notices


@EVERYBODY
@pytest.mark.parametrize(("before", "after"), [("", ""), ('{"unique_args":', "}"), ('{"metadata":', "}")])
def test_a_deep_header_is_stamped_or_left(provider: Provider, before: str, after: str) -> None:
    """Whatever a mailer wrote, its mail goes out."""
    for depth in depths():
        value = before + '{"a":' * depth + "1" + "}" * depth + after
        stamped = provider.stamp("a" * 26, dict.fromkeys(provider.stamped, value))
        assert set(stamped) <= set(provider.stamped)
