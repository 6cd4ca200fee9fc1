"""Take addresses, tokens and credentials out of text that people will read.

This is a safety net below code that does not log them in the first place; it may take too much, never too little.
"""

import re

# A longer text is cut before anything is looked for, so that time stays bounded whatever is logged.
_LONGEST = 4096

_CREDENTIALS = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*://)[^\s\"'<>]*@")
_SECRET_PARAMETER = re.compile(r"((?:password|passfile|passwd|secret|key|token)=)[^&\s\"'<>]*", re.IGNORECASE)
_QUERY = re.compile(r"(https?://[^\s?\"'<>]*\?)[^\s\"'<>]+")
_TRACKED = re.compile(r"(/(?:track/[a-z]+|unsubscribe)/)[^\s\"'<>?]+")
_WEBHOOK = re.compile(r"(/webhooks/[^\s?\"'<>]*\?)[^\s\"'<>]+")
_AUTHORIZATION = re.compile(r"\b(bearer|basic)\s+[A-Za-z0-9._~+/=-]{6,}", re.IGNORECASE)
_NAMED_SECRET = re.compile(
    r"\b((?:api_?key|password|passwd|secret|token)[\"']?\s*[=:]\s*[\"']?)[^\s\"'&,;}]+", re.IGNORECASE
)
# Starts only where a run of characters starts, so that a long text without an @ is passed over once. What a local part
# may hold is taken whole (VERP: bounce+ann=example.net@example.com), at the price of a word before it now and then.
_ADDRESS = re.compile(
    r"(?:\"(?:[^\"\\\r\n]|\\.){0,128}\"|(?<![^\s<>()\",;:\[\]@])[^\s<>()\",;:\[\]@]+)(?:@|%40)"
    r"(?:\[[^\]\s]{0,128}\]|[^\s<>()\",;:\[\]@/?#&]+)",
    re.IGNORECASE,
)
# A Message-ID of ours: 26 characters of a message key, which name nobody.
_OUR_ID = re.compile(r"\A[a-z2-7]{26}(?:\.[0-9]+)?@[A-Za-z0-9.-]+\Z")
_OPAQUE = re.compile(r"(?<![A-Za-z0-9_.=-])(?=[^\sA-Z]{0,512}[A-Z])(?=[^\sa-z]{0,512}[a-z])[A-Za-z0-9_.=-]{40,}")


def redact(text: str) -> str:
    """Return *text* without addresses, tokens, credentials and query strings, cut at 4,096 characters."""
    text = text if len(text) <= _LONGEST else text[:_LONGEST] + "…"
    if "://" in text:
        text = _CREDENTIALS.sub(r"\1[credentials]@", text)
        text = _QUERY.sub(r"\1[query]", text)
    if "/" in text:
        text = _TRACKED.sub(r"\1[token]", text)
        text = _WEBHOOK.sub(r"\1[query]", text)
    text = _AUTHORIZATION.sub(r"\1 [secret]", text)
    text = _NAMED_SECRET.sub(r"\1[secret]", text)
    if "@" in text or "%40" in text:
        text = _ADDRESS.sub(_address, text)
    return _OPAQUE.sub("[token]", text)


def redact_url(url: str) -> str:
    """Return *url* without its credentials, for an operator who has to recognise it."""
    return _SECRET_PARAMETER.sub(r"\1[secret]", _CREDENTIALS.sub(r"\1[credentials]@", url))


def _address(match: re.Match[str]) -> str:
    return match[0] if _OUR_ID.match(match[0]) else "[address]"
