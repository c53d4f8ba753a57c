"""Probes of load among very many endpoints: as many as configured, whether they are answered or not."""

from __future__ import annotations

import pytest

from meshlib.sim.fleet import Fleet
from meshlib.sim.network import constant
from meshlib.sim.server import Server


@pytest.mark.parametrize("reports", [True, False], ids=["all tell", "none tells"])
def test_among_ten_thousand_endpoints_no_more_are_probed_than_may_be(reports: bool) -> None:
    fleet = Fleet([Server(constant(0.005), reports=reports) for _ in range(10_000)])
    client = fleet.plain_client(load_balancing={"policy": "prequal", "prequal": {"max_probes_per_s": 200}})

    fleet.load(500, 4.0)
    fleet.run()

    assert client._probes is not None
    assert 400 < client._probes.sent <= 200 * 4 + 16  # and what the pool holds, at once
    assert fleet.in_flight == 0
    assert sum(fleet.tally.good.values()) == len(fleet.tally.durations) > 1500
