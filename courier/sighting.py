"""Read what stands in the stream, a hit of our tracker's or a provider's notice, as one thing to record. Pure.

A hit names its message by the key in its token. A notice names it by whatever the provider knows, best first.
"""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from types import MappingProxyType
from urllib.parse import unquote

import msgspec

from courier.classify import Judgement, judge, judge_notice
from courier.engagement import OWN
from injector.tokens import Keyring, Purpose, TokenError
from ledger.events import EventType, Hit, decode_hit
from ledger.ids import KEY_BYTES, KEY_CHARS, alias_digest, key_bytes, normalise_message_id, recipient_index
from ledger.visitors import network_of, printable
from providers.notice import Name, Notice, Step, decode_notice

_DEDUPE_BYTES = 16
_HITS = frozenset({EventType.OPENED, EventType.CLICKED, EventType.UNSUBSCRIBED})
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# Until the year 9999, the last that Python counts.
_LATEST_MS = 253_402_300_799_999
_CLICKS = "/track/c/"
_LADDER = tuple(Step)
#: The steps whose ids are learnt from events that another step matched, and the kind of alias that they become.
_LEARNT: Mapping[Step, str] = MappingProxyType({Step.PROVIDER_ID: "provider", Step.BATCH: "batch"})
_AGENT_CHARS = 512
# By a name of this module: a look at an enum's class takes longer than to make what it is for.
_TOKEN = Step.TOKEN


class Lookup(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One id by which the ledger may find the message."""

    step: Step
    #: A message key, a submission's key, or an alias digest: 16 bytes.
    named: bytes
    #: It is a message's own key, so it cannot lead to another's.
    own: bool = False


class Sighting(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Something that happened to a message, and what we make of it."""

    #: 16 bytes; makes the copies of it one.
    id: bytes
    #: As it came.
    raw: bytes
    #: `tracker`, or a provider's name.
    source: str
    type: EventType
    at: datetime
    judgement: Judgement | None
    #: The ids of its message, the best first.
    names: tuple[Lookup, ...]
    #: The blind index of its recipient; empty where nobody says who that was.
    recipient: bytes = b""
    #: Alias digests that name the message from now on.
    learns: tuple[bytes, ...] = ()
    link: int | None = None
    url: str = ""
    network: str = ""
    user_agent: str = ""
    #: A provider's words; none for a hit.
    notice: Notice | None = None
    #: The hit as our tracker made it; none for a notice.
    hit: Hit | None = None

    @property
    def machine(self) -> bool:
        """Whether it counts apart from what people did."""
        return self.judgement is not None and self.judgement.machine


class Reader:
    """Reads entries of the stream. *identity* is the key of recipients' indexes, *keyring* that of our own links."""

    def __init__(self, *, identity: bytes, keyring: Keyring) -> None:
        self._identity = identity
        self._keyring = keyring

    def read(self, raw: bytes) -> Sighting | None:
        """Return what these bytes tell; none when they are nothing that could be attributed or dated."""
        try:
            return _of_hit(decode_hit(raw), raw)
        except (msgspec.DecodeError, UnicodeDecodeError):
            pass
        try:
            return self._of_notice(decode_notice(raw), raw)
        except (msgspec.DecodeError, UnicodeDecodeError):
            return None

    def _of_notice(self, notice: Notice, raw: bytes) -> Sighting | None:
        if notice.at_ms is None or not 0 <= notice.at_ms <= _LATEST_MS or not notice.provider or not notice.dedupe:
            return None
        claim_key, link, url = self._own_link(notice.url)
        names = [
            lookup
            for step in _LADDER
            for name in notice.names
            if name.step is step
            for lookup in _lookups(name, notice)
        ]
        if claim_key:
            names.insert(0, Lookup(step=Step.TOKEN, named=claim_key, own=True))
        return Sighting(
            id=alias_digest("notice", notice.provider, notice.dedupe),
            raw=raw,
            source=notice.provider,
            type=EventType(notice.what),
            at=_EPOCH + timedelta(milliseconds=notice.at_ms),
            judgement=judge_notice(notice),
            names=tuple(dict.fromkeys(names)),
            recipient=recipient_index(self._identity, notice.recipient) if notice.recipient else b"",
            learns=tuple(
                alias_digest(_LEARNT[name.step], notice.provider, name.value)
                for name in notice.names
                if name.step in _LEARNT
            ),
            link=link,
            url=url,
            network=network_of(notice.ip),
            user_agent=printable(notice.user_agent, _AGENT_CHARS),
            notice=notice,
        )

    def _own_link(self, url: str) -> tuple[bytes, int | None, str]:
        """Return what one of our links stands for, whose click a provider reports: key, link, destination."""
        _, marker, rest = url.partition(_CLICKS)
        if not marker:
            return b"", None, url
        try:
            # The provider may have put something of its own behind it.
            claim = self._keyring.verify(Purpose.CLICK, rest.partition("?")[0].partition("#")[0])
        except TokenError:
            return b"", None, url
        return claim.key, claim.link, claim.url


def _of_hit(hit: Hit, raw: bytes) -> Sighting | None:
    if len(hit.id) != _DEDUPE_BYTES or len(hit.key) != KEY_BYTES or hit.type not in _HITS:
        return None
    if not 0 <= hit.at_ms <= _LATEST_MS:
        return None
    return Sighting(
        id=hit.id,
        raw=raw,
        source=OWN,
        type=hit.type,
        at=_EPOCH + timedelta(milliseconds=hit.at_ms),
        judgement=judge(hit),
        names=(Lookup(step=_TOKEN, named=hit.key, own=True),),
        link=hit.link if hit.link >= 0 else None,
        url=hit.url,
        network=hit.network,
        user_agent=hit.user_agent,
        hit=hit,
    )


def _lookups(name: Name, notice: Notice) -> list[Lookup]:
    match name.step:
        case Step.MESSAGE_ID:
            spelt = normalise_message_id(_unquoted(name.value))
            local = spelt.partition("@")[0]
            alias = Lookup(step=name.step, named=alias_digest("message-id", "", spelt))
            return [*_own(name.step, local), alias]
        case Step.TOKEN:
            return _own(name.step, name.value)
        case Step.REPLY_ID:
            return [Lookup(step=name.step, named=alias_digest("upstream", notice.provider, name.value))]
        case Step.PROVIDER_ID:
            return [Lookup(step=name.step, named=alias_digest("provider", notice.provider, name.value))]
        case Step.BATCH:
            # A submission's key, or an id that was learnt for all of its messages.
            batch = [Lookup(step=name.step, named=one.named) for one in _own(name.step, name.value)]
            return [*batch, Lookup(step=name.step, named=alias_digest("batch", notice.provider, name.value))]


def _unquoted(value: str) -> str:
    """Return an id that was put into a URL, and taken out as it stood there, as it was: `%3Ca@b.example%3E`."""
    spelt = value.strip()
    quoted = spelt[:3].lower() == "%3c" and spelt[-3:].lower() == "%3e"
    return unquote(spelt, errors="surrogateescape") if quoted else spelt


def _own(step: Step, spelt: str) -> list[Lookup]:
    """Return the message key that *spelt* is, also with the number of an attempt behind it: `key.2`."""
    if len(spelt) > KEY_CHARS and not (spelt[KEY_CHARS] == "." and spelt[KEY_CHARS + 1 :].isdecimal()):
        return []
    try:
        return [Lookup(step=step, named=key_bytes(spelt[:KEY_CHARS]), own=True)]
    except ValueError:
        return []
