"""A quiet cluster is swept too: the mesh's housekeeping takes ejected endpoints back when nobody calls."""

from __future__ import annotations

import time

from meshlib.adapters.clock import RealClock
from meshlib.mesh import Mesh, MeshParts
from meshlib.telemetry.events import Ejected, Event, Returned


class Shifted(RealClock):
    """The time, and as much more as is said."""

    ahead_s = 0.0

    def now(self) -> float:
        return time.monotonic() + self.ahead_s


def test_the_housekeeping_takes_endpoints_back_and_tells_why() -> None:
    clock = Shifted()
    written = {"endpoints": ["127.0.0.1:1", "127.0.0.1:2"]}
    rules = {"consecutive_5xx": 3, "max_ejection_percent": 50}
    config = {"services": {"orders": {**written, "outlier_detection": rules}}}
    with Mesh(config, parts=MeshParts(clock=clock)) as mesh:
        told: list[Event] = []
        mesh.on_event(told.append)
        wiring = mesh._wiring
        cluster = wiring.snapshots.service("orders").clusters[None]
        outlier, member = cluster.state.outlier, cluster.members[0]
        assert outlier is not None
        for _ in range(3):
            outlier.succeeded(member, clock.now(), 500)
        (why_not, _) = [each.why_not for each in mesh.plan("GET", "http://orders/").candidates]
        assert why_not is not None
        assert why_not.startswith("ejected for another ")
        assert why_not.endswith(" (3 answers of 5xx in a row)")
        out = []
        for clock.ahead_s in (29.0, 41.0):
            wiring._keep_house()
            out.append(member.health.ejected)
        assert out == [True, False]
    ejected, returned = told
    assert isinstance(ejected, Ejected)
    assert ejected.text == "127.0.0.1:1 was ejected for 30 s, 3 answers of 5xx in a row"
    assert isinstance(returned, Returned)
    assert returned.text == "127.0.0.1:1 is back: its time was up"
