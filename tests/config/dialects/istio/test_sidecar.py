"""What a Sidecar lets in: cases of Istio's sidecar_test.go and virtualservice_test.go."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from meshlib.config.dialects.istio.sidecar import Listener, imports_rule, imports_service
from meshlib.routing.actions import DirectResponse
from tests.config.dialects.istio.support import document, draft_of, http, load, notes, to, virtual_service

CASES = json.loads((Path(__file__).parents[3] / "data" / "istio_sidecar.json").read_text())["cases"]


def sidecar(name: str = "default", namespace: str = "default", **spec: Any) -> str:
    return document("Sidecar", name, spec, namespace=namespace)


def listeners(egress: list[dict[str, Any]]) -> list[Listener]:
    found = []
    for each in egress:
        port = each.get("port") or {}
        number = None if str(port.get("protocol")).upper() == "HTTP_PROXY" else port.get("number")
        pairs = [tuple(host.split("/")) for host in each["hosts"] if host.count("/") == 1]
        found.append(Listener([(place, name) for place, name in pairs], port=number))
    return found


@pytest.mark.parametrize("case", [pytest.param(case, id=case["name"]) for case in CASES])
def test_which_services_are_let_in(case: dict[str, Any]) -> None:
    egress = listeners(case["egress"] or [])
    found = {
        service["host"]
        for service in case["services"]
        if imports_service(egress, case["namespace"], service["host"], service["namespace"], service["ports"])
    }
    assert sorted(found) == case["expected"]


@pytest.mark.parametrize(
    ("hosts", "excluded", "found"),
    [
        (["*/*"], [], {"a", "b", "multi", "wide"}),
        (["*/*"], ["b/*"], {"a", "multi", "wide"}),
        (["*/*"], ["*/a.com"], {"b", "multi", "wide"}),
        (["*/*"], ["*/a.com", "*/c.com"], {"b", "wide"}),
        (["*/*"], ["*/*.com"], set()),
        ([], ["*/a.com"], set()),
        (["./*"], [], {"a", "multi", "wide"}),
        (["b/b.com"], [], {"b"}),
        (["*/x.com"], [], {"wide"}),
    ],
)
def test_which_rules_are_let_in(hosts: list[str], excluded: list[str], found: set[str]) -> None:
    # As TestSelectVirtualServicesExclusion and its wildcards in Istio's virtualservice_test.go.
    def pairs(texts: list[str]) -> list[tuple[str, str]]:
        return [(place, name) for place, name in (text.split("/") for text in texts)]

    rules = {
        "a": ("own", ["a.com"]),
        "b": ("b", ["b.com"]),
        "multi": ("own", ["a.com", "c.com"]),
        "wide": ("own", ["*.com"]),
    }
    egress = [Listener(pairs(hosts), pairs(excluded))]
    assert {name for name, (place, names) in rules.items() if imports_rule(egress, "own", names, place)} == found


ENTRIES = "".join(
    document(
        "ServiceEntry",
        name,
        {"hosts": [name], "ports": [{"number": 80, "name": "http"}], "resolution": "STATIC"},
        namespace=namespace,
    )
    for name, namespace in (("near", "default"), ("far", "other"))
)


def test_what_is_not_let_in_is_called_as_if_it_were_outside() -> None:
    settings = load(ENTRIES + sidecar(egress=[{"hosts": ["./*"]}], outboundTrafficPolicy={"mode": "ALLOW_ANY"}))
    assert settings.egress == "pass"
    assert {name: service.mode for name, service in settings.services.items()} == {"near": None, "far.other": "off"}


def test_or_refused() -> None:
    text = ENTRIES + sidecar(egress=[{"hosts": ["./*"]}], outboundTrafficPolicy={"mode": "REGISTRY_ONLY"})
    settings = load(text)
    assert settings.egress == "refuse"
    assert [route.reply for route in settings.services["far.other"].routes] == [DirectResponse(502), None]
    assert [route.reply for route in settings.services["near"].routes] == [None]


def test_what_a_rule_leads_to_is_let_in_with_it() -> None:
    rule = virtual_service(http(to("far.other.svc.cluster.local")), hosts=["near"])
    settings = load(ENTRIES + rule + sidecar(egress=[{"hosts": ["./*"]}]))
    assert settings.services["far.other"].mode is None


def test_rules_for_hosts_that_are_not_let_in_do_not_hold() -> None:
    rule = virtual_service(http(to("x")), hosts=["far.other.svc.cluster.local"])
    text = ENTRIES + rule + sidecar(egress=[{"hosts": ["./near.default.svc.cluster.local"]}])
    assert [route.name for route in load(text).services["far.other"].routes] == ["default"]


@pytest.mark.parametrize(
    ("sidecars", "chosen"),
    [
        (("root", "wide", "own"), "own"),
        (("root", "wide"), "wide"),
        (("root",), "root"),
        (("root", "other"), "root"),
        (("elsewhere",), ""),
    ],
)
def test_which_of_several_holds(sidecars: tuple[str, ...], chosen: str) -> None:
    texts = {
        "root": sidecar("root", "istio-system", egress=[{"hosts": ["root/*"]}]),
        "wide": sidecar("wide", egress=[{"hosts": ["wide/*"]}]),
        "own": sidecar("own", egress=[{"hosts": ["own/*"]}], workloadSelector={"labels": {"app": "me"}}),
        "other": sidecar("other", egress=[{"hosts": ["other/*"]}], workloadSelector={"labels": {"app": "you"}}),
        "elsewhere": sidecar("elsewhere", "elsewhere", egress=[{"hosts": ["x/*"]}]),
    }
    entries = "".join(
        document(
            "ServiceEntry",
            f"in-{name}",
            {"hosts": [f"in-{name}"], "ports": [{"number": 80, "name": "http"}], "resolution": "STATIC"},
            namespace=name,
        )
        for name in ("root", "wide", "own")
    )
    settings = load(entries + "".join(texts[name] for name in sidecars), labels={"app": "me"})
    let_in = {name for name, service in settings.services.items() if service.mode is None}
    assert let_in == ({f"in-{chosen}.{chosen}"} if chosen else set(settings.services))


def test_a_host_that_is_not_of_the_form_is_an_error() -> None:
    assert "namespace/name" in notes(draft_of(sidecar(egress=[{"hosts": ["foo"]}])), "wrong")[0]
