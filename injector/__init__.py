"""Bytes in, bytes out: read a message, plan what is injected, and render it for each recipient."""

from injector.fields import Headers
from injector.headers import HeaderEdits
from injector.message import Mail, parse
from injector.plan import Link, Minter, Options, Plan, Rendered, plan
from injector.skip import Reason

__all__ = [
    "HeaderEdits",
    "Headers",
    "Link",
    "Mail",
    "Minter",
    "Options",
    "Plan",
    "Reason",
    "Rendered",
    "parse",
    "plan",
]
