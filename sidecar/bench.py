"""Run benches and print what they found; the exit code judges whether results were right, never how fast they came.

A bench and its libraries are imported when it is asked for: nothing else in the product needs them.
"""

import json
import sys
from collections.abc import Sequence
from datetime import datetime
from importlib.util import find_spec

from sidecar.failures import CommandError


def run_benches(names: Sequence[str], *, rounds: int, as_json: bool, now: datetime) -> int:
    """Measure each of *names* in *rounds* rounds, print tables or JSON, and return 1 where a result was not right."""
    if find_spec("bench") is None:
        raise CommandError("the benches are no part of an installation: run this in a checkout")
    from bench import report
    from bench.injector import cases

    known = {"injector": cases}
    reports = [report.measured(name, known[name](), rounds=rounds, now=now) for name in names]
    if as_json:
        sys.stdout.write(json.dumps([each.document() for each in reports], indent=2) + "\n")
    else:
        sys.stdout.write("\n\n".join(each.text() for each in reports) + "\n")
    return int(any(each.wrong for each in reports))
