"""A day's log of visits with known truth: who of them was a person, and who was not. Seeded: equal seeds, equal logs.

The kinds and their signs are those of docs/machines.md, the hard ones among them: readers who open many links at once,
scanners that look like browsers and find too few links for a burst.
"""

import random
from collections.abc import Callable, Iterator
from datetime import UTC, datetime

import msgspec

from ledger.events import EventType, Hit
from tests.mailings import NOON_MS

OPENED, CLICKED, UNSUBSCRIBED = EventType.OPENED, EventType.CLICKED, EventType.UNSUBSCRIBED

#: When the messages of the log were accepted.
ACCEPTED = datetime.fromtimestamp(NOON_MS / 1000, UTC)
#: The operator's network, as it is set.
OWN_NETWORK = "203.0.113.0/24"

CHROME = (
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Safari/537.36"
)
BROWSERS = (
    CHROME,
    f"{CHROME} Edg/142.0.0.0",
    "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
    "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) Safari/605.1.15",
    "Mozilla/5.0 (iPhone; CPU iPhone OS 18_6 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Mobile/15E148",
    "Mozilla/5.0 (Linux; Android 10; K) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Mobile Safari/537.36",
)
MAIL_PROGRAMS = (
    "Microsoft Office/16.0 (Windows NT 10.0; Microsoft Outlook 16.0.19328; Pro)",
    "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Thunderbird/140.4.0",
)
APPLE = "Mozilla/5.0"
GMAIL = "Mozilla/5.0 (Windows NT 5.1; rv:11.0) Gecko Firefox/11.0 (via ggpht.com GoogleImageProxy)"
GMAIL_PREFETCH = (
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) "
    "Chrome/42.0.2311.135 Safari/537.36 Edge/12.246 Mozilla/5.0"
)
YAHOO = "YahooMailProxy; https://help.example.com/mail-proxy"
SCANNERS = (
    "Mozilla/5.0 (compatible; Barracuda Sentinel (EE))",
    "Mozilla/5.0 (compatible; Mimecast URL Protect)",
    "Mozilla/5.0 Proofpoint-TAP/1.0",
)
CHECKERS = (
    "curl/8.14.1",
    "python-requests/2.32.5",
    "W3C-checklink/5.0.0 libwww-perl/6.78",
    "Mozilla/5.0 (compatible; LinkChecker/10.6; +https://checker.example.com/)",
    "Slackbot-LinkExpanding 1.0",
    "",
)


class Visit(msgspec.Struct, frozen=True, kw_only=True):
    """A hit, what sort of visitor made it, and whether that is a machine in truth."""

    hit: Hit
    kind: str
    machine: bool


class _Mail:
    """One message and who comes to it; times in seconds after the acceptance."""

    def __init__(self, chance: random.Random, links: int) -> None:
        self.chance = chance
        self.links = links
        self.network = f"198.{chance.randrange(256)}.{chance.randrange(256)}.0/24"
        self.browser = chance.choice(BROWSERS)
        self.visits: list[Visit] = []
        self._key = chance.randbytes(16)

    def hit(
        self,
        kind: str,
        type_: EventType,
        after: float,
        *,
        machine: bool = False,
        agent: str | None = None,
        link: int = -1,
        method: str = "GET",
        network: str | None = None,
        purpose: str = "",
    ) -> None:
        """Have a visitor of this kind make a hit."""
        made = Hit(
            id=self.chance.randbytes(16),
            type=type_,
            key=self._key,
            at_ms=NOON_MS + round(after * 1000),
            link=link,
            url=f"https://shop.example.com/{link}" if type_ is CLICKED else "",
            method=method,
            network=self.network if network is None else network,
            user_agent=self.browser if agent is None else agent,
            purpose=purpose,
        )
        self.visits.append(Visit(hit=made, kind=kind, machine=machine))

    def some(self, count: int) -> list[int]:
        """Return so many different links, or all that there are."""
        return self.chance.sample(range(self.links), min(count, self.links))

    def reading(self) -> float:
        """Return when a person turns to the message: minutes to a day later, now and then within a minute or so."""
        return self.chance.uniform(20, 90) if self.chance.random() < 0.08 else self.chance.lognormvariate(8.5, 1.4) + 60


