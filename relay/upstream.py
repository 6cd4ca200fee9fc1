"""What an upstream is given, and what comes back: a verdict, or trouble.

A verdict is a 250, or a 5xx to MAIL, RCPT or the final dot, and ends the message. Trouble (everything else: refused
connections, TLS, AUTH, 4xx, a time-out) never does; it is tried again.
"""

from collections.abc import Awaitable, Callable

import msgspec
from prometheus_client import Counter

from ledger.throttles import Throttle
from providers.webhook import Provider

ATTEMPTS = Counter("outrider_upstream_attempts_total", "Messages offered to an upstream, by outcome.", ["outcome"])

# A 5xx that speaks of us, not of the message (RFC 4954 6): trouble wherever it is said.
_REJECTS_US = frozenset({530, 534, 535, 538})

# The upstream closes (RFC 5321 3.8).
CLOSING = 421


class Letter(msgspec.Struct, frozen=True, kw_only=True):
    """One recipient's message, ready to leave. It is rendered when a connection is at hand, not before."""

    key: str
    sender: str
    recipient: str
    smtputf8: bool
    #: The campaign as the mailer names it; empty: none.
    campaign: str = ""
    #: How fast its campaign's mail may leave; none: it has no campaign.
    throttle: Throttle | None = None
    #: It comes from the queue: no mailer waits for it.
    queued: bool = False
    #: Octets of the submitted content, about what rendering gives.
    size: int = 0
    #: One of our own notifications, which may have a way of their own.
    notice: bool = False
    #: Called with the provider whose upstream it leaves through, in a thread when the letter is large.
    render: Callable[[Provider | None], bytes]


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """The upstream decided: a 2xx, or a permanent refusal."""

    code: int
    text: str
    #: The name of the upstream that decided, where there are several.
    upstream: str = ""
    #: Whose upstream that is; none: nobody's we know.
    provider: Provider | None = None

    @property
    def accepted(self) -> bool:
        """The upstream has the message."""
        return self.code < 300

    def __str__(self) -> str:
        """Return the reply as it is kept."""
        return f"{self.code} {self.text}"[:1000]


class Trouble(msgspec.Struct, frozen=True, kw_only=True):
    """The upstream did not decide: try again."""

    #: One or two words for metrics and logs: `connect`, `tls`, `auth`, `reply`, `timeout`, `lost`, `circuit`, `rate`.
    reason: str
    #: What it said, when it said something.
    reply: str | None = None
    #: The final dot was out, so it may have the message.
    doubtful: bool = False
    #: It is the upstream that is in trouble, not this message: another upstream may take it.
    unwell: bool = False
    #: Seconds until another try makes sense, where that is known: nothing was tried.
    wait: float | None = None
    #: Its campaign is held back, by a word of the operator's: it is stored whatever is done on trouble.
    held: bool = False
    #: The name of the upstream that was tried last, where there are several.
    upstream: str = ""


Outcome = Verdict | Trouble
BeforeDot = Callable[[], Awaitable[None]]


def judged(code: int, text: str, *, to_mail: bool = False) -> Outcome:
    """Return what a reply means; a 4xx to MAIL speaks of us and the upstream, a later one of the message."""
    if code in _REJECTS_US:
        return Trouble(reason="auth", reply=f"{code} {text}", unwell=True)
    if 200 <= code < 300 or 500 <= code < 600:
        return Verdict(code=code, text=text)
    return Trouble(reason="reply", reply=f"{code} {text}", unwell=to_mail or code == CLOSING)


def label_of(outcome: Outcome) -> str:
    """Return what metrics call *outcome*: `accepted`, `refused`, or `trouble_` and its reason."""
    match outcome:
        case Verdict():
            return "accepted" if outcome.accepted else "refused"
        case Trouble():
            return f"trouble_{outcome.reason}"
