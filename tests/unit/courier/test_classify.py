"""People are told from machines: by how a request was made, then by what it says it is."""

import pytest

from courier.classify import RULES, Reason, Verdict, judge
from ledger.events import EventType, Hit

FIREFOX = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"
GMAIL = "Mozilla/5.0 (Windows NT 5.1; rv:11.0) Gecko Firefox/11.0 (via ggpht.com GoogleImageProxy)"
GMAIL_PREFETCH = (
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) "
    "Chrome/42.0.2311.135 Safari/537.36 Edge/12.246 Mozilla/5.0"
)


def make(kind: EventType = EventType.OPENED, *, agent: str = FIREFOX, method: str = "GET", purpose: str = "") -> Hit:
    """Return a hit with the facts that the rules look at."""
    return Hit(id=bytes(16), type=kind, key=bytes(16), at_ms=0, method=method, user_agent=agent, purpose=purpose)


@pytest.mark.parametrize(
    ("agent", "verdict", "reason"),
    [
        (FIREFOX, Verdict.PERSON, Reason.BROWSER),
        ("Mozilla/4.0 (compatible; ms-office; MSOffice 16)", Verdict.PERSON, Reason.BROWSER),
        ("Mozilla/5.0 (Linux; Android 12; CUBOT X18) AppleWebKit/537.36", Verdict.PERSON, Reason.BROWSER),
        ("Mozilla/5.0", Verdict.MACHINE, Reason.APPLE_PRIVACY),
        (GMAIL, Verdict.PROBABLE, Reason.GMAIL_PROXY),
        (GMAIL_PREFETCH, Verdict.MACHINE, Reason.GMAIL_PREFETCH),
        (
            "YahooMailProxy; https://help.yahoo.com/kb/yahoo-mail-proxy-SLN28749.html",
            Verdict.PROBABLE,
            Reason.YAHOO_PROXY,
        ),
        ("", Verdict.MACHINE, Reason.NO_USER_AGENT),
        ("   ", Verdict.MACHINE, Reason.NO_USER_AGENT),
        ("BarracudaCentral/1.0", Verdict.MACHINE, Reason.SCANNER),
        ("Mozilla/5.0 (compatible; Mimecast URL Protect)", Verdict.MACHINE, Reason.SCANNER),
        ("Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)", Verdict.MACHINE, Reason.ROBOT),
        ("Mozilla/5.0 (X11) HeadlessChrome/120.0", Verdict.MACHINE, Reason.ROBOT),
        ("Mozilla/5.0 (Windows NT 6.1; WOW64) SkypeUriPreview Preview/0.5", Verdict.MACHINE, Reason.ROBOT),
        ("curl/8.5.0", Verdict.MACHINE, Reason.PROGRAM),
        ("python-requests/2.32", Verdict.MACHINE, Reason.PROGRAM),
        ("Go-http-client/1.1", Verdict.MACHINE, Reason.PROGRAM),
        ("Microsoft Office/16.0 (Windows NT 10.0; Microsoft Outlook 16.0)", Verdict.PROBABLE, Reason.ODD_USER_AGENT),
        ("Outlook-iOS/723.4079630.prod.iphone", Verdict.PROBABLE, Reason.ODD_USER_AGENT),
    ],
)
def test_an_open_is_judged_by_its_agent(agent: str, verdict: Verdict, reason: Reason) -> None:
    """Each sign in the User-Agent gives its verdict and names itself."""
    judgement = judge(make(agent=agent))
    assert (judgement.verdict, judgement.reason) == (verdict, reason)


def test_a_head_request_is_a_machine_whatever_it_says() -> None:
    """No person's client asks with HEAD."""
    for kind in (EventType.OPENED, EventType.CLICKED, EventType.UNSUBSCRIBED):
        assert judge(make(kind, method="HEAD")).reason is Reason.HEAD_REQUEST


@pytest.mark.parametrize("purpose", ["prefetch", "prefetch;prerender", "Preview", "prerender"])
def test_a_request_ahead_of_the_reader_is_a_machine(purpose: str) -> None:
    """A browser that loads in advance says so, and nobody has looked yet."""
    judgement = judge(make(EventType.CLICKED, purpose=purpose))
    assert (judgement.verdict, judgement.reason) == (Verdict.MACHINE, Reason.PREFETCH)


def test_another_purpose_says_nothing() -> None:
    """Only the words for loading ahead count."""
    assert judge(make(purpose="navigate")).verdict is Verdict.PERSON


def test_the_bare_agent_on_a_link_is_not_apple() -> None:
    """Apple's privacy proxy loads images and never follows links."""
    judgement = judge(make(EventType.CLICKED, agent="Mozilla/5.0"))
    assert (judgement.verdict, judgement.reason) == (Verdict.MACHINE, Reason.BARE_USER_AGENT)


def test_a_posted_unsubscribe_is_a_persons_act() -> None:
    """The mailbox provider's server posts because a person pressed its button, whatever agent it names."""
    for agent in ("", "Mozilla/5.0", "Go-http-client/1.1"):
        judgement = judge(make(EventType.UNSUBSCRIBED, agent=agent, method="POST"))
        assert (judgement.verdict, judgement.reason, judgement.machine) == (Verdict.PERSON, Reason.POSTED, False)


def test_only_machine_counts_apart() -> None:
    """Probable hits count with people."""
    assert not judge(make(agent=GMAIL)).machine
    assert judge(make(agent="curl/8")).machine


def test_evidence_carries_the_version_of_the_rules() -> None:
    """History can be judged again, because every label says by which rules it was given."""
    assert judge(make(agent="")).evidence == f"no_user_agent/{RULES}"
