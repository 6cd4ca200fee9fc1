"""What a provider's file supplies, and what the tracker hands it: requests in, notices and answers out, no I/O.

Where the proof needs a document (a certificate, a key set) the provider names its address, having checked the host;
the tracker fetches it, remembers it, and asks again.
"""

from collections.abc import Callable, Mapping

import msgspec

from providers.notice import Notice


class DeniedError(Exception):
    """The request does not prove that the provider sent it: 401. The text is a fixed word or two of ours."""


class MalformedError(Exception):
    """The body is not of the shape that the provider documents: 400. The text is ours."""


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """A request as it came: the body is the raw octets, because signatures are over them."""

    method: str
    #: Names in lower case; a repeated header's values are joined by `, `.
    headers: Mapping[str, str]
    query: Mapping[str, str]
    body: bytes


class Entra(msgspec.Struct, frozen=True, kw_only=True):
    """Whose tokens of Microsoft Entra ID prove a request, all compared whole."""

    #: The tenant's id, in lower case.
    tenant: str
    #: For whom the token must be: the id, or the id URI, of the application that stands for us.
    audience: str
    #: The application ids of those that may call, in lower case.
    callers: tuple[str, ...]


class Trust(msgspec.Struct, frozen=True, kw_only=True):
    """What the operator believes of one provider: `webhooks` in the settings."""

    #: Any of them proves it. None: the webhook does not exist.
    secrets: tuple[str, ...] = ()
    #: SES: the TopicArns.
    topics: tuple[str, ...] = ()
    #: Postal: the address of the key set, https.
    key_set: str = ""
    #: Postal: whether a SHA-1 signature is enough.
    sha1: bool = False
    #: Azure: tokens that prove it beside the secrets.
    entra: Entra | None = None

    def __repr__(self) -> str:
        """Show nothing: secrets in a traceback are secrets in a log."""
        return "Trust(…)"


class Fetch(msgspec.Struct, frozen=True, kw_only=True):
    """A document that the proof needs first."""

    #: https, and of a host that the provider's rules allow.
    url: str


class Proven(msgspec.Struct, frozen=True, kw_only=True):
    """The provider sent it."""

    #: A word that the provider uses once: a second request with it is a replay, answered 200 and not recorded.
    once: str = ""


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What the provider wants to hear, where a bare 200 will not do."""

    status: int = 200
    body: bytes = b""
    content_type: str = "text/plain"
    headers: Mapping[str, str] = {}


class Parsed(msgspec.Struct, frozen=True, kw_only=True):
    """What a proven request holds."""

    notices: tuple[Notice, ...] = ()
    #: None: 200 and an empty body.
    answer: Answer | None = None
    #: An address to ask for after the answer, its host checked: it confirms a subscription.
    visit: str = ""


def no_probe(request: Request, trust: Trust) -> Answer | None:  # noqa: ARG001 - the shape of `Provider.probe`
    """Answer no probe: GET and OPTIONS are 405."""
    return None


def no_stamp(key: str, present: Mapping[str, str]) -> dict[str, str]:  # noqa: ARG001 - the shape of `Provider.stamp`
    """Add no header: the provider's events carry our Message-ID."""
    return {}


class Provider(msgspec.Struct, frozen=True, kw_only=True):
    """One provider; `providers.registry` lists them all."""

    #: In the path of the webhook, in settings and in `profile=`.
    name: str
    #: Whether what the operator set is enough to prove anything; the webhook answers 404 while it is not.
    configured: Callable[[Trust], bool]
    #: `(request, trust, now in seconds, documents fetched so far by address)`; raises `DeniedError`.
    authenticate: Callable[[Request, Trust, float, Mapping[str, bytes]], Proven | Fetch]
    #: Reads a proven POST; raises `MalformedError`. A field of a wrong type counts as absent, an entry of a batch that
    #: is no object becomes a notice of `What.UNKNOWN`; only a body that is no JSON or of another shape is malformed.
    parse: Callable[[Request], Parsed]
    #: The answer to GET or OPTIONS; HEAD is always 200. None: 405.
    probe: Callable[[Request, Trust], Answer | None] = no_probe
    #: The id in the upstream's answer to the final dot, as its notices will name it with `Step.REPLY_ID`.
    reply_id: Callable[[str], str | None]
    #: `(message key, the values of `stamped` headers that the message has, unfolded)` to the values that they get:
    #: merged with what the mailer wrote, ASCII, unfolded. A name that is absent from the result stays as it is.
    stamp: Callable[[str, Mapping[str, str]], dict[str, str]] = no_stamp
    #: The headers that `stamp` may set, as they are spelt.
    stamped: tuple[str, ...] = ()
    #: Endings of host names by which an upstream is known to be this provider's: `smtp.azurecomm.net`.
    hosts: tuple[str, ...] = ()
    #: Whether the Message-ID that we write reaches its events.
    keeps_message_id: bool = False
    #: Whether it replaces a Message-ID that it has seen before: what is sent again in doubt gets one of its own.
    wants_fresh_ids: bool = False
    #: Whether its SMTP server takes octets over 127 in a content; else what may be touched leaves as quoted-printable.
    eight_bit: bool = True
