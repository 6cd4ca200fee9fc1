"""Write a report for a person in front of a terminal: 80 columns, no colours, nothing that a terminal would obey."""

import re
from collections.abc import Iterator
from itertools import accumulate
from textwrap import wrap
from typing import Final
from unicodedata import east_asian_width

from injector.explain import Clip, LinkReport, PartReport, Report

WIDTH: Final = 80
#: Of a label.
MAX_COLUMNS: Final = 40

_WARNINGS: Final = {"tracked_already": "looks like a link that another service tracks: clicks are counted twice"}


def render_text(report: Report) -> str:
    """Return *report* for a person to read."""
    return "\n".join(_lines(report)) + "\n"


def _lines(report: Report) -> Iterator[str]:
    yield from _line("", f"Message {report.message_id or 'without Message-ID'}: {_verdict(report)}")
    if report.keeps_message_id:
        yield from _line("  ", "keeps its Message-ID: somebody signed it")
    for domain in report.resigned_for:
        yield from _line("  ", f"signed again for {domain}")
    for names, meaning in ((report.heard, "heard"), (report.unread, "not understood")):
        if names:
            yield from _line("  ", f"{meaning}: {', '.join(names)}")
    yield "Header"
    if not (report.fields_removed or report.fields_added):
        yield "  unchanged"
    for sign, fields in (("-", report.fields_removed), ("+", report.fields_added)):
        for field in fields:
            yield from _line(f"  {sign} ", " ".join(field.split()), indent="      ")
    for part in report.parts:
        yield from _part_lines(part)
    yield from _line("", _difference(report))


def _verdict(report: Report) -> str:
    if not report.injected:
        return f"not tracked: {report.reason}"
    links = [link for part in report.parts for link in part.links]
    pixel = " and the pixel" if any(part.pixel for part in report.parts) else ""
    return f"tracked, {sum(link.tracked for link in links)} of {len(links)} links{pixel}"


def _difference(report: Report) -> str:
    difference = report.difference
    end = "undone, they give the input back" if difference.reversible else "sent without changes to the body"
    return (
        f"Octets: {difference.size_before:,} in, {difference.size_after:,} out; {difference.kept:,} kept, "
        f"{difference.removed:,} removed, {difference.added:,} added in {len(difference.changes)} places; {end}"
    )


def _part_lines(part: PartReport) -> Iterator[str]:
    verdict = "tracked" if part.tracked else f"not tracked: {part.reason}"
    extras = (", with the pixel" if part.pixel else "") + (", folded as quoted-printable" if part.folded else "")
    charset = f"; charset={part.charset}" if part.charset else ""
    size = f"{part.size:,}" if part.size == part.size_after else f"{part.size:,} -> {part.size_after:,}"
    yield from _line(
        "", f"Part {part.path} {part.content_type}{charset} ({part.encoding}, {size} octets): {verdict}{extras}"
    )
    if part.gmail:
        yield from _line("  ", _gmail(part.gmail, pixel=part.pixel))
    for link in part.links:
        yield from _link_lines(link)


def _gmail(clip: Clip, *, pixel: bool) -> str:
    sizes = f"{clip.before:,} -> {clip.after:,} octets decoded"
    if not clip.clipped:
        return f"{sizes}; Gmail shows it whole, {clip.limit - clip.after:,} octets are left"
    already = ", as it did before" if clip.before > clip.limit else ""
    lost = "; the pixel is lost with its end" if pixel else ""
    return f"{sizes}; Gmail clips this message{already}: {clip.after - clip.limit:,} octets over {clip.limit:,}{lost}"


def _link_lines(link: LinkReport) -> Iterator[str]:
    label = f" “{_fitting(link.label)}”" if link.label else ""
    if link.tracked:
        yield from _line("  ", f"link {link.number} <{link.element}>{label} tracked: {link.url}", indent="    ")
    else:
        yield from _line("  ", f"<{link.element}>{label} left alone, {link.reason}: {link.written}", indent="    ")
    if link.warning:
        yield from _line("    ", _WARNINGS[link.warning])


def _fitting(label: str) -> str:
    # Ideographs take two columns each.
    columns = accumulate(2 if east_asian_width(letter) in {"W", "F"} else 1 for letter in label)
    room = sum(column <= MAX_COLUMNS for column in columns)
    return label if room == len(label) else f"{label[:room]}…"


def _line(start: str, text: str, *, indent: str = "    ") -> Iterator[str]:
    """Yield *text* in lines of `WIDTH` columns; a word that is longer is shortened in its middle."""
    room = WIDTH - max(len(start), len(indent))
    words = (_shortened(word, room) for word in _harmless(text).split(" "))
    yield from wrap(
        " ".join(words),
        WIDTH,
        initial_indent=start,
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
    )


def _shortened(word: str, room: int) -> str:
    half = (room - 1) // 2
    return word if len(word) <= room else f"{word[:half]}…{word[len(word) - half :]}"


def _harmless(text: str) -> str:
    """Return *text* without what moves a cursor or turns a direction."""
    return re.sub(r"[^ -~]", _escaped, text)


def _escaped(character: re.Match[str]) -> str:
    letter = character[0]
    return letter if letter.isprintable() else letter.encode("unicode_escape").decode("ascii")
