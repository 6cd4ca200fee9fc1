"""What tests of the sidecar share."""

import logging
import sys
from collections.abc import Iterator

import pytest
import structlog

from sidecar.logs import LIBRARIES


@pytest.fixture
def logging_put_back() -> Iterator[None]:
    """Put everything back that a test configures about logging in this process."""
    root = logging.getLogger()
    config, level, handlers, hook = structlog.get_config(), root.level, list(root.handlers), sys.excepthook
    levels = {name: logging.getLogger(name).level for name in LIBRARIES}
    yield
    structlog.configure(**config)
    logging.captureWarnings(capture=False)
    root.setLevel(level)
    root.handlers[:] = handlers
    sys.excepthook = hook
    for name, before in levels.items():
        logging.getLogger(name).setLevel(before)
