"""The arguments of `import`: each origin has its own."""

import argparse
import re
from collections.abc import Callable
from urllib.parse import urlsplit

REPORTS = ("sent", "opened", "clicked", "bounced", "complained", "unsubscribed")
APIS = ("1.6", "2")

#: Where the secret of an origin stands in the environment.
API_KEY = "EMAILOCTOPUS_API_KEY"
LISTMONK_URL = "LISTMONK_DATABASE_URL"

#: What may have happened to a recipient, as columns of a file.
COLUMNS = ("sent", "delivered", "opened", "clicked", "bounced", "complained", "unsubscribed")
#: What a column of a file may be read as.
FIELDS = ("email", "event", "at", "url", "bounce", *COLUMNS, *(f"{name}_at" for name in COLUMNS))

_CAMPAIGN = re.compile(r"[A-Za-z0-9._:-]{1,64}")
_LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})


def add_import_arguments(to: argparse.ArgumentParser, finish: Callable[[argparse.ArgumentParser], None]) -> None:
    """Add a parser for each origin; *finish* adds what all commands take."""
    origins = to.add_subparsers(dest="origin", metavar="ORIGIN", required=True)
    for name, does, arguments in (
        ("emailoctopus", "Read a campaign's reports from EmailOctopus.", _emailoctopus),
        ("csv", "Read a file: a row for each recipient, or for each event.", _csv),
        ("postgres-listmonk", "Read a listmonk's database, with its azure_message_tracking.", _listmonk),
    ):
        own = origins.add_parser(name, help=does, description=does, allow_abbrev=False)
        arguments(own)
        source = name.removeprefix("postgres-")
        own.add_argument("--source", metavar="USER", help=f"whose campaign it becomes (import:{source})")
        own.add_argument(
            "--suppress",
            action="store_true",
            help="keep campaign mail, --source's or everybody's, from who unsubscribed, complained or bounced for good",
        )
        finish(own)


def _emailoctopus(to: argparse.ArgumentParser) -> None:
    to.add_argument("--campaign", required=True, type=_campaign, metavar="ID", help="the campaign's id there, and here")
    to.add_argument("--reports", type=_reports, default=REPORTS, metavar="NAMES", help=f"{','.join(REPORTS)} (all)")
    to.add_argument("--api", choices=APIS, default="2", help="the version of its API (2)")
    to.add_argument("--base-url", type=_base, metavar="URL", help="where its API answers (EmailOctopus's own address)")
    to.add_argument("--secret-file", metavar="FILE", help=f"the API key; else {API_KEY}, else it is asked for")


def _csv(to: argparse.ArgumentParser) -> None:
    to.add_argument("file", metavar="FILE", help="the file; - reads standard input")
    to.add_argument("--campaign", required=True, type=_campaign, metavar="ID", help="the campaign's id here")
    to.add_argument("--every", choices=COLUMNS, help="what every row tells, where no column does")
    to.add_argument(
        "--map", action="append", type=_mapped, default=[], metavar="FIELD=COLUMN", help="what a column is read as"
    )


def _listmonk(to: argparse.ArgumentParser) -> None:
    to.add_argument(
        "--campaign", required=True, type=_campaign, metavar="ID", help="its number or UUID there; here it has the UUID"
    )
    to.add_argument(
        "--secret-file", metavar="FILE", help=f"the database's URL; else {LISTMONK_URL}, else it is asked for"
    )


def _campaign(text: str) -> str:
    if _CAMPAIGN.fullmatch(text) is None:
        raise argparse.ArgumentTypeError("expected 1 to 64 letters, digits and . _ : -")
    return text


def _base(text: str) -> str:
    parts = urlsplit(text)
    if parts.scheme != "https" and not (parts.scheme == "http" and parts.hostname in _LOOPBACK):
        raise argparse.ArgumentTypeError("expected https://, or http:// on this machine: a key is sent there")
    return text


def _reports(text: str) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(text.split(",")))
    if not set(names) <= set(REPORTS):
        raise argparse.ArgumentTypeError(f"expected some of {', '.join(REPORTS)}, separated by commas")
    return names


def _mapped(text: str) -> tuple[str, str]:
    field, equals, column = text.partition("=")
    if not equals or field not in FIELDS or not column.strip():
        raise argparse.ArgumentTypeError(f"expected FIELD=COLUMN with a FIELD of {', '.join(FIELDS)}")
    return field, column
