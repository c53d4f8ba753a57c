"""``Sidecar``: which services a workload sees, and what becomes of calls to others.

Of the Sidecars those of this namespace count, those whose selector fits this workload first; else the one of the root
namespace. Hosts are ``namespace/name``: ``.`` is the own namespace, ``*`` any, and ``~ns/name`` takes out again what
others let in, so that ``~/*`` lets in nothing. Rules for hosts that are let in let in what they lead to.

Source: Istio's ``pilot/pkg/model/sidecar.go``.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

from meshlib.config.dialects.draft import Draft
from meshlib.config.dialects.fields import Reader
from meshlib.config.dialects.istio.hosts import ROOT_NAMESPACE
from meshlib.config.dialects.resources import Place, Resource
from meshlib.dataclass import dataclass
from meshlib.routing.hosts import hosts_meet, is_part_of

__all__ = ["Listener", "Sidecar", "imports_rule", "imports_service", "read_sidecar", "sidecar_for"]

_MODES = ("REGISTRY_ONLY", "ALLOW_ANY")


@dataclass(frozen=True, slots=True)
class Listener:
    """One entry of `egress`.

    Attributes:
        hosts: pairs of a namespace and a name.
        excluded: the same, taken out.
        port: only services with this port; None for all.
    """

    hosts: Sequence[tuple[str, str]]
    excluded: Sequence[tuple[str, str]] = ()
    port: int | None = None


@dataclass(frozen=True, slots=True)
class Sidecar:
    """One document.

    Attributes:
        namespace: that it is in.
        selector: labels of the workloads that it is for; None for all.
        egress: what is let in; everything if it is empty.
        refuses: whether calls to other hosts are refused; None if it does not say.
        created: when.
        place: of the document.
        policy: of `refuses`.
    """

    namespace: str
    selector: Mapping[str, str] | None
    egress: Sequence[Listener]
    refuses: bool | None
    created: str
    place: Place
    policy: Place


def read_sidecar(draft: Draft, resource: Resource) -> Sidecar:
    """Read one."""
    reader = Reader(draft, resource, resource.data.get("spec"), ("spec",))
    selector = reader.map("workloadSelector")
    labels = None
    if selector is not None:
        labels = selector.entries("labels")
        selector.narrowing().rest()
    egress = [_listener(each) for each in reader.maps("egress")]
    outbound = reader.map("outboundTrafficPolicy")
    refuses = None
    if outbound is not None:
        # Without a mode it is the first of the enumeration.
        mode = outbound.text("mode") or _MODES[0]
        if mode not in _MODES:
            outbound.wrong("mode", f"is none of {', '.join(_MODES)}")
        refuses = mode == _MODES[0]
        outbound.ignore("egressProxy", "calls to other hosts go straight to them, or are refused")
        outbound.rest()
    reader.ignore("ingress", "what comes in is for the middleware of the server; no proxy listens")
    reader.ignore("inboundConnectionPool", "what comes in is for the middleware of the server")
    reader.rest()
    return Sidecar(
        draft.namespace_of(resource),
        labels,
        egress,
        refuses,
        resource.created,
        resource.place(),
        reader.place("outboundTrafficPolicy"),
    )


def _listener(reader: Reader) -> Listener:
    port, number = reader.map("port"), None
    if port is not None:
        number, protocol = port.integer("number"), port.text("protocol") or ""
        port.skip("name", "targetPort")
        port.rest()
        # A port of an HTTP proxy is for services at any port.
        number = None if protocol.upper() == "HTTP_PROXY" else number or None
    reader.skip("bind", "captureMode")
    hosts, excluded = [], []
    for text in reader.texts("hosts"):
        namespace, slash, name = text.partition("/")
        if not slash or "/" in name or not name:
            reader.wrong("hosts", f"{text!r} is not of the form namespace/name")
        elif namespace.startswith("~"):
            excluded.append((namespace[1:] or "*", name))
        else:
            hosts.append((namespace, name))
    reader.rest()
    return Listener(hosts, excluded, number)


def sidecar_for(sidecars: Iterable[Sidecar], namespace: str, labels: Mapping[str, str]) -> Sidecar | None:
    """The one that holds for a workload; None for none."""
    found = list(sidecars)
    own = [each for each in found if each.namespace == namespace]
    root = [each for each in found if each.namespace == ROOT_NAMESPACE and each.selector is None]
    chosen = [each for each in own if each.selector is not None and each.selector.items() <= labels.items()]
    return next(iter([*chosen, *(each for each in own if each.selector is None), *root]), None)


def imports_service(
    egress: Sequence[Listener], client: str, host: str, namespace: str | None, ports: Collection[int] | None
) -> bool:
    """Whether a service is let in.

    Args:
        egress: what lets in; everything if it is empty.
        client: the namespace of the workload.
        host, namespace: of the service; None where the namespace is not known.
        ports: of the service; None where they are not known.
    """
    if not egress:
        return True
    for listener in egress:
        if listener.port is not None and ports is not None and listener.port not in ports:
            continue
        if any(_in(place, client, namespace) and is_part_of(host, name) for place, name in listener.excluded):
            continue
        if any(_in(place, client, namespace) and is_part_of(host, name) for place, name in listener.hosts):
            return True
    return False


def imports_rule(egress: Sequence[Listener], client: str, hosts: Iterable[str], namespace: str) -> bool:
    """Whether a VirtualService for `hosts` is let in. A wildcard that meets a host that is let in suffices."""
    if not egress:
        return True
    for listener in egress:
        for host in hosts:
            if any(_in(place, client, namespace) and is_part_of(host, name) for place, name in listener.excluded):
                continue
            for place, name in listener.hosts:
                if _in(place, client, namespace) and hosts_meet(name, host):
                    return True
    return False


def _in(place: str, client: str, namespace: str | None) -> bool:
    if place == "*" or namespace is None:
        return True
    return (client if place == "." else place) == namespace
