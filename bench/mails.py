"""Make the mails that the benches measure: invented, shaped as a newsletter tool writes them, and the hostile ones.

Equal arguments give equal octets, so that two runs, and two releases, are measured on the same.
"""

import base64
import quopri
from typing import Final

#: Each is repeated up to a size: what made parsers and plain regular expressions stall.
HOSTILE: Final = (
    b"<",
    b"<!--",
    b"<a ",
    b'<a href="',
    b"<a href=x ",
    b"<div>",
    b"</",
    b"<![if",
    b"<script>",
    b"&amp",
    b"<a x='",
    b"<?",
    b"<a><b>",
)

_PAGE: Final = b"MIME-Version: 1.0\r\nContent-Type: text/html; charset=utf-8\r\n"
_MIXED: Final = b'MIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary="a"\r\n\r\n'
#: Whole messages that are hard to read: how each begins, and what is repeated behind it.
HOSTILE_MESSAGES: Final = {
    "links": (_PAGE + b"\r\n", b'<a href="https://example.com/">x</a>\r\n'),
    "soft line breaks": (_PAGE + b"Content-Transfer-Encoding: quoted-printable\r\n\r\n", b"=\r\n"),
    "one line": (_PAGE + b"\r\n", b"x"),
    "boundaries": (_MIXED, b"--a\r\n\r\n"),
    "lines like boundaries": (_MIXED, b"--ab\r\n"),
    "header fields": (b"", b"x: y\r\n"),
    "one header field": (b"Subject: ", b"x\r\n "),
}

_TEXT: Final = (
    "autumn garden lamp blue table small kettle window linen oak bread winter coat river chair paper market honey "
    "letter glass quiet corner evening wool morning basket copper ladder stone harbour field pencil ribbon orchard"
)
_WORDS: Final = tuple(_TEXT.split())

_HEAD: Final = """\
<!doctype html>
<html lang="en" dir="auto" xmlns="http://www.w3.org/1999/xhtml" xmlns:v="urn:schemas-microsoft-com:vml" \
xmlns:o="urn:schemas-microsoft-com:office:office">
  <head>
    <title>Autumn at the Example Shop</title>
    <!--[if !mso]><!-->
    <meta http-equiv="X-UA-Compatible" content="IE=edge">
    <!--<![endif]-->
    <meta http-equiv="Content-Type" content="text/html; charset=UTF-8">
    <meta name="viewport" content="width=device-width, initial-scale=1">
    <style type="text/css">
      #outlook a { padding:0; }
      body { margin:0;padding:0;-webkit-text-size-adjust:100%;-ms-text-size-adjust:100%; }
      table, td { border-collapse:collapse;mso-table-lspace:0pt;mso-table-rspace:0pt; }
      img { border:0;height:auto;line-height:100%; outline:none;text-decoration:none; }
      p { display:block;margin:13px 0; }
    </style>
    <!--[if mso]>
    <noscript>
    <xml>
    <o:OfficeDocumentSettings>
      <o:AllowPNG/>
      <o:PixelsPerInch>96</o:PixelsPerInch>
    </o:OfficeDocumentSettings>
    </xml>
    </noscript>
    <![endif]-->
    <style type="text/css">
      @media only screen and (min-width:480px) {
        .mj-column-per-100 { width:100% !important; max-width: 100%; }
        .mj-column-per-50 { width:50% !important; max-width: 50%; }
      }
    </style>
  </head>
  <body style="word-spacing:normal;background-color:#f4f4f4;">
    <div style="display:none;font-size:1px;color:#ffffff;line-height:1px;overflow:hidden;">{preview}</div>
    <div style="background-color:#f4f4f4;">
"""

_CARD: Final = """\
      <!--[if mso | IE]><table align="center" border="0" cellpadding="0" cellspacing="0" role="presentation" \
style="width:600px;" width="600"><tr><td style="line-height:0px;font-size:0px;"><![endif]-->
      <div style="background:#ffffff;margin:0px auto;max-width:600px;">
        <table align="center" border="0" cellpadding="0" cellspacing="0" role="presentation" style="width:100%;">
          <tbody>
            <tr>
              <td style="direction:ltr;font-size:0px;padding:20px 0;text-align:center;">
                <h2 style="font-family:Arial,sans-serif;font-size:18px;color:#333333;">{title}</h2>
                <p style="font-family:Arial,sans-serif;font-size:14px;line-height:1.5;">{text}</p>
{button}
              </td>
            </tr>
          </tbody>
        </table>
      </div>
      <!--[if mso | IE]></td></tr></table><![endif]-->
"""

