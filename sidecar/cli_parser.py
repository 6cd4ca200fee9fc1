"""The commands, their arguments and their help.

Arguments are read here, and those of `import` in `sidecar.import_arguments`; what a command does stands in
`sidecar.cli_commands` and is not imported to print help.
"""

import argparse
from collections.abc import Callable
from datetime import UTC, datetime

import msgspec

from sidecar.import_arguments import add_import_arguments

PROGRAM = "outrider"

STATUSES = ("accepted", "queued", "sending", "sent", "failed", "refused", "suppressed")
QUEUE_ACTIONS = ("list", "show", "retry", "cancel", "flush")
SUPPRESS_ACTIONS = ("add", "remove", "list", "import", "export")
FILTERS = ("all", "engaged", "bounced", "unsubscribed")

_DESCRIPTION = "A sidecar SMTP relay with a tracking proxy. Point your mailer at it instead of at your provider."
_EPILOG = """\
Begin with: outrider demo
Settings come from --set, the environment, outrider.toml and defaults: outrider describe-config
Exit codes: 0 all well, 1 something failed, 2 a wrong setting or argument.
"""

#: What can be measured, each by itself, and who can be measured beside it.
BENCHES = ("relay", "tracker", "injector", "store", "courier", "webhooks", "start")
#: These too, but `all` is without them: each takes a quarter of an hour, and gigabytes of disk.
LONG_BENCHES = ("growth",)
BENCH_PEERS = ("postfix", "haraka", "nginx")

_LARGEST_PAGE = 1000
_LARGEST_COUNT = 2**31 - 1
_MOST_ROUNDS = 1000


class Command(msgspec.Struct, frozen=True, kw_only=True):
    """One command: its name, what it does in one line, and what it is told."""

    name: str
    does: str
    #: Adds the command's own arguments.
    arguments: Callable[[argparse.ArgumentParser], None] | None = None
    #: Whether it reads the settings, and so takes --set, --data-dir and --config.
    settings: bool = True


