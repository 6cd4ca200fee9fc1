"""Other relays, set up for the same mail to the same sink: Postfix as a proxy that does nothing, and Haraka.

Each runs from a configuration of its own in a temporary directory; what is installed on the machine is not touched.
"""

import json
import os
import pwd
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import msgspec

from bench import programs
from bench.servers import free_port

_PLUGINS: Final = Path(__file__).with_name("haraka")

_MAIN_CF: Final = """\
compatibility_level = 3.6
queue_directory = {home}/queue
data_directory = {home}/data
command_directory = {commands}
daemon_directory = {daemons}
mail_owner = {owner}
maillog_file = {home}/log/mail.log
maillog_file_prefixes = {home}
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
myhostname = proxy.example
mydestination =
mynetworks = 127.0.0.0/8
relay_domains = example.net
smtpd_peername_lookup = no
smtpd_recipient_restrictions = permit_mynetworks, reject
smtpd_client_connection_count_limit = 0
smtpd_client_connection_rate_limit = 0
message_size_limit = 52428800
local_recipient_maps =
alias_maps =
alias_database =
default_process_limit = 100
"""

# postlogd is what logs without syslog; the proxied smtpd needs no other service for these envelopes.
_MASTER_CF: Final = """\
127.0.0.1:{port} inet n - n - 60 smtpd
  -o smtpd_proxy_filter=127.0.0.1:{sink}
  -o smtpd_proxy_options=speed_adjust
  -o smtpd_authorized_xforward_hosts=
rewrite unix - - n - - trivial-rewrite
anvil unix - - n - 1 anvil
cleanup unix n - n - 0 cleanup
postlog unix-dgram n - n - 1 postlogd
"""


class Peer(msgspec.Struct, frozen=True, kw_only=True):
    """A relay that runs beside Outrider."""

    port: int
    pid: int


def why_no_postfix() -> str | None:
    """Return why Postfix cannot be measured here; None when it can."""
    if programs.find("postfix") is None or _daemons() is None:
        return "postfix: not installed"
    if os.geteuid() != 0:
        return "postfix: its master runs as root only"
    return None


@asynccontextmanager
async def postfix(directory: Path, *, sink: int) -> AsyncIterator[Peer]:
    """Run Postfix as a before-queue proxy to the port *sink* for the time of the block."""
    home = directory / "postfix"
    port = free_port()
    _lay_out_postfix(home, port=port, sink=sink)
    daemons = _daemons()
    argv = (str(daemons / "master" if daemons else "master"), "-c", str(home / "config"), "-d")
    async with programs.server(argv, port=port, log=home / "output") as pid:
        yield Peer(port=port, pid=pid)


def _daemons() -> Path | None:
    places = (Path("/usr/lib/postfix/sbin"), Path("/usr/libexec/postfix"))
    return next((place for place in places if (place / "master").exists()), None)


def _lay_out_postfix(home: Path, *, port: int, sink: int) -> None:
    owner = pwd.getpwnam("postfix")
    for name in ("config", "queue", "queue/pid", "queue/private", "queue/public", "queue/active", "data", "log"):
        (home / name).mkdir(parents=True)
    for name in ("incoming", "deferred", "maildrop", "defer", "bounce", "corrupt", "hold", "saved", "trace", "flush"):
        (home / "queue" / name).mkdir()
    for place in (home, *home.rglob("*")):
        place.chmod(0o755)
    for name in ("data", *(f"queue/{each}" for each in ("private", "public", "active", "incoming", "deferred"))):
        os.chown(home / name, owner.pw_uid, owner.pw_gid)
    commands = Path(programs.find("postfix") or "postfix").parent
    main = _MAIN_CF.format(home=home, commands=commands, daemons=_daemons(), owner=owner.pw_name)
    (home / "config" / "main.cf").write_text(main, "ascii")
    (home / "config" / "master.cf").write_text(_MASTER_CF.format(port=port, sink=sink), "ascii")


def haraka_program(directory: str) -> str | None:
    """Return the program of a Haraka that npm installed in *directory*, or of the one on PATH; None: there is none."""
    if directory:
        found = Path(directory) / "node_modules" / ".bin" / "haraka"
        return str(found) if found.exists() else None
    return programs.find("haraka")


@asynccontextmanager
async def haraka(program: str, directory: Path, *, sink: int, tracks: bool) -> AsyncIterator[Peer]:
    """Run Haraka forwarding to the port *sink* for the time of the block; with our plugin where it *tracks*."""
    home = directory / f"haraka-{'tracking' if tracks else 'plain'}"
    port = free_port()
    _lay_out_haraka(home, program, port=port, sink=sink, tracks=tracks)
    async with programs.server((program, "-c", str(home)), port=port, log=home / "output") as pid:
        yield Peer(port=port, pid=pid)


def _lay_out_haraka(home: Path, program: str, *, port: int, sink: int, tracks: bool) -> None:
    plugins = ["local", "relay", "rcpt_to.in_host_list", *(["track"] if tracks else []), "queue/smtp_forward"]
    files = {
        "smtp.ini": f"listen=127.0.0.1:{port}\nnodes=0\n",
        "smtp_forward.ini": f"host=127.0.0.1\nport={sink}\nenable_outbound=true\n",
        "plugins": "\n".join(plugins) + "\n",
        "host_list": "example.net\n",
        "relay.ini": "[relay]\nacl=true\n",
        "relay_acl_allow": "127.0.0.1/32\n",
        "me": "haraka.example\n",
        "package.json": json.dumps({"name": "bench", "private": True}),
    }
    (home / "config").mkdir(parents=True)
    (home / "plugins").mkdir()
    (home / "queue").mkdir()
    for name, text in files.items():
        place = home if name == "package.json" else home / "config"
        (place / name).write_text(text, "ascii")
    # It does not run without these, and each stands for itself.
    for name in ("connection.ini", "log.ini"):
        shutil.copy(Path(program).resolve().parents[1] / "config" / name, home / "config" / name)
    with (home / "config" / "log.ini").open("a", encoding="ascii") as log:
        log.write("\n[main]\nlevel=ERROR\n")
    for script in _PLUGINS.glob("*.js"):
        shutil.copy(script, home / "plugins" / script.name)
