"""The relay's listeners as the settings want them, and what of it is read again on SIGHUP."""

from pathlib import Path

import structlog

from ledger.ids import recipient_index
from ledger.mail import MailLedger
from ledger.store import UNAVAILABLE
from ledger.waiting import within
from relay import passwords, server
from relay.intake import Acceptor
from relay.passwords import PasswordHash
from relay.reception import Unwanted
from relay.server import Listener, RelayServer, ServerSettings
from relay.settings import RelaySettings
from sidecar.addresses import parse_listen
from sidecar.settings import Settings

log = structlog.get_logger()

#: Where large messages wait for their end while they come in, below the data directory.
SPOOL_DIRECTORY = "spool"

# How long RCPT may wait to hear whether its recipient is suppressed.
_SUPPRESSION_PATIENCE = 2.0


async def opened(
    acceptor: Acceptor, settings: Settings, name: str, mail: MailLedger, identity_key: bytes
) -> RelayServer:
    """Listen as the settings say, as the host *name*; what comes in goes to *acceptor*."""
    own = settings.relay
    spool = settings.data_dir / SPOOL_DIRECTORY
    spool.mkdir(mode=0o700, exist_ok=True)
    manners = ServerSettings(
        hostname=name,
        max_bytes=own.max_bytes,
        max_recipients=own.max_recipients,
        allow=own.allow,
        users=_users(own),
        tls=server.tls_context(own.tls_cert, own.tls_key) if own.tls_cert else None,
        proxies=own.proxies,
        max_connections=own.max_connections,
        max_connections_per_client=own.max_connections_per_client,
        idle_timeout=own.idle_timeout,
        data_timeout=own.data_timeout,
        spool=spool,
        unwanted=_unwanted(own, mail, identity_key),
    )
    return await server.serve(acceptor, manners, listeners=_listeners(own), reuse_port=True)


def reload(front: RelayServer, own: RelaySettings) -> None:
    """Read the certificate and the users file again; where one cannot be read, what was read before stays."""
    try:
        front.reload(
            users=_users(own),
            certificate=(own.tls_cert, own.tls_key) if own.tls_cert else None,
        )
    except (OSError, ValueError) as error:
        # ssl's errors are OSErrors; none of these texts is shown, for they may hold what the files do.
        log.error("reload_failed", error=type(error).__name__)  # noqa: TRY400 - see above
    else:
        log.info("reloaded", users=bool(own.users), certificate=bool(own.tls_cert))


def _users(own: RelaySettings) -> dict[str, PasswordHash] | None:
    return passwords.parse(Path(own.users).read_text(encoding="utf-8")) if own.users else None


def _unwanted(own: RelaySettings, mail: MailLedger, identity_key: bytes) -> Unwanted | None:
    """Return what RCPT asks, where suppressed recipients are refused there."""
    if own.suppressed == "accept":
        return None

    async def unwanted(source: str, recipient: str) -> bool:
        try:
            return await within(
                _SUPPRESSION_PATIENCE, lambda: mail.is_suppressed(source, recipient_index(identity_key, recipient))
            )
        except UNAVAILABLE:
            # It is found when the message is correlated, and not sent.
            return False

    return unwanted


def _listeners(own: RelaySettings) -> list[Listener]:
    plain = parse_listen(own.listen)
    listeners = [Listener(host=plain.host, port=plain.port)]
    if own.listen_tls:
        tls = parse_listen(own.listen_tls)
        listeners.append(Listener(host=tls.host, port=tls.port, implicit_tls=True))
    return listeners