def parser() -> argparse.ArgumentParser:
    """Return the parser of the whole command line; `command` names the one that was given."""
    top = argparse.ArgumentParser(
        prog=PROGRAM,
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    _add_settings(top, "before_")
    commands = top.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for command in COMMANDS:
        own = commands.add_parser(command.name, help=command.does, description=command.does, allow_abbrev=False)
        if command.arguments is not None:
            command.arguments(own)
        if command.settings:
            _add_settings(own, "")
    return top


def _add_settings(to: argparse.ArgumentParser, prefix: str) -> None:
    # The same options before the command have names of their own: a command's defaults would wipe them out.
    group = to.add_argument_group("settings")
    group.add_argument(
        "--set",
        action="append",
        default=[],
        dest=f"{prefix}assignments",
        metavar="SECTION.KEY=VALUE",
        help="one setting, such as relay.upstream=capture; may be repeated",
    )
    group.add_argument("--data-dir", dest=f"{prefix}data_dir", metavar="DIR", help="where everything is kept")
    group.add_argument(
        "--config", dest=f"{prefix}config", metavar="FILE", help="a settings file beside outrider.toml's"
    )


def _json(to: argparse.ArgumentParser) -> None:
    to.add_argument("--json", action="store_true", help="print JSON, for machines")


def _campaign(to: argparse.ArgumentParser) -> None:
    to.add_argument("campaign", nargs="?", metavar="CAMPAIGN", help="one campaign's id; all of them without it")
    to.add_argument("--source", metavar="USER", help="whose campaign, where several share an id")


def _demo(to: argparse.ArgumentParser) -> None:
    to.add_argument("--exit", action="store_true", help="stop when done; exit 0 only if every step held")


def _test(to: argparse.ArgumentParser) -> None:
    to.add_argument("arguments", nargs=argparse.REMAINDER, metavar="ARGUMENT", help="soak, or what pytest is told")


def _explain(to: argparse.ArgumentParser) -> None:
    to.add_argument("file", metavar="FILE", help="a message as it would be submitted; - reads standard input")
    _json(to)


def _status(to: argparse.ArgumentParser) -> None:
    _campaign(to)
    _json(to)


def _messages(to: argparse.ArgumentParser) -> None:
    to.add_argument("--campaign", metavar="CAMPAIGN", help="of one campaign")
    to.add_argument("--source", metavar="USER", help="submitted by this user")
    to.add_argument("--recipient", metavar="ADDRESS", help="to one recipient")
    to.add_argument("--status", choices=STATUSES, help="that stand so")
    to.add_argument("--submission", metavar="KEY", help="of one SMTP transaction, as its 250 named it")
    to.add_argument("--limit", type=_page, default=100, metavar="N", help="at most so many (100)")
    to.add_argument("--cursor", metavar="CURSOR", help="go on after an earlier listing")
    _json(to)


def _export(to: argparse.ArgumentParser) -> None:
    _campaign(to)
    to.add_argument("--filter", choices=FILTERS, default="all", help="which recipients (all)")


def _hold(to: argparse.ArgumentParser) -> None:
    to.add_argument("campaign", metavar="CAMPAIGN", help="the campaign's id")
    to.add_argument("--source", metavar="USER", help="whose campaign, where several share an id")
    _json(to)


def _campaign_words(to: argparse.ArgumentParser) -> None:
    to.add_argument("campaign", metavar="CAMPAIGN", help="the campaign's id")
    to.add_argument("--source", metavar="USER", help="whose campaign, where several share an id")
    to.add_argument("--to-send", type=_count, metavar="N", help="how many messages it will have; 0: nobody knows")
    to.add_argument(
        "--window", metavar="TEXT", help="when its mail may be sent: 'Mon-Fri 08:00-20:00 Europe/Berlin'; '' is always"
    )
    to.add_argument("--no-window", action="store_true", help="the window of relay.send_window again")
    to.add_argument("--rate", metavar="RATE", help="how fast its mail may leave: 100/m, 10/s, 1000/h; none: no limit")
    to.add_argument("--no-rate", action="store_true", help="the rate of relay.campaign_rate again")
    _json(to)


def _queue(to: argparse.ArgumentParser) -> None:
    to.add_argument(
        "action",
        choices=QUEUE_ACTIONS,
        help="list what waits, show one message, retry some now, cancel some for ever, flush: retry all now",
    )
    to.add_argument("keys", nargs="*", metavar="KEY", help="messages, as their 250 named them")
    to.add_argument("--campaign", metavar="CAMPAIGN", help="what waits of one campaign")
    to.add_argument("--source", metavar="USER", help="whose campaign, where several share an id")
    to.add_argument("--raw", action="store_true", help="show: print the submission as it is stored, nothing else")
    to.add_argument("--limit", type=_page, default=100, metavar="N", help="list: at most so many (100)")
    to.add_argument("--cursor", metavar="CURSOR", help="list: go on after an earlier listing")
    _json(to)


def _suppress(to: argparse.ArgumentParser) -> None:
    to.add_argument(
        "action",
        choices=SUPPRESS_ACTIONS,
        help="add or remove recipients, list them, import them from CSV, or export them as CSV",
    )
    to.add_argument("names", nargs="*", metavar="ADDRESS", help="recipients; import: one file, - reads standard input")
    to.add_argument("--source", metavar="USER", help="whose campaign mail: one user's; everybody's without it")
    to.add_argument("--reason", metavar="WORD", default="operator", help="add: why (operator)")
    to.add_argument("--limit", type=_page, default=100, metavar="N", help="list: at most so many (100)")
    to.add_argument("--cursor", metavar="CURSOR", help="list: go on after an earlier listing")
    _json(to)


def _forget(to: argparse.ArgumentParser) -> None:
    to.add_argument("address", metavar="ADDRESS", help="whom to erase, in any case of letters")
    _json(to)


def _seal(to: argparse.ArgumentParser) -> None:
    to.add_argument("--open", action="store_true", help="decrypt them instead, to do without any key")
    _json(to)


def _sink(to: argparse.ArgumentParser, help_: str) -> None:
    to.add_argument("--sink", metavar="NAME", help=help_)


def _unmatched(to: argparse.ArgumentParser) -> None:
    _sink(to, "list what this sink refused instead: a name of [sinks.NAME], or listmonk")
    to.add_argument("--ams", action="store_true", help="list what AMS refused instead, with its words")
    to.add_argument("--limit", type=_page, default=100, metavar="N", help="at most so many (100)")
    _json(to)


def _replay(to: argparse.ArgumentParser) -> None:
    _sink(to, "to this sink instead of AMS: a name of [sinks.NAME], or listmonk")
    to.add_argument(
        "--since",
        type=moment,
        metavar="TIME",
        help="build items from the ledger's events since then: 2026-11-20 or 2026-11-20T08:00:00Z; UTC unless it says",
    )
    _json(to)


def _probe(to: argparse.ArgumentParser) -> None:
    to.add_argument("--to", required=True, metavar="ADDRESS", help="who gets the message")
    to.add_argument("--from", dest="sender", metavar="ADDRESS", help="its sender (outrider@ and this host's name)")
    to.add_argument("--upstream", metavar="URL", help="where it is sent (relay.upstream)")
    to.add_argument("--wait", type=_count, default=600, metavar="SECONDS", help="for events; 0: do not (600)")


def _import(to: argparse.ArgumentParser) -> None:
    def finish(own: argparse.ArgumentParser) -> None:
        _json(own)
        _add_settings(own, "")

    add_import_arguments(to, finish)


def _passwd(to: argparse.ArgumentParser) -> None:
    to.add_argument("file", metavar="FILE", help="the file that relay.users names; made if it is missing")
    to.add_argument("user", metavar="USER", help="who may log in; an existing user gets the new password")


def _bench(to: argparse.ArgumentParser) -> None:
    names = (*BENCHES, "all", *LONG_BENCHES)
    without = ", ".join(LONG_BENCHES)
    to.add_argument(
        "bench", nargs="?", choices=names, default="all", help=f"what is measured (all, which is without {without})"
    )
    to.add_argument("--rounds", type=_rounds, metavar="N", help="how often each takes its turn; each bench has its own")
    to.add_argument(
        "--against",
        type=_peers,
        metavar="NAMES",
        help=f"who is measured beside us, of {','.join(BENCH_PEERS)}, or none; all that are installed without it",
    )
    to.add_argument("--haraka", default="", metavar="DIR", help="where npm installed Haraka; without it `haraka`")
    _json(to)


def _peers(text: str) -> tuple[str, ...]:
    names = () if text == "none" else tuple(text.split(","))
    if not set(names) <= set(BENCH_PEERS):
        raise argparse.ArgumentTypeError(f"expected some of {', '.join(BENCH_PEERS)}, separated by commas, or none")
    return names


def _rounds(text: str) -> int:
    return _whole(text, most=_MOST_ROUNDS)


def _page(text: str) -> int:
    return _whole(text, most=_LARGEST_PAGE)


def _whole(text: str, *, most: int) -> int:
    if not (text.isascii() and text.isdecimal()) or not 1 <= int(text) <= most:
        raise argparse.ArgumentTypeError(f"expected a number from 1 to {most}")
    return int(text)


def _count(text: str) -> int:
    if not (text.isascii() and text.isdecimal()) or int(text) > _LARGEST_COUNT:
        raise argparse.ArgumentTypeError(f"expected a number up to {_LARGEST_COUNT}")
    return int(text)


def moment(text: str) -> datetime:
    """Return the aware time that *text* names in ISO 8601; UTC where it names no zone."""
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError("expected a time such as 2026-11-20 or 2026-11-20T08:00:00Z") from None
    return found if found.tzinfo is not None else found.replace(tzinfo=UTC)


COMMANDS = (
    Command(name="demo", does="Show the whole of it on this machine, step by step, with real mail.", arguments=_demo),
    Command(name="run", does="Run relay, tracker, courier and console; needs an upstream."),
    Command(name="relay", does="Run the relay alone: mail in."),
    Command(name="tracker", does="Run the tracker alone: hits in."),
    Command(name="courier", does="Run the courier alone: events out to AMS."),
    Command(name="console", does="Run the console alone: the operator's API and pages."),
    Command(name="test", does="Run every check and test; soak runs the long rounds.", arguments=_test, settings=False),
    Command(name="migrate", does="Bring the database to this version's shape; twice is once."),
    Command(name="check-config", does="Try the settings and print them, without secrets; exit 2 on an error."),
    Command(name="describe-config", does="Print the reference of all settings.", settings=False),
    Command(name="explain", does="Show what would be done to a message; sends and stores nothing.", arguments=_explain),
    Command(name="status", does="Show campaigns with their counts.", arguments=_status),
    Command(name="messages", does="List messages and what became of them.", arguments=_messages),
    Command(name="export", does="Write recipients and their engagement as CSV.", arguments=_export),
    Command(name="sync-counts", does="Derive the counts anew from the messages' states.", arguments=_status),
    Command(
        name="campaign",
        does="Say what a campaign expects, when its mail may be sent, and how fast.",
        arguments=_campaign_words,
    ),
    Command(name="pause", does="Hold a campaign's mail: it is accepted and waits.", arguments=_hold),
    Command(name="resume", does="Let a held campaign's mail go.", arguments=_hold),
    Command(name="queue", does="See what waits, try it again now, or end it.", arguments=_queue),
    Command(name="suppress", does="Keep campaign mail from recipients, or let it go again.", arguments=_suppress),
    Command(name="forget", does="Erase an address everywhere, and print a receipt.", arguments=_forget),
    Command(name="seal", does="Encrypt the addresses of older rows with the newest key.", arguments=_seal),
    Command(name="unmatched", does="List events that matched no message, with the reason.", arguments=_unmatched),
    Command(
        name="replay",
        does="Send parked items again, to AMS or a sink, or build those of a time gone by.",
        arguments=_replay,
    ),
    Command(name="probe", does="Send one message, and see by which ids its events find it.", arguments=_probe),
    # Each of its origins takes the settings.
    Command(
        name="import",
        does="Bring in the history of a campaign that was sent elsewhere.",
        arguments=_import,
        settings=False,
    ),
    Command(name="passwd", does="Set a user's password in a users file.", arguments=_passwd, settings=False),
    Command(name="bench", does="Measure against baselines, side by side.", arguments=_bench, settings=False),
)