_BUTTON: Final = """\
                <a href="{link}" style="background:#2f6f4f;color:#ffffff;display:block;" target="_blank">{text}</a>"""

# Outlook draws a button of its own, to the same place, and hides the other one.
_OUTLOOK_BUTTON: Final = """\
                <!--[if mso]><v:roundrect xmlns:v="urn:schemas-microsoft-com:vml" href="{link}" arcsize="8%" \
style="height:40px;v-text-anchor:middle;width:200px;"><center>{text}</center></v:roundrect><![endif]-->
                <!--[if !mso]><!-->
{plain}
                <!--<![endif]-->"""

_FOOT: Final = """\
      <p style="font-family:Arial,sans-serif;font-size:11px;color:#888888;">Example Shop \u2014 1 Example Street, \
Exampleton. Caf\u00e9 \u201cAt the Corner\u201d is open until six.<br />\
<a href="mailto:info@example.com">Write to us</a> &middot; <a href="#top">Top</a></p>
    </div>
  </body>
</html>
"""

#: The local part of every message's Message-ID.
MESSAGE_ID: Final = b"campaign.42.1@"
_FIELDS: Final = (
    "Return-Path: <bounce@example.com>\r\n"
    "From: Example Shop <news@example.com>\r\n"
    "To: =?utf-8?q?Zo=C3=AB_Reader?= <reader@example.net>\r\n"
    "Reply-To: Example Shop <info@example.com>\r\n"
    "Subject: =?utf-8?q?Autumn_at_the_Example_Shop_=E2=80=94_what_is_new?=\r\n"
    "Date: Sat, 21 Nov 2026 08:00:00 +0000\r\n"
    f"Message-ID: <{MESSAGE_ID.decode()}mailer.example.com>\r\n"
    "X-Campaign-Id: 42\r\n"
    "List-Id: Example Shop news <news.example.com>\r\n"
    "Precedence: bulk\r\n"
    "MIME-Version: 1.0\r\n"
)

# Of a line of base64.
_LINE_OCTETS: Final = 76

_PLAIN_LINE: Final = "<p>A line about the autumn garden, the copper kettle and the linen on the oak table.</p>\r\n"
_PLAIN_LINK: Final = (
    '<p><a href="https://shop.example.com/autumn/offers/{}?utm_source=news&amp;utm_campaign=42">See</a></p>\r\n'
)

#: Links of Outlook's own in each newsletter, to places that ordinary links lead to as well.
OUTLOOK_LINKS: Final = 2