def _reads(
    mail: _Mail, kind: str = "reader", *, opens: bool = True, clicks: int | None = None, pause: float = 75
) -> None:
    """Let a person open, and follow a few links with some time between them."""
    chance, at = mail.chance, mail.reading()
    agent = chance.choice((*BROWSERS, *MAIL_PROGRAMS)) if kind == "reader" else None
    for _ in range(chance.choice((1, 1, 1, 2, 3)) if opens else 0):
        mail.hit(kind, OPENED, at, agent=agent)
        at += chance.uniform(5, 4000)
    for link in mail.some(chance.choice((0, 0, 1, 1, 2, 3)) if clicks is None else clicks):
        at += chance.uniform(0.2, 2) * pause
        mail.hit(kind, CLICKED, at, link=link)


def _quick(mail: _Mail) -> None:
    """Two or three links within seconds."""
    _reads(mail, "quick reader", clicks=mail.chance.randint(2, 3), pause=3)


def _tabs(mail: _Mail) -> None:
    """Whoever opens each interesting link in a tab, and reads then."""
    _reads(mail, "opens tabs", clicks=mail.chance.randint(4, 6), pause=4)


def _images_off(mail: _Mail) -> None:
    _reads(mail, "images off", opens=False, clicks=mail.chance.randint(1, 3))


def _behind_proxy(mail: _Mail) -> None:
    """Everybody of a company has one network and one browser."""
    mail.network, mail.browser = "198.51.100.0/24", CHROME
    _reads(mail, "corporate proxy")


def _apple(mail: _Mail) -> None:
    mail.hit("Apple MPP", OPENED, mail.chance.uniform(2, 20_000), machine=True, agent=APPLE)
    if mail.chance.random() < 0.3:
        mail.browser = BROWSERS[4]
        _reads(mail, "Apple reader", opens=False, clicks=mail.chance.randint(1, 2))


def _gmail(mail: _Mail) -> None:
    if mail.chance.random() < 0.2:
        mail.hit("Gmail prefetch", OPENED, mail.chance.uniform(2, 60), machine=True, agent=GMAIL_PREFETCH)
    at = mail.reading()
    mail.hit("Gmail proxy", OPENED, at, agent=GMAIL, network="198.18.0.0/24")
    if mail.chance.random() < 0.3:
        mail.hit("Gmail reader", CLICKED, at + mail.chance.uniform(2, 90), link=mail.some(1)[0])


def _yahoo(mail: _Mail) -> None:
    mail.hit("Yahoo proxy", OPENED, mail.reading(), agent=YAHOO, network="198.18.1.0/24")


def _scan(mail: _Mail, kind: str, *, starts: float, lasts: float, opens: bool) -> None:
    """Have something that calls itself a browser follow every link."""
    chance = mail.chance
    networks = [f"192.0.{chance.randrange(256)}.0/24" for _ in range(chance.choice((1, 1, 2)))]
    followed = sorted(chance.uniform(0, lasts) for _ in range(mail.links))
    # The first and the last are as far apart as that.
    followed[0], followed[-1] = 0.0, lasts
    for link, after in zip(mail.some(mail.links), followed, strict=True):
        mail.hit(kind, CLICKED, starts + after, machine=True, agent=CHROME, link=link, network=chance.choice(networks))
    if opens:
        at = starts + chance.uniform(0, lasts)
        # Here and there the image is fetched by another of its machines than the links.
        network = f"192.1.{chance.randrange(256)}.0/24" if chance.random() < 0.15 else chance.choice(networks)
        mail.hit(f"{kind}: its open", OPENED, at, machine=True, agent=CHROME, network=network)


def _safelinks(mail: _Mail) -> None:
    """All links within 10 s, or one after the other for up to 43 s; half a minute or a minute after the sending."""
    chance = mail.chance
    lasts = chance.uniform(1, 10) if chance.random() < 0.6 else chance.uniform(10, 43)
    _scan(mail, "burst", starts=chance.lognormvariate(3.76, 0.4), lasts=lasts, opens=chance.random() < 0.3)
    if chance.random() < 0.6:
        _reads(mail, "scanned reader")


