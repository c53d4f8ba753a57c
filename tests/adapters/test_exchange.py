"""Where attempts go, and what they say they want there."""

from __future__ import annotations

from meshlib.adapters.exchange import make_destination
from meshlib.balance.endpoint import Endpoint
from meshlib.config.compile import compile_config
from meshlib.config.load import load_mapping


def test_a_host_header_may_have_all_that_the_configuration_allows() -> None:
    settings = compile_config(load_mapping({"services": {"orders": {"host_header": "caf\u00e9.example"}}}))
    cluster = settings.services["orders"].clusters[None]
    assert make_destination(cluster, Endpoint("10.0.0.1", 80)).host == b"caf\xe9.example"
