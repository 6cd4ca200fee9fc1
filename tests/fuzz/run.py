"""Fuzz one target with atheris: `python tests/fuzz/run.py TARGET [FOLDER …] [-libFuzzer=option …]`.

Atheris takes over the process that it runs in, so each target has one of its own. It ends with 0 when the time is over,
and with another status after a find, whose octets it writes to `-artifact_prefix`.
"""

import importlib
import sys


def main(arguments: list[str]) -> None:
    """Fuzz as the command line says; does not return."""
    name, *others = arguments
    atheris = importlib.import_module("atheris")  # by name, for it is not there on every Python
    with atheris.instrument_imports(include=["injector", "relay"]):
        from tests.fuzz.targets import TARGETS
    from tests.fuzz.grammar import mutator

    target = TARGETS[name]
    atheris.Setup(
        [sys.argv[0], *others],
        target.run,
        # Looked up at each call: atheris puts the real one there only when it begins.
        custom_mutator=mutator(target.fragments, lambda octets, size: bytes(atheris.Mutate(octets, size))),
    )
    atheris.Fuzz()


if __name__ == "__main__":
    main(sys.argv[1:])
