"""Sign again, as the last thing before a message leaves, what lost its signature to our changes.

A message is never lost or delayed because it cannot be signed: it leaves without, and is counted.
"""

from collections.abc import Iterable, Sequence

import structlog
from prometheus_client import Counter

from injector import dkim
from injector.dkim import Signer

log = structlog.get_logger()

SIGNED = Counter("outrider_dkim_signed_total", "Messages that left with our signature in place of a dead one.")
UNSIGNED = Counter(
    "outrider_dkim_unsigned_total",
    "Messages that lost a dead signature and left without ours, for one of its domains at least, by why.",
    ["reason"],
)


def sign_again(content: bytes, domains: Sequence[str], *, signer: Signer, pinned: Iterable[str]) -> bytes:
    """Return *content* signed for each of *domains*, with the *pinned* keys where they are still held. Never raises."""
    keys = [key for domain in domains for key in signer.keys_for(domain, pinned)]
    if missing := set(domains).difference(key.domain for key in keys):
        # A queued message was planned with a key that the settings name no longer.
        log.warning("dkim_key_missing", domains=sorted(missing))
        UNSIGNED.labels("no_key").inc()
    if not keys:
        return content
    try:
        signed = dkim.sign(content, keys)
    except Exception as error:  # noqa: BLE001 - mail is never lost because it could not be signed
        log.error("dkim_signing_failed", error=type(error).__name__)  # noqa: TRY400 - its text may hold content
        UNSIGNED.labels("failed").inc()
        return content
    SIGNED.inc()
    return signed
