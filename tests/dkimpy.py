"""Ask dkimpy, which shares nothing with us, whether signatures hold: Debian's package, under the system's Python.

It has no wheel, so it is not among the locked requirements: where the package is absent, its tests are skipped.
"""

import base64
import json
import subprocess
from collections.abc import Mapping, Sequence
from functools import cache

import pytest

_PYTHON = "/usr/bin/python3"
_SECONDS = 60

# One process for many messages: starting it costs more than a thousand verifications.
_PROGRAM = """
import base64, json, sys
import dkim, nacl.signing

asked = json.load(sys.stdin)
records = {name.encode() + b".": text.encode() for name, text in asked["records"].items()}
answers = []
for encoded in asked["messages"]:
    message = base64.b64decode(encoded)
    signatures = sum(name.lower() == b"dkim-signature" for name, _ in dkim.DKIM(message).headers)
    held = []
    for index in range(signatures):
        try:
            held.append(dkim.DKIM(message).verify(idx=index, dnsfunc=lambda name, timeout=5: records.get(name)))
        except dkim.DKIMException:
            held.append(False)
    answers.append(held)
json.dump(answers, sys.stdout)
"""


def verdicts(messages: Sequence[bytes], records: Mapping[str, str]) -> list[list[bool]]:
    """Tell of each signature of each message, the topmost first, whether it holds by the TXT *records*."""
    if (missing := _missing()) is not None:
        pytest.skip(missing)
    asked = {"messages": [base64.b64encode(message).decode() for message in messages], "records": dict(records)}
    done = subprocess.run(
        [_PYTHON, "-I", "-c", _PROGRAM],
        input=json.dumps(asked),
        capture_output=True,
        text=True,
        check=True,
        timeout=_SECONDS,
    )
    found: list[list[bool]] = json.loads(done.stdout)
    return found


@cache
def _missing() -> str | None:
    try:
        subprocess.run(
            [_PYTHON, "-I", "-c", "import dkim, nacl.signing"], capture_output=True, check=True, timeout=_SECONDS
        )
    except (OSError, subprocess.CalledProcessError):
        return "dkimpy is not installed: apt-get install python3-dkim python3-nacl"
    return None
