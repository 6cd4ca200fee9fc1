"""The demo's campaign: real mail of the kinds that break other rewriters. Pure: equal arguments, equal bytes."""

import hashlib
from datetime import datetime
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime

import msgspec

SENDER = "bounce@shop.example.com"

#: Links as a mailer writes them; the right side is where a click must lead, byte for byte.
LINKS = {
    "https://example.com/": "https://example.com/",
    "https://example.com/sale?a=1&amp;b=2": "https://example.com/sale?a=1&b=2",
    "https://example.com/%7E%2Fkeep?q=%7E%2F": "https://example.com/%7E%2Fkeep?q=%7E%2F",
    "https://example.com/list?a[]=1&amp;a[]=2": "https://example.com/list?a[]=1&a[]=2",
    "https://example.com/a|b": "https://example.com/a|b",
    "https://example.com/page#fragment": "https://example.com/page#fragment",
    "https://example.org/?copy=2&region=eu": "https://example.org/?copy=2&region=eu",
    "HTTPS://Example.NET/Case/Kept": "HTTPS://Example.NET/Case/Kept",
    "https://example.net/it's": "https://example.net/it's",
    "https://example.com:8443/port": "https://example.com:8443/port",
    "https://example.com/search?q=one+two%20three": "https://example.com/search?q=one+two%20three",
}

#: What must leave as it came.
LEFT_ALONE = (
    "mailto:info@example.com",
    "#top",
    "tel:+15550100",
    "https://example.com/amsweb.php?id=1",
    "{{unsubscribe}}",
)

TEXT = "Здравствуйте! Распродажа началась: скидки до 50 %.\n"
HEADLINE = "Распродажа"


class Mail(msgspec.Struct, frozen=True, kw_only=True):
    """One submission of the demo."""

    title: str
    recipients: tuple[str, ...]
    content: bytes


def person(name: str, number: int) -> str:
    """Return *name*'s address in campaign *number*: other people in each run, since those who left stay away."""
    host = "example.net" if name < "d" else "example.org"
    return f"{name}.{number}@{host}"


def pdf() -> bytes:
    """Return a small real PDF."""
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 200 100] /Contents 4 0 R /Resources << >> >>",
        b"<< /Length 0 >>\nstream\n\nendstream",
    ]
    out = b"%PDF-1.4\n%\xe2\xe3\xcf\xd3\n"
    offsets = []
    for number, body in enumerate(objects, 1):
        offsets.append(len(out))
        out += b"%d 0 obj\n%s\nendobj\n" % (number, body)
    table = b"".join(b"%010d 00000 n \n" % offset for offset in offsets)
    return out + b"xref\n0 5\n0000000000 65535 f \n%strailer\n<< /Size 5 /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF\n" % (
        table,
        len(out),
    )


def html() -> str:
    """Return the page of the campaign."""
    tracked = "\n".join(f'<p><a href="{link}">{number}. ссылка</a></p>' for number, link in enumerate(LINKS, 1))
    alone = "\n".join(f'<p><a href="{link}">так и останется</a></p>' for link in LEFT_ALONE)
    head = f"<head><title>{HEADLINE}</title></head>"
    return f"<html>{head}\n<body>\n<h1>{HEADLINE}</h1>\n{tracked}\n{alone}\n</body></html>\n"


def campaign(number: int, now: datetime) -> list[Mail]:
    """Return the submissions of campaign *number*."""
    return [
        Mail(
            title="windows-1251, base64 HTML, a text part and a PDF, to three people in one transaction",
            recipients=tuple(person(name, number) for name in ("anna", "boris", "clara")),
            content=_content(number, now, "one", charset="windows-1251", cte="base64", attach=True),
        ),
        Mail(
            title="UTF-8 and quoted-printable, to one",
            recipients=(person("dmitri", number),),
            content=_content(number, now, "two", charset="utf-8", cte="quoted-printable", attach=False),
        ),
        Mail(
            title="a message that its sender signed (multipart/signed)",
            recipients=(person("elena", number),),
            content=_signed(number, now),
        ),
    ]


def farewell(number: int, now: datetime) -> Mail:
    """Return one more mail of the campaign, to somebody who has unsubscribed."""
    return Mail(
        title="one more, to somebody who left",
        recipients=(person("boris", number),),
        content=_content(number, now, "four", charset="utf-8", cte="quoted-printable", attach=False),
    )


def _content(number: int, now: datetime, name: str, *, charset: str, cte: str, attach: bool) -> bytes:
    mail = EmailMessage(policy=SMTP)
    _head(mail, number, now, name)
    mail.set_content(TEXT, charset=charset, cte=cte)
    mail.add_alternative(html(), subtype="html", charset=charset, cte=cte)
    if attach:
        mail.add_attachment(pdf(), maintype="application", subtype="pdf", filename="price-list.pdf")
    return mail.as_bytes()


def _head(mail: EmailMessage, number: int, now: datetime, name: str) -> None:
    mail["From"] = "Shop <news@shop.example.com>"
    mail["To"] = "undisclosed-recipients:;"
    mail["Subject"] = HEADLINE
    mail["Date"] = format_datetime(now)
    mail["Message-ID"] = f"<{name}.{number}@mailer.example.com>"
    mail["X-Id-Mail"] = f"[{number}]"


def _signed(number: int, now: datetime) -> bytes:
    head = EmailMessage(policy=SMTP)
    _head(head, number, now, "three")
    part = (
        b"Content-Type: text/html; charset=utf-8\r\n\r\n"
        b'<html><body><a href="https://example.com/signed">signed</a></body></html>\r\n'
    )
    # What an S/MIME client would find here; that the part's octets stay the same is what counts.
    signature = hashlib.sha256(part).hexdigest().encode("ascii")
    return (
        head.as_bytes().removesuffix(b"\r\n")
        + b"MIME-Version: 1.0\r\n"
        + b'Content-Type: multipart/signed; protocol="application/pkcs7-signature"; boundary="s"\r\n\r\n'
        + b"--s\r\n"
        + part
        + b"\r\n--s\r\nContent-Type: application/pkcs7-signature; name=smime.p7s\r\n\r\n"
        + signature
        + b"\r\n--s--\r\n"
    )
