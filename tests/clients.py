"""Real mail clients that submit a message: Python's smtplib, swaks, curl, msmtp, and conversations held by hand.

Each takes a `Door` and a `Letter` and returns when the relay has answered 250 to it; anything else is an error. A
program that is not on this machine is skipped with its name.
"""

import asyncio
import shutil
import smtplib
import ssl
from base64 import b64encode
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import msgspec
import pytest

from tests.mailer import Mailer

#: Seconds in which a client is done, on a busy machine.
PATIENCE = 60.0

NAME = "client.example.com"


class Door(msgspec.Struct, frozen=True, kw_only=True):
    """Where to submit, and with what: with a mechanism, a client encrypts by STARTTLS and then logs in by it."""

    port: int
    #: PEM file of the authority that signed the relay's certificate.
    authority: Path
    user: str
    password: str
    #: `PLAIN` or `LOGIN`; empty: in the clear, as nobody.
    mechanism: str = ""

    @property
    def trusting(self) -> ssl.SSLContext:
        """A context that trusts the relay's certificate, and no other."""
        return ssl.create_default_context(cafile=str(self.authority))


class Letter(msgspec.Struct, frozen=True, kw_only=True):
    """What is submitted; *content* has CRLF line ends and ends with one."""

    sender: str
    recipients: tuple[str, ...]
    content: bytes


Client = Callable[[Door, Letter, Path], Awaitable[None]]


def installed(name: str) -> str:
    """Return where a program is; skip the test where it is missing."""
    found = shutil.which(name, path="/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin")
    if found is None:
        pytest.skip(f"{name} is not installed: `.ci/run` installs it on Debian")
    return found


