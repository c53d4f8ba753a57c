"""What every test may use."""

from __future__ import annotations

import logging

import pytest

pytest_plugins = ["tests.peers.fixtures"]


@pytest.fixture(autouse=True)
def the_log_is_on() -> None:
    """Servers that configure logging, as tests start some in this process, switch off the loggers they do not know."""
    for name in ("meshlib", "meshlib.server"):
        logging.getLogger(name).disabled = False
