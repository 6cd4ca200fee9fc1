"""Tell people from machines, hit by hit.

A hit is labelled, never dropped, and the label carries the version of the rules that gave it, so that history can be
judged again. The strongest sign decides: how the request was made, then what it says it is, then whence and when it
came. Bursts, the one rule that looks at several hits, are `courier.bursts`' part.
"""

import ipaddress
import re
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from enum import StrEnum
from functools import lru_cache
from types import MappingProxyType

import msgspec

from ledger.events import EventType, Hit
from providers.notice import Notice, What

#: Rises with every change of a rule below.
RULES = 2


class Verdict(StrEnum):
    """Who stands behind a hit. `probable` counts as a person: somebody most likely looked, by a proxy or a tool."""

    PERSON = "person"
    PROBABLE = "probable"
    MACHINE = "machine"

    # That of an enum is written in Python, as it is for the reasons below; they are looked up with every hit.
    __hash__ = str.__hash__


class Reason(StrEnum):
    """The evidence for a verdict."""

    BROWSER = "browser"
    POSTED = "posted"
    HEAD_REQUEST = "head_request"
    PREFETCH = "prefetch"
    NO_USER_AGENT = "no_user_agent"
    APPLE_PRIVACY = "apple_privacy"
    BARE_USER_AGENT = "bare_user_agent"
    GMAIL_PREFETCH = "gmail_prefetch"
    GMAIL_PROXY = "gmail_proxy"
    YAHOO_PROXY = "yahoo_proxy"
    SCANNER = "scanner"
    ROBOT = "robot"
    PROGRAM = "program"
    ODD_USER_AGENT = "odd_user_agent"
    OWN_NETWORK = "own_network"
    EARLY = "early"
    BURST = "burst"
    #: What a provider says of an open or a click: that a machine did it, or not with what program it was done.
    PROVIDER_SAYS = "provider_says"
    PROVIDER_SILENT = "provider_silent"

    __hash__ = str.__hash__


# Members by names of this module: a look at an enum's class takes longer than most of what is asked of a hit.
_MACHINE = Verdict.MACHINE
_OPENED, _UNSUBSCRIBED = EventType.OPENED, EventType.UNSUBSCRIBED
_EVIDENCE: Mapping[Reason, str] = MappingProxyType({reason: f"{reason}/{RULES}" for reason in Reason})