def _small_mail(mail: _Mail) -> None:
    """The same where a message has too few links for it to be told."""
    mail.links = mail.chance.randint(1, 3)
    _scan(mail, "scan of a few links", starts=mail.chance.uniform(20, 90), lasts=2, opens=False)


def _at_the_click(mail: _Mail) -> None:
    """A person's click, and a moment later the same link by what guards him."""
    at, link = mail.reading(), mail.some(1)[0]
    mail.hit("reader", CLICKED, at, link=link)
    mail.hit("scan at the click", CLICKED, at + 0.05, machine=True, agent=CHROME, link=link, network="192.0.2.0/24")


def _slow(mail: _Mail) -> None:
    """One link after the other with a minute or two between them."""
    at = mail.chance.uniform(20, 300)
    for link in mail.some(mail.links):
        at += mail.chance.uniform(25, 120)
        mail.hit("slow scan", CLICKED, at, machine=True, agent=CHROME, link=link, network="192.0.2.0/24")


def _on_arrival(mail: _Mail) -> None:
    """A filter that looks while it takes the message in."""
    _scan(mail, "scan on arrival", starts=mail.chance.uniform(0.05, 0.3), lasts=0.6, opens=True)


def _named(mail: _Mail) -> None:
    """A filter that says who it is: HEAD first, then GET, all links in seconds."""
    agent, at = mail.chance.choice(SCANNERS), mail.chance.uniform(0.5, 30)
    for link in range(mail.links):
        for method in ("HEAD", "GET"):
            at += 0.1
            mail.hit("named scanner", CLICKED, at, machine=True, agent=agent, link=link, method=method)
    if mail.chance.random() < 0.5:
        _reads(mail)


def _heads(mail: _Mail) -> None:
    for link in range(mail.links):
        mail.hit("HEAD", CLICKED, mail.chance.uniform(1, 60), machine=True, link=link, method="HEAD")


def _checker(mail: _Mail) -> None:
    agent, at = mail.chance.choice(CHECKERS), mail.chance.uniform(60, 90_000)
    for link in mail.some(3):
        mail.hit("link checker", CLICKED, at, machine=True, agent=agent, link=link)
        at += 0.3


def _prefetch(mail: _Mail) -> None:
    at = mail.reading()
    mail.hit("prefetch", CLICKED, at, machine=True, link=mail.some(1)[0], purpose="prefetch;prerender")
    mail.hit("reader", OPENED, at + 1)


def _operator(mail: _Mail) -> None:
    """Somebody of the operator's own, who looks whether all is well."""
    at = mail.reading()
    mail.hit("own network", OPENED, at, machine=True, network=OWN_NETWORK)
    for link in mail.some(2):
        at += 20
        mail.hit("own network", CLICKED, at, machine=True, link=link, network=OWN_NETWORK)


def _leaves(mail: _Mail) -> None:
    mail.hit("unsubscribes", UNSUBSCRIBED, mail.reading(), method="POST", agent="")


#: How many messages of a hundred or so are visited in which way.
_WAYS: tuple[tuple[Callable[[_Mail], None], float], ...] = (
    (_reads, 24),
    (_quick, 5),
    (_tabs, 0.5),
    (_images_off, 6),
    (_behind_proxy, 6),
    (_apple, 25),
    (_gmail, 20),
    (_yahoo, 4),
    (_safelinks, 8),
    (_small_mail, 1),
    (_at_the_click, 1),
    (_slow, 0.4),
    (_on_arrival, 1),
    (_named, 2),
    (_heads, 1),
    (_checker, 2),
    (_prefetch, 1),
    (_operator, 1),
    (_leaves, 1),
)


def _messages(chance: random.Random) -> Iterator[list[Visit]]:
    ways, weights = zip(*_WAYS, strict=True)
    while True:
        mail = _Mail(chance, links=chance.randint(4, 12))
        chance.choices(ways, weights)[0](mail)
        yield mail.visits


def visits(seed: int, count: int) -> list[Visit]:
    """Return so many visits, in the order in which they happened."""
    made: list[Visit] = []
    for message in _messages(random.Random(seed)):  # noqa: S311 - a scenario, not a secret
        made += message
        if len(made) >= count:
            return sorted(made[:count], key=lambda visit: (visit.hit.at_ms, visit.hit.id))
    raise AssertionError("messages come for ever")