def newsletter(*, links: int = 16, octets: int = 20_000, variant: int = 0, per_card: int = 1) -> bytes:
    """Return an HTML page in UTF-8, about *octets* long, with *links* web addresses; every *variant* has its own.

    *per_card* links share what stands around them: with more of them a page may be shorter.
    """
    # What stands around the words of a card, around a link, and at both ends of the page, takes so much.
    cards_in_all = -(-links // per_card)
    plain = max((octets - 3_600 - cards_in_all * 820 - links * 270) // cards_in_all, 30)
    cards: list[str] = []
    buttons: list[str] = []
    for number in range(links):
        # A personal address is longer than its page: who reads, which mailing, which place in it.
        link = f"https://shop.example.com/{_words(number, 3, '-')}?utm_source=news&amp;utm_campaign=autumn-42"
        link = f"{link}&amp;place={number}&amp;r={variant:08x}"
        text = f"See {_words(number * 7, 2)}"
        button = _BUTTON.format(link=link, text=text)
        if number < OUTLOOK_LINKS:
            button = _OUTLOOK_BUTTON.format(link=link, text=text, plain=button)
        buttons.append(button)
        if len(buttons) == per_card or number == links - 1:
            words = _words(number * 3, plain // 7)
            title = _words(number * 5, 3).title()
            cards.append(_CARD.format(title=title, text=f"{words}.", button="\n".join(buttons)))
            buttons = []
    page = _HEAD.replace("{preview}", _words(variant, 12)) + "".join(cards) + _FOOT
    return page.replace("\n", "\r\n").encode()


def personal(page: bytes, reader: int) -> bytes:
    """Return *page* as a mailer fills it in: a greeting by name, and an unsubscribe link of the reader's own."""
    name = _words(reader, 1).title().encode() + b" %d" % (reader % 97)
    page = page.replace(b"<h2 ", b"<p>Dear %b,</p>\r\n<h2 " % name, 1)
    link = b'<a href="https://shop.example.com/unsubscribe/%08x?list=4">Unsubscribe</a> ' % (reader * 7_919)
    return page.replace(b'<a href="#top">', link + b'<a href="#top">', 1)


def message(html: bytes, encoding: str) -> bytes:
    """Return a multipart/alternative message with *html*, its parts in the transfer encoding *encoding*."""
    lines = [f"{_words(number * 11, 9)} \u2014 https://shop.example.com/{number}\r\n" for number in range(24)]
    parts = (("plain", "".join(lines).encode()), ("html", html))
    content = _FIELDS.encode() + b'Content-Type: multipart/alternative; boundary="=_example_boundary_42"\r\n\r\n'
    for kind, body in parts:
        content += (
            f"--=_example_boundary_42\r\nContent-Type: text/{kind}; charset=UTF-8\r\n"
            f"Content-Transfer-Encoding: {encoding}\r\n\r\n"
        ).encode()
        content += _encoded(body, encoding) + b"\r\n"
    return content + b"--=_example_boundary_42--\r\n"


def plain(octets: int, *, links: int) -> bytes:
    """Return a message with an HTML page of about *octets* and so many *links*, spread over it."""
    anchors = [_PLAIN_LINK.format(number) for number in range(links)]
    lines = max(0, octets - sum(map(len, anchors))) // len(_PLAIN_LINE)
    each, rest = divmod(lines, links + 1)
    page = _PLAIN_LINE * (each + rest) + "".join(anchor + _PLAIN_LINE * each for anchor in anchors)
    return message(f"<html><body>\r\n{page}</body></html>\r\n".encode(), "8bit")


def with_attachment(content: bytes, octets: int) -> bytes:
    """Return *content*, made by `message`, with an attachment in base64 that brings it to about *octets*."""
    _, _, body = content.partition(b"\r\n\r\n")
    lines = (octets - len(content)) // (_LINE_OCTETS + 2)
    line = base64.b64encode(bytes(range(_LINE_OCTETS * 3 // 4))) + b"\r\n"
    return (
        _FIELDS.encode()
        + b'Content-Type: multipart/mixed; boundary="=_example_mixed_42"\r\n\r\n--=_example_mixed_42\r\n'
        + b'Content-Type: multipart/alternative; boundary="=_example_boundary_42"\r\n\r\n'
        + body
        + b'--=_example_mixed_42\r\nContent-Type: application/pdf; name="autumn.pdf"\r\n'
        + b"Content-Transfer-Encoding: base64\r\nContent-Disposition: attachment\r\n\r\n"
        + line * max(lines, 1)
        + b"--=_example_mixed_42--\r\n"
    )


def hostile_page(unit: bytes, octets: int) -> bytes:
    """Return *unit* again and again, *octets* long."""
    return (unit * (octets // len(unit) + 1))[:octets]


def hostile_message(name: str, octets: int) -> bytes:
    """Return the message of `HOSTILE_MESSAGES` that is called *name*, about *octets* long."""
    begin, unit = HOSTILE_MESSAGES[name]
    return begin + hostile_page(unit, octets)


def _encoded(body: bytes, encoding: str) -> bytes:
    match encoding:
        case "quoted-printable":
            return quopri.encodestring(body.replace(b"\r\n", b"\n")).replace(b"\n", b"\r\n")
        case "base64":
            return base64.encodebytes(body).replace(b"\n", b"\r\n").removesuffix(b"\r\n")
        case _:
            return body


def _words(start: int, count: int, between: str = " ") -> str:
    return between.join(_WORDS[(start + 5 * at) % len(_WORDS)] for at in range(count))
