"""Say of each sink that is configured how it is told: what one event becomes, what a request holds, how turns go."""

import time
from collections.abc import Callable, Mapping, Sequence

import msgspec

from courier import listmonk, standard_webhook
from courier.outbox import Standing
from courier.settings import ListmonkSettings, SinkSettings
from courier.sinks import LISTMONK, Plan, Telling, singly, turn
from ledger.sinks import Waiting

# So many items are looked at where one is told at a time.
_SINGLES = 50


class Outlet(msgspec.Struct, frozen=True, kw_only=True):
    """One sink, as the loop that serves it needs to know it."""

    name: str
    url: str
    interval: float
    timeout: float
    ca_file: str
    #: Items looked at in a turn, and octets in a request.
    most: int
    max_bytes: int
    #: It cannot tell a copy: what may have been taken is not sent again unasked.
    once: bool
    #: Makes one event's part of a request.
    compose: Callable[[Waiting], bytes]
    #: Makes body and headers of a request.
    request: Callable[[Sequence[Telling]], tuple[bytes, Mapping[str, str]]]
    plan: Callable[[Sequence[Telling], Standing], Plan]

    def __repr__(self) -> str:
        """Show the name alone: the rest holds secrets."""
        return f"Outlet({self.name!r})"


def outlets(sinks: Mapping[str, SinkSettings], mailer: ListmonkSettings) -> tuple[Outlet, ...]:
    """Return every sink that is configured."""
    webhooks = [_webhook(name, settings) for name, settings in sorted(sinks.items())]
    return (*webhooks, *([_listmonk(mailer)] if mailer.url else []))


def _webhook(name: str, settings: SinkSettings) -> Outlet:
    keys = [standard_webhook.key_of(secret) for secret in settings.secret]
    # Where a request holds one event, a refused one must not stand before the others.
    alone = settings.max_batch == 1

    def request(items: Sequence[Telling]) -> tuple[bytes, Mapping[str, str]]:
        body = standard_webhook.body_of(items)
        return body, standard_webhook.signed(body, keys, time.time())

    def plan(batch: Sequence[Telling], standing: Standing) -> Plan:
        return singly(batch, standing, once=False) if alone else turn(batch, standing)

    return Outlet(
        name=name,
        url=settings.url,
        interval=settings.interval,
        timeout=settings.timeout,
        ca_file=settings.ca_file,
        most=_SINGLES if alone else settings.max_batch,
        max_bytes=settings.max_bytes,
        once=False,
        compose=standard_webhook.compose,
        request=request,
        plan=plan,
    )


def _listmonk(settings: ListmonkSettings) -> Outlet:
    headers = listmonk.headers(settings.user, settings.token)

    def request(items: Sequence[Telling]) -> tuple[bytes, Mapping[str, str]]:
        (item,) = items
        return item.content, headers

    def plan(batch: Sequence[Telling], standing: Standing) -> Plan:
        return singly(batch, standing, secret=settings.token, once=True)

    return Outlet(
        name=LISTMONK,
        url=settings.url.rstrip("/") + listmonk.PATH,
        interval=settings.interval,
        timeout=settings.timeout,
        ca_file=settings.ca_file,
        most=_SINGLES,
        # Its plan tells them one by one, whatever they hold together.
        max_bytes=2**31,
        once=True,
        compose=listmonk.compose,
        request=request,
        plan=plan,
    )