class Judgement(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A verdict and its evidence."""

    verdict: Verdict
    reason: Reason

    @property
    def machine(self) -> bool:
        """Whether the hit counts apart from people's."""
        return self.verdict is _MACHINE

    @property
    def evidence(self) -> str:
        """The reason with the version of the rules, as the ledger keeps it: `head_request/1`."""
        return _EVIDENCE[self.reason]


# Apple's Mail Privacy Protection fetches images through a proxy whose agent is exactly this, read or not.
_BARE = "mozilla/5.0"

# Gmail's proxy asks on the reader's behalf when a mail is opened; its prefetcher carries this one old agent.
_GMAIL_PROXY = "googleimageproxy"
_GMAIL_PREFETCH = "edge/12.246 mozilla/5.0"
_YAHOO_PROXY = "yahoomailproxy"

_PREFETCH = re.compile(r"prefetch|prerender|preview")

# Mail security and link safety services that name themselves.
_SCANNER = re.compile(
    r"barracuda|mimecast|proofpoint|ironport|messagelabs|forcepoint|trendmicro|trend micro|fireeye|fortiguard|"
    r"fortinet|zscaler|safelinks|virustotal|urlscan|urldefense|cloudmark|clearswift|retarus|hornetsecurity|"
    r"google-safety|googlesafebrowsing|phishtank|netcraft|spamassassin|rspamd"
)

# "Cubot" is a make of telephones.
_ROBOT = re.compile(
    r"(?<!cu)bot\b|crawl|spider|\bscan(?:ner)?\b|headless|phantomjs|selenium|puppeteer|playwright|preview|"
    r"facebookexternalhit|whatsapp|slurp|monitoring|uptime|archiver|validator|checker\b|checklink|link sleuth"
)

_PROGRAM = re.compile(
    r"(?:curl|wget|libcurl|python|aiohttp|httpx|go-http-client|java|apache-httpclient|libwww-perl|lwp|perl|ruby|php|"
    r"guzzlehttp|node|node-fetch|axios|undici|got|winhttp|powershell|postmanruntime|insomnia|scrapy|httpie|"
    r"restsharp|reqwest)\b"
)


def judge(hit: Hit) -> Judgement:
    """Say who stands behind *hit*, and by what sign."""
    if hit.method == "HEAD":
        return Judgement(verdict=Verdict.MACHINE, reason=Reason.HEAD_REQUEST)
    if hit.type is _UNSUBSCRIBED:
        # A POST is an act (RFC 8058); the mailbox provider's server performs it because a person pressed a button.
        return Judgement(verdict=Verdict.PERSON, reason=Reason.POSTED)
    if hit.purpose and _PREFETCH.search(hit.purpose.lower()):
        return Judgement(verdict=Verdict.MACHINE, reason=Reason.PREFETCH)
    return _judge_agent(hit.user_agent, opened=hit.type is _OPENED)


def judge_notice(notice: Notice) -> Judgement | None:
    """Say who stands behind an open or a click that a provider reports; none for what no visitor did."""
    if notice.what not in {What.OPENED, What.CLICKED}:
        return None
    if notice.machine:
        return Judgement(verdict=Verdict.MACHINE, reason=Reason.PROVIDER_SAYS)
    if not notice.user_agent.strip():
        # It filters what it takes for machines, and does not tell us the rest.
        return Judgement(verdict=Verdict.PROBABLE, reason=Reason.PROVIDER_SILENT)
    return _judge_agent(notice.user_agent, opened=notice.what is What.OPENED)


def like_a_person(reason: str | None, *, machine: bool) -> bool:
    """Tell whether a hit with this label looked like a person's by itself, which is what a burst is made of.

    A machine that says what it is never makes one: a person who clicks beside it would be taken for it.
    """
    return not machine or (reason or "").partition("/")[0] in {Reason.EARLY, Reason.BURST}


class OwnNetworks:
    """The operator's networks, compared with the truncated ones that hits keep."""

    def __init__(self, networks: Sequence[str]) -> None:
        self._networks = tuple(ipaddress.ip_network(network) for network in networks)
        # Hits come from few networks at a time.
        self._known = lru_cache(maxsize=4096)(self._look)

    def hold(self, network: str) -> bool:
        """Tell whether the whole of *network* (`192.0.2.0/24`, or empty) is the operator's."""
        return bool(self._networks) and self._known(network)

    def _look(self, network: str) -> bool:
        try:
            seen = ipaddress.ip_network(network)
        except ValueError:
            return False
        return any(
            seen.subnet_of(own)  # type: ignore[arg-type]  # of one version, which mypy cannot see
            for own in self._networks
            if own.version == seen.version
        )


def too_early(at: datetime, accepted_at: datetime, seconds: float) -> bool:
    """Tell whether a hit came before anybody can have had its message.

    A hit from before the acceptance shows that clocks differ. By less than *seconds* that is no matter; by more, the
    times say nothing.
    """
    return abs(at - accepted_at) < timedelta(seconds=seconds)


# A few agents make most of the traffic, and the tables cost more than everything else about a hit.
@lru_cache(maxsize=4096)
def _judge_agent(spelt: str, *, opened: bool) -> Judgement:
    agent = spelt.strip().lower()
    if not agent:
        return Judgement(verdict=Verdict.MACHINE, reason=Reason.NO_USER_AGENT)
    if agent == _BARE:
        return Judgement(verdict=Verdict.MACHINE, reason=Reason.APPLE_PRIVACY if opened else Reason.BARE_USER_AGENT)
    if agent.endswith(_GMAIL_PREFETCH):
        return Judgement(verdict=Verdict.MACHINE, reason=Reason.GMAIL_PREFETCH)
    if _GMAIL_PROXY in agent:
        return Judgement(verdict=Verdict.PROBABLE, reason=Reason.GMAIL_PROXY)
    if _YAHOO_PROXY in agent:
        return Judgement(verdict=Verdict.PROBABLE, reason=Reason.YAHOO_PROXY)
    if _SCANNER.search(agent):
        return Judgement(verdict=Verdict.MACHINE, reason=Reason.SCANNER)
    if _ROBOT.search(agent):
        return Judgement(verdict=Verdict.MACHINE, reason=Reason.ROBOT)
    if _PROGRAM.match(agent):
        return Judgement(verdict=Verdict.MACHINE, reason=Reason.PROGRAM)
    if not agent.startswith("mozilla/"):
        # Mail programs that load images under a name of their own.
        return Judgement(verdict=Verdict.PROBABLE, reason=Reason.ODD_USER_AGENT)
    return Judgement(verdict=Verdict.PERSON, reason=Reason.BROWSER)