async def program(*words: str, given: bytes | None = None, patience: float = PATIENCE) -> str:
    """Run a program to its end, and return what it said; its failure is the test's."""
    process = await asyncio.create_subprocess_exec(
        installed(words[0]),
        *words[1:],
        stdin=asyncio.subprocess.DEVNULL if given is None else asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        async with asyncio.timeout(patience):
            said, _ = await process.communicate(given)
    except TimeoutError:
        process.kill()
        said, _ = await process.communicate()
    assert process.returncode == 0, said.decode("utf-8", "replace")
    return said.decode("utf-8", "replace")


async def python_smtplib(door: Door, letter: Letter, _folder: Path) -> None:
    """Submit as most mailers in Python do."""

    def submit() -> None:
        with smtplib.SMTP("127.0.0.1", door.port, local_hostname=NAME, timeout=PATIENCE) as client:
            if door.mechanism:
                # Python checks the name that it connected to.
                client._host = "localhost"  # type: ignore[attr-defined]  # there is no public way to say another one
                client.starttls(context=door.trusting)
                client.ehlo_or_helo_if_needed()
                client.user, client.password = door.user, door.password
                exchange = client.auth_plain if door.mechanism == "PLAIN" else client.auth_login
                client.auth(door.mechanism, exchange)
            refused = client.sendmail(letter.sender, letter.recipients, letter.content, mail_options=["BODY=8BITMIME"])
            assert refused == {}

    await asyncio.to_thread(submit)


async def swaks(door: Door, letter: Letter, folder: Path) -> None:
    """Submit with the postmaster's test tool."""
    await _swaks(door, letter, folder)


async def swaks_pipelined(door: Door, letter: Letter, folder: Path) -> None:
    """Submit with swaks, which sends MAIL, RCPT and DATA at once."""
    await _swaks(door, letter, folder, "--pipeline")


async def _swaks(door: Door, letter: Letter, folder: Path, *more: str) -> None:
    words = ["swaks", "--server", "localhost", "--port", str(door.port), "--helo", NAME, *more]
    if door.mechanism:
        if "TLS supported" not in await program("swaks", "--support"):
            pytest.skip("swaks cannot encrypt: `.ci/run` installs libnet-ssleay-perl on Debian")
        words += ["--tls", "--tls-verify", "--tls-ca-path", str(door.authority)]
        words += ["--auth", door.mechanism, "--auth-user", door.user, "--auth-password", door.password]
    words += ["--from", letter.sender, "--to", ",".join(letter.recipients), "--suppress-data"]
    # It ends what it is given with a line end of its own.
    ended = msgspec.structs.replace(letter, content=letter.content.removesuffix(b"\r\n"))
    await program(*words, "--data", f"@{_file(ended, folder)}")


async def curl(door: Door, letter: Letter, folder: Path) -> None:
    """Submit with curl's smtp:// scheme."""
    words = ["curl", "--silent", "--show-error", "--max-time", str(PATIENCE), f"smtp://localhost:{door.port}/{NAME}"]
    if door.mechanism:
        words += ["--ssl-reqd", "--cacert", str(door.authority)]
        words += ["--user", f"{door.user}:{door.password}", "--login-options", f"AUTH={door.mechanism}"]
    words += ["--mail-from", letter.sender]
    words += [word for recipient in letter.recipients for word in ("--mail-rcpt", recipient)]
    await program(*words, "--upload-file", str(_file(letter, folder)))


async def msmtp(door: Door, letter: Letter, folder: Path) -> None:
    """Submit with the sendmail of small machines."""
    lines = ["host localhost", f"port {door.port}", f"domain {NAME}", f"from {letter.sender}", "timeout 60"]
    if door.mechanism:
        lines += ["tls on", "tls_starttls on", f"tls_trust_file {door.authority}", f"auth {door.mechanism.lower()}"]
        lines += [f"user {door.user}", f"password {door.password}"]
    settings = folder / "msmtprc"
    settings.write_text("account default\n" + "\n".join(lines) + "\n", encoding="utf-8")
    settings.chmod(0o600)
    words = ["msmtp", f"--file={settings}", "--", *letter.recipients]
    # What a sendmail is given has the line ends of its machine.
    await program(*words, given=letter.content.replace(b"\r\n", b"\n"))


async def by_hand(door: Door, letter: Letter, _folder: Path) -> None:
    """Send MAIL, RCPT and DATA in one go, as Postfix does, and QUIT with the final dot."""
    mailer = await greeted(door)
    try:
        commands = [b"MAIL FROM:<%b> BODY=8BITMIME" % letter.sender.encode()]
        commands += [b"RCPT TO:<%b>" % recipient.encode() for recipient in letter.recipients]
        await mailer.send(b"".join(line + b"\r\n" for line in [*commands, b"DATA"]))
        answers = [await mailer.reply() for _ in commands]
        assert all(answer.startswith(b"250 ") for answer in answers), answers
        assert (await mailer.reply()).startswith(b"354 ")
        await mailer.send(stuffed(letter.content) + b".\r\nQUIT\r\n")
        answers = await mailer.rest()
        assert [answer[:4] for answer in answers] == [b"250 ", b"221 "], answers
    finally:
        await mailer.close()


async def like_nodemailer(door: Door, letter: Letter, _folder: Path) -> None:
    """Keep a connection as nodemailer's pool does: parameters with every MAIL, one that comes to nothing, RSET."""
    mailer = await greeted(door)
    try:
        declared = b"SIZE=%d BODY=8BITMIME SMTPUTF8" % len(letter.content)
        mail = b"MAIL FROM:<%b> %b" % (letter.sender.encode(), declared)
        assert (await mailer.say(mail)).startswith(b"250 ")
        assert (await mailer.say(b"RCPT TO:<nobody@>")).startswith(b"501 ")
        assert (await mailer.say(b"RSET")).startswith(b"250 ")
        for number, recipient in enumerate(letter.recipients):
            assert (await mailer.say(mail)).startswith(b"250 "), number
            assert (await mailer.say(b"RCPT TO:<%b> NOTIFY=NEVER" % recipient.encode())).startswith(b"250 ")
            assert (await mailer.say(b"DATA")).startswith(b"354 ")
            await mailer.send(stuffed(letter.content))
            assert (await mailer.say(b".")).startswith(b"250 "), number
            assert (await mailer.say(b"RSET")).startswith(b"250 ")
        assert (await mailer.say(b"QUIT")).startswith(b"221 ")
    finally:
        await mailer.close()


#: Every client by its name.
CLIENTS: dict[str, Client] = {
    "smtplib": python_smtplib,
    "swaks": swaks,
    "swaks pipelined": swaks_pipelined,
    "curl": curl,
    "msmtp": msmtp,
    "pipelined by hand": by_hand,
    "nodemailer": like_nodemailer,
}


async def greeted(door: Door) -> Mailer:
    """Connect and say EHLO; with a mechanism encrypt, and log in."""
    mailer = Mailer(*await asyncio.open_connection("127.0.0.1", door.port))
    assert (await mailer.reply()).startswith(b"220 ")
    offer = await mailer.say(b"EHLO " + NAME.encode())
    assert b"PIPELINING" in offer
    if door.mechanism:
        assert b"STARTTLS" in offer
        assert (await mailer.say(b"STARTTLS")).startswith(b"220 ")
        await mailer.start_tls(door.trusting)
        assert b"AUTH PLAIN LOGIN\r\n" in await mailer.say(b"EHLO " + NAME.encode())
        for answer, line in zip((b"334 ", b"334 ", b"235 "), _login(door), strict=False):
            said = await mailer.say(line)
            assert said.startswith(b"235 " if door.mechanism == "PLAIN" else answer), said
    return mailer


def _login(door: Door) -> Sequence[bytes]:
    user, password = door.user.encode(), door.password.encode()
    if door.mechanism == "PLAIN":
        return [b"AUTH PLAIN " + b64encode(b"\0" + user + b"\0" + password)]
    return [b"AUTH LOGIN", b64encode(user), b64encode(password)]


def stuffed(content: bytes) -> bytes:
    """Return content as it follows a 354, without its final dot (RFC 5321 4.5.2)."""
    return (b"\r\n" + content).replace(b"\r\n.", b"\r\n..")[2:]


def _file(letter: Letter, folder: Path) -> Path:
    path = folder / "letter.eml"
    path.write_bytes(letter.content)
    return path
