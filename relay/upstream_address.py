"""Read where mail goes, as an operator names it in `relay.upstream`. Nothing is resolved or connected here."""

from typing import Literal
from urllib.parse import parse_qsl, unquote, urlsplit

import msgspec


class UpstreamAddress(msgspec.Struct, frozen=True, kw_only=True):
    """Where mail goes, as `relay.upstream` names it."""

    scheme: Literal["smtp", "smtps", "capture"]
    host: str = ""
    port: int = 0
    user: str = ""
    password: str = ""
    starttls: Literal["required", "opportunistic", "off"] = "opportunistic"

    @property
    def name(self) -> str:
        """The upstream's name in the ledger and in logs: no credentials."""
        return "capture" if self.scheme == "capture" else f"{self.host}:{self.port}"

    def __repr__(self) -> str:
        """Show the name: a password in a traceback is a password in a log."""
        return f"UpstreamAddress({self.name!r})"


def parse(url: str) -> UpstreamAddress:
    """Return the address that `relay.upstream` holds; raise `ValueError` with what is wrong and what is expected."""
    if url == "capture":
        return UpstreamAddress(scheme="capture")
    parts = urlsplit(url)
    if parts.scheme not in {"smtp", "smtps"}:
        raise ValueError("expected smtp://host:port, smtps://host:port or capture")
    try:
        port = parts.port
    except ValueError:
        raise ValueError("its port is not a number from 1 to 65535") from None
    if not parts.hostname or parts.path not in {"", "/"} or parts.fragment:
        raise ValueError("expected smtp://[user:password@]host:port and nothing after the port but ?starttls=…")
    user, password = unquote(parts.username or ""), unquote(parts.password or "")
    if bool(user) != bool(password):
        raise ValueError("a user needs a password and a password a user; percent-encode special characters in them")
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    starttls = options.pop("starttls", "required" if user else "opportunistic")
    if options:
        raise ValueError(f"unknown option {next(iter(options))!r}; known: starttls")
    if starttls not in {"required", "opportunistic", "off"}:
        raise ValueError("starttls is required, opportunistic or off")
    return UpstreamAddress(
        scheme="smtps" if parts.scheme == "smtps" else "smtp",
        host=parts.hostname,
        port=port or (465 if parts.scheme == "smtps" else 25),
        user=user,
        password=password,
        starttls="required" if starttls == "required" else "off" if starttls == "off" else "opportunistic",
    )
