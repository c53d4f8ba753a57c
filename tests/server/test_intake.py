"""Who is believed, in each mode, and what is counted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from opentelemetry import baggage as otel_baggage

from meshlib import Mesh
from meshlib.config.settings import ServerSettings
from meshlib.context import Criticality
from meshlib.errors import ConfigError
from meshlib.propagation import BAGGAGE, CRITICALITY, DEADLINE_MS, INCOMING, Headers
from meshlib.server.intake import UNIX, Intake, TrustedPeers
from tests.server.standin import StandInMesh


@dataclass
class HeadersOf:
    given: dict[str, list[str]] = field(default_factory=dict)

    def known(self) -> Headers:
        return {name: values for name, values in self.given.items() if name in INCOMING}

    def values(self, name: str) -> Sequence[str]:
        return self.given.get(name, [])

    def names(self) -> Sequence[str]:
        return list(self.given)


ALL = HeadersOf({DEADLINE_MS: ["500"], CRITICALITY: ["critical_plus"], BAGGAGE: ["tenant=t1"]})


@pytest.mark.parametrize(
    "peer",
    [
        "127.0.0.1",
        "127.8.8.8",
        "::1",
        "10.1.2.3",
        "172.31.255.255",
        "192.168.0.1",
        "100.64.0.9",
        "fd00::1",
        "fe80::1%eth0",
        "::ffff:10.0.0.1",
        UNIX,
    ],
)
def test_this_machine_and_private_networks_are_trusted_by_default(peer: str) -> None:
    assert peer in TrustedPeers(ServerSettings().trusted_peers)


@pytest.mark.parametrize(
    "peer",
    ["8.8.8.8", "172.32.0.1", "2001:db8::1", "::ffff:8.8.8.8", "testclient", "", "unix:", "10.0.0", "10.0.0.1:80"],
)
def test_everybody_else_is_not(peer: str) -> None:
    assert peer not in TrustedPeers(ServerSettings().trusted_peers)


def test_a_unix_socket_is_trusted_where_loopback_is() -> None:
    assert UNIX not in TrustedPeers(["10.0.0.0/8"])
    assert UNIX in TrustedPeers(["127.0.0.1"])
    assert UNIX not in TrustedPeers([])


def test_a_network_that_is_none_is_a_configuration_error() -> None:
    with pytest.raises(ConfigError, match=r"trusted_peers: 'intranet' .* like '10\.0\.0\.0/8'"):
        TrustedPeers(["10.0.0.0/8", "intranet"])


def test_the_memory_for_peers_is_bounded() -> None:
    trusted = TrustedPeers(["10.0.0.0/8"])
    for number in range(10_000):
        assert f"10.0.{number >> 8}.{number & 255}" in trusted
        assert f"10.0.0.1{'.' * 60}{number}" not in trusted
    assert max(map(len, trusted._known)) < 16
    assert len(trusted._known) <= 4096


def test_a_trusted_peer_is_believed() -> None:
    intake = Intake(None)
    arrival = intake.take("10.0.0.1", ALL)
    assert arrival is not None
    assert arrival.trusted
    assert arrival.request.deadline is not None
    assert arrival.criticality is Criticality.CRITICAL_PLUS
    assert arrival.baggage == {"tenant": "t1"}
    assert not arrival.expired


@pytest.mark.parametrize("peer", ["8.8.8.8", None])
def test_an_untrusted_or_unknown_peer_is_not_believed_and_is_counted(peer: str | None) -> None:
    intake = Intake(None)
    arrival = intake.take(peer, ALL)
    assert arrival is not None
    assert not arrival.trusted
    assert arrival.request.deadline is None
    assert arrival.criticality is None
    assert not arrival.baggage
    assert arrival.trace is None
    assert intake.counts.untrusted == 1
    intake.take(peer, HeadersOf({"accept": ["*/*"]}))
    assert intake.counts.untrusted == 1


@pytest.mark.parametrize(
    ("left_ms", "expired"), [("0", True), ("1", True), ("200", True), ("201", False), ("2", False)]
)
def test_a_request_with_too_little_left_has_expired(
    left_ms: str, expired: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("meshlib.context.monotonic", lambda: 1234567.8)
    intake = Intake(StandInMesh(min_remaining_s=0.2 if left_ms in ("200", "201") else 0.001))
    arrival = intake.take("127.0.0.1", HeadersOf({DEADLINE_MS: [left_ms]}))
    assert arrival is not None
    assert arrival.expired is expired
    assert intake.counts.expired == int(expired)


@pytest.mark.parametrize("peer", ["127.0.0.1", "8.8.8.8"])
def test_mode_off_looks_at_nothing_and_observe_only_counts(peer: str) -> None:
    expired = HeadersOf({DEADLINE_MS: ["0"]})
    mesh = StandInMesh(mode="off")
    intake = Intake(mesh)
    assert intake.take(peer, expired) is None
    assert (intake.counts.expired, intake.counts.untrusted) == (0, 0)
    mesh.settings = replace(mesh.settings, mode="observe")
    assert intake.take(peer, expired) is None
    assert intake.counts.expired + intake.counts.untrusted == 1
    mesh.settings = replace(mesh.settings, mode="on")
    assert intake.take(peer, expired) is not None


def test_trusted_peers_are_those_of_now() -> None:
    mesh = StandInMesh()
    intake = Intake(mesh)
    before: Any = intake.take("8.8.8.8", ALL)
    mesh.settings = replace(mesh.settings, server=ServerSettings(trusted_peers=("8.0.0.0/8",)))
    after: Any = intake.take("8.8.8.8", ALL)
    assert (before.trusted, after.trusted) == (False, True)


def test_what_all_middleware_of_a_mesh_leaves_out_is_told_to_telemetry() -> None:
    with Mesh({"discovery": []}) as mesh:
        assert mesh._wiring.view.ignored() is None
        for intake in (Intake(mesh), Intake(mesh)):
            intake.take("127.0.0.1", HeadersOf({DEADLINE_MS: ["soon"]}))
        told = mesh._wiring.view.ignored()
        assert told is not None
        assert (told.deadline, told.criticality) == (2, 0)


@pytest.mark.parametrize(
    ("peer", "known"), [("10.0.0.7", "10.0.0.7"), ("203.0.113.9", "203.0.113.9"), (UNIX, ""), (None, "")]
)
def test_a_request_knows_its_peer_where_that_has_an_address(peer: str | None, known: str) -> None:
    arrival = Intake(None).take(peer, HeadersOf())
    assert arrival is not None
    assert arrival.request.peer == known


@pytest.mark.parametrize("accepted", ["deadline", "criticality", "baggage", "trace"])
def test_only_what_is_accepted_is_taken_in(accepted: Any) -> None:
    parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    headers = HeadersOf({**ALL.given, "traceparent": [parent]})
    mesh = StandInMesh(accept=(accepted,))
    arrival = Intake(mesh).take("10.0.0.1", headers)
    assert arrival is not None
    taken = {
        "deadline": arrival.request.deadline,
        "criticality": arrival.criticality,
        "baggage": arrival.baggage,
        "trace": arrival.trace,
    }
    assert [name for name, value in taken.items() if value] == [accepted]
    assert not otel_baggage.get_all(arrival.trace)
    mesh.settings = replace(mesh.settings, server=ServerSettings(accept=()))
    nothing = Intake(mesh).take("10.0.0.1", HeadersOf({**headers.given, DEADLINE_MS: ["0"]}))
    assert nothing is not None
    assert not nothing.expired


@pytest.mark.parametrize(
    ("given", "kind"),
    [("mesh.yaml", "str"), (Mesh, "the class Mesh"), (lambda: None, "function"), ({"token": 1}, "dict")],
)
def test_what_is_no_mesh_is_refused_at_once_by_its_kind(given: Any, kind: str) -> None:
    with pytest.raises(TypeError, match=f"a Mesh is expected, not {kind}$"):
        Intake(given)
