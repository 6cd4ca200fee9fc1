"""Take an absolute web address apart, strictly: what two parsers may read differently is no address here.

A link is tracked exactly as it was written, so nothing but its host is ever changed, and that only for the ASCII that
a Location header needs.
"""

import ipaddress
import re
import unicodedata
from enum import StrEnum

import idna
import msgspec


class Flaw(StrEnum):
    """Why a URL is no absolute http(s) address that every parser reads alike."""

    NO_WEB_SCHEME = "no_web_scheme"
    NO_HOST = "no_host"
    BAD_HOST = "bad_host"
    BAD_PORT = "bad_port"
    USERINFO = "userinfo"
    BACKSLASH = "backslash"
    CONTROL_CHARACTER = "control_character"
    UNDECODABLE = "undecodable"


class Address(msgspec.Struct, frozen=True, kw_only=True):
    """The parts of an absolute http(s) URL."""

    #: As written.
    scheme: str
    #: As written if that is ASCII, else in A-labels.
    host: str
    #: As written, with its colon; empty where there is none.
    port: str
    #: Path, query and fragment, as written.
    tail: str

    def origin(self) -> tuple[str, str, str]:
        """Return what makes two addresses the same site: scheme, host and port, in one spelling."""
        scheme = self.scheme.lower()
        default = {":", ":443" if scheme == "https" else ":80"}
        return scheme, self.host.lower(), "" if self.port in default else self.port


_MAX_PORT = 65535
_MAX_HOST_CHARS = 254  # RFC 1035 2.3.4, and a final dot
_MAX_LABEL_CHARS = 63

_WEB_SCHEME = re.compile(r"https?:", re.IGNORECASE)
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_SURROGATE = re.compile(r"[\ud800-\udfff]")
_ADDRESS = re.compile(r"(https?)://([^/?#\\]*)([^?#]*)(.*)", re.IGNORECASE | re.DOTALL)
_HOST_AND_PORT = re.compile(r"(\[[^\]]*\]|[^:\[\]]*)(:[0-9]{0,5})?")
# Stricter than a browser, which takes `!` or `*` in a host.
_HOST = re.compile(r"[A-Za-z0-9._-]+")
# To a browser these last labels make the whole host a number (WHATWG URL 3.5), and these numbers are octets.
_ENDS_IN_NUMBER = re.compile(r"(?:.*\.)?(?:[0-9]+|0[xX][0-9A-Fa-f]*)\.?")
_NUMBER = re.compile(r"(?:0[xX](?P<hexadecimal>[0-9A-Fa-f]*)|0(?P<octal>[0-7]+)|(?P<decimal>0|[1-9][0-9]*))")
_RIGHT_TO_LEFT = frozenset({"R", "AL", "AN"})
_JOINERS = "\u200c\u200d"


def parse(url: str) -> Address | Flaw:
    """Return the parts of *url*, or the flaw for which it is left alone."""
    if not _WEB_SCHEME.match(url):
        return Flaw.NO_WEB_SCHEME
    if not url.isprintable():  # the quick question first: it is so for nearly every URL
        if _CONTROL.search(url):
            return Flaw.CONTROL_CHARACTER
        if _SURROGATE.search(url):
            return Flaw.UNDECODABLE
    match = _ADDRESS.match(url)
    if match is None:
        return Flaw.BACKSLASH if "\\" in url[:8] else Flaw.NO_HOST
    scheme, authority, path, rest = match.groups()
    if "\\" in path:
        return Flaw.BACKSLASH
    site = _site(authority)
    return site if isinstance(site, Flaw) else Address(scheme=scheme, host=site[0], port=site[1], tail=path + rest)


def _site(authority: str) -> tuple[str, str] | Flaw:
    if "@" in authority:
        return Flaw.USERINFO
    split = _HOST_AND_PORT.fullmatch(authority)
    if split is None or int((split[2] or ":0")[1:] or 0) > _MAX_PORT:
        return Flaw.BAD_PORT
    if not split[1]:
        return Flaw.NO_HOST
    host = _host(split[1])
    return Flaw.BAD_HOST if host is None else (host, split[2] or "")


def _host(name: str) -> str | None:
    if len(name) > _MAX_HOST_CHARS:
        return None
    if name.startswith("["):
        return name if _is_ipv6(name[1:-1]) else None
    if not name.isascii():
        name = _a_labels(name)
    well_formed = len(name) <= _MAX_HOST_CHARS and _HOST.fullmatch(name) and name.strip(".")
    return name if well_formed and (not _ENDS_IN_NUMBER.fullmatch(name) or _is_ipv4(name)) else None


def _is_ipv4(text: str) -> bool:
    """Tell whether a browser takes *text* for an IPv4 address (WHATWG URL 3.5.1): `127.1` and `0x7f000001` are some."""
    numbers = [_NUMBER.fullmatch(part) for part in text.removesuffix(".").split(".")]
    if len(numbers) > 4:
        return False
    values = [_value(number) for number in numbers if number]
    return len(values) == len(numbers) and max(values[:-1], default=0) < 256 and values[-1] < 256 ** (5 - len(values))


def _value(number: re.Match[str]) -> int:
    hexadecimal, octal, decimal = number.groups()
    return int(decimal) if decimal else int(octal, 8) if octal else int(hexadecimal or "0", 16)


def _is_ipv6(text: str) -> bool:
    try:
        ipaddress.IPv6Address(text)
    except ValueError:
        return False
    return "%" not in text  # a zone means nothing to anybody else


def _a_labels(name: str) -> str:
    """Return a host in A-labels, as browsers do (UTS 46, non-transitional); empty if it has none.

    The whole of IDNA 2008 would refuse names, such as those with an emoji, that every browser opens.
    """
    # A letter that this Python has not heard of may be none to a browser either.
    if any(unicodedata.category(letter) == "Cn" for letter in name):
        return ""
    try:
        labels = idna.uts46_remap(name, std3_rules=False, transitional=False).split(".")
        valid = all(_is_label(label) for label in labels) and _runs_one_way(labels)
    except ValueError:  # idna's errors are some
        return ""
    coded = [label if label.isascii() else "xn--" + label.encode("punycode").decode("ascii") for label in labels]
    return ".".join(coded) if valid and max(map(len, coded)) <= _MAX_LABEL_CHARS else ""


def _is_label(label: str) -> bool:
    """Tell whether a browser takes a label in letters (UTS 46 4.1): one half in code already is in doubt."""
    if label.startswith("xn--") or (label and unicodedata.category(label[0]).startswith("M")):
        return False
    return all(idna.valid_contextj(label, at) for at, letter in enumerate(label) if letter in _JOINERS)


def _runs_one_way(labels: list[str]) -> bool:
    """Tell whether no label mixes directions where one runs from right to left (RFC 5893 2); an error says no too."""
    if not any(unicodedata.bidirectional(letter) in _RIGHT_TO_LEFT for label in labels for letter in label):
        return True
    return all(idna.check_bidi(label, check_ltr=True) for label in labels if label)
