"""Find what cannot be meant about the sinks beside AMS: names, URLs, secrets and types of events."""

import re
from collections.abc import Iterator

from courier.settings import ListmonkSettings, SinkSettings
from courier.sinks import TAKEN_NAMES
from courier.standard_webhook import key_of
from ledger.events import EventType
from sidecar.settings import Settings

# A host alone, or with a path below which listmonk stands.
_BASE_URL = re.compile(r"\Ahttps?://[^/?#\s]+(?:/[!->@-~]*)?\Z")
_HTTP_URL = re.compile(r"\Ahttps?://[^/?#\s]+(?:[/?][!-~]*)?\Z")


def faults(settings: Settings) -> Iterator[tuple[str, str]]:
    """Yield the path of a setting and what is expected of it."""
    for name, sink in settings.sinks.items():
        for key, text in _of_sink(name, sink):
            yield f"sinks.{name}.{key}", text
    for key, text in _of_listmonk(settings.listmonk):
        yield f"listmonk.{key}", text


def _of_sink(name: str, sink: SinkSettings) -> Iterator[tuple[str, str]]:
    if name in TAKEN_NAMES:
        yield "url", f"{name} is no name for a webhook, because it means something else: call it otherwise"
    elif not _HTTP_URL.match(sink.url):
        yield "url", "expected http:// or https://, a host, and the receiver's path"
    if not sink.secret:
        yield "secret", "must be set: expected whsec_ and base64, which the receiver knows too"
    for number, secret in enumerate(sink.secret, start=1):
        try:
            key_of(secret)
        except ValueError as error:
            item = f"item {number}: " if len(sink.secret) > 1 else ""
            yield "secret", f"{item}{error}"
    if unknown := [one for one in sink.events if one not in list(EventType)]:
        yield "events", f"{len(unknown)} of them no type of event: expected some of {', '.join(EventType)}"


def _of_listmonk(listmonk: ListmonkSettings) -> Iterator[tuple[str, str]]:
    if not listmonk.url:
        return
    if not _BASE_URL.match(listmonk.url):
        yield "url", "expected http:// or https:// and listmonk's host, such as https://listmonk.example.com"
    for key, value in (("user", listmonk.user), ("token", listmonk.token)):
        if not value:
            yield key, "must be set, because listmonk takes bounces from an API user alone"
    if ":" in listmonk.user:
        yield "user", "expected no colon"
