"""Mails to rewrite, a minter whose URLs can be read back, and the standard library as a second reader."""

import base64
import email
import email.message
import quopri

from bs4 import BeautifulSoup

import injector
from injector import HeaderEdits, Minter, Options, Rendered

BASE = "https://t.example.com"
STAMP = b"<aaaabbbbccccddddeeeeffff22@example.com>"
PDF = b"%PDF-1.4\r\n" + bytes(range(256)) * 3 + b'<a href="https://no.example.com/">'


class HexMinter:
    """Spells each destination in its URL, so that a test can read it back."""

    def open(self) -> str:
        """Return the pixel's address."""
        return f"{BASE}/track/o/pixel"

    def click(self, link: int, url: str) -> str | None:
        """Return an address that holds *link* and *url*."""
        return f"{BASE}/track/c/{link}.{url.encode('utf-8', 'surrogatepass').hex()}"

    def unsubscribe(self) -> str:
        """Return the unsubscribe address."""
        return f"{BASE}/unsubscribe/one"


def destination(url: str) -> str | None:
    """Return where one of HexMinter's addresses leads; None for any other URL."""
    start = f"{BASE}/track/c/"
    if not url.startswith(start):
        return None
    return bytes.fromhex(url.removeprefix(start).partition(".")[2]).decode("utf-8", "surrogatepass")


def options(
    *,
    opens: bool = True,
    clicks: bool = True,
    unsubscribe: bool = True,
    text_links: bool = False,
    public_url: str = BASE,
    strip: bool = False,
) -> Options:
    """Return the default options, or what the test asks for."""
    return Options(
        public_url=public_url,
        opens=opens,
        clicks=clicks,
        unsubscribe=unsubscribe,
        text_links=text_links,
        dkim="strip" if strip else "keep",
    )


def rewrite(
    content: bytes,
    chosen: Options | None = None,
    *,
    campaign: bool = True,
    minter: Minter | None = None,
    edits: HeaderEdits | None = None,
) -> Rendered:
    """Parse, plan and render *content* for one recipient."""
    planned = injector.plan(injector.parse(content), chosen or options(), campaign=campaign)
    return planned.render(minter or HexMinter(), edits or HeaderEdits(set_message_id=STAMP))


def encode(body: bytes, encoding: str) -> bytes:
    """Return *body* in a transfer encoding, as ordinary mailers write it."""
    match encoding.lower():
        case "base64":
            return base64.encodebytes(body).replace(b"\n", b"\r\n")
        case "quoted-printable":
            lines = body.split(b"\r\n")
            return b"\r\n".join(quopri.encodestring(line).replace(b"\n", b"\r\n") for line in lines)
        case _:
            return body


def part(body: bytes, kind: str = "text/html", encoding: str = "", charset: str = "utf-8", extra: bytes = b"") -> bytes:
    """Return one part: header, empty line, encoded body."""
    label = f"; charset={charset}" if charset else ""
    lines = f"Content-Type: {kind}{label}\r\n".encode()
    if encoding:
        lines += f"Content-Transfer-Encoding: {encoding}\r\n".encode()
    return lines + extra + b"\r\n" + encode(body, encoding)


def multipart(subtype: str, *parts: bytes, boundary: str = "b1", extra: str = "") -> bytes:
    """Return a multipart with its header, for use as a part or behind `top`."""
    mark = boundary.encode()
    lines = f'Content-Type: multipart/{subtype}; boundary="{boundary}"{extra}\r\n\r\n'.encode()
    return lines + b"".join(b"--" + mark + b"\r\n" + each + b"\r\n" for each in parts) + b"--" + mark + b"--\r\n"


def top(body: bytes, *fields: bytes) -> bytes:
    """Return a message: its header fields, then a part with its own header lines."""
    lines = [b"From: Shop <shop@example.com>", b"To: ann@example.net", b"Subject: Hi", b"MIME-Version: 1.0"]
    return b"".join(line + b"\r\n" for line in [*lines, *fields]) + body


def links_of(html: bytes | str) -> list[str]:
    """Return the hrefs of *html* as BeautifulSoup reads them."""
    soup = BeautifulSoup(html, "html.parser")
    return [str(anchor["href"]) for anchor in soup.find_all(["a", "area"], href=True)]


def leaves(content: bytes) -> list[tuple[str, bytes]]:
    """Return type and decoded body of every leaf as the standard library reads them."""
    return [
        (each.get_content_type(), _payload(each))
        for each in email.message_from_bytes(content).walk()
        if not each.is_multipart()
    ]


def html_of(content: bytes) -> bytes:
    """Return the decoded body of the first html leaf as the standard library reads it."""
    return next(body for kind, body in leaves(content) if kind == "text/html")


def _payload(message: email.message.Message) -> bytes:
    payload = message.get_payload(decode=True)
    return payload if isinstance(payload, bytes) else b""


def body_of(content: bytes) -> bytes:
    """Return what follows the first empty line."""
    return content.partition(b"\r\n\r\n")[2]


def longest_line(content: bytes) -> int:
    """Return the length of the longest line, its end not counted."""
    return max(map(len, content.split(b"\r\n")))
