"""Services of which each host that callers name is one by itself: those whose endpoints are written ``*:443``.

A host ``api.example.com`` that ``*.example.com`` stands for is then a service of this name, with the settings of the
service that has the wildcard, and its endpoint is the host itself at that port. Where all hosts of the service have a
port, so has the name: ``api.example.com:8443``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from meshlib.balance.endpoint import Endpoint
from meshlib.config.settings import ServiceSettings
from meshlib.dataclass import dataclass, field, replace
from meshlib.routing.hosts import HostTable
from meshlib.routing.index import RouteTable

__all__ = ["EACH_HOST", "OwnHosts", "WrittenEndpoints"]

EACH_HOST: Final = "*"
"""The host of an endpoint that stands for each host that callers name."""


@dataclass(frozen=True, slots=True)
class OwnHosts:
    """The services of which each host is one by itself. Two of equal services are equal."""

    services: tuple[ServiceSettings, ...]
    _table: HostTable[ServiceSettings] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        hosts = ((host, service) for service in self.services for host in service.hosts)
        object.__setattr__(self, "_table", HostTable(hosts))

    @classmethod
    def among(cls, services: Iterable[ServiceSettings]) -> OwnHosts | None:
        """Those among the services of a configuration; None if there is none."""
        found = tuple(service for service in services if service.each_host)
        return cls(found) if found else None

    def name_of(self, service: str, host: str, port: int | None) -> str | None:
        """The name of the service that a host is by itself; None if `service` takes all its hosts together."""
        for each in self.services:
            if each.name == service and host != service:
                with_port = port is not None and all(_port_of(pattern) for pattern in each.hosts)
                return f"{host}:{port}" if with_port else host
        return None

    def origin_of(self, name: str) -> ServiceSettings | None:
        """The service from which one of this name has its settings; None if it is not one of these."""
        host, _, port = name.partition(":")
        return self._table.find(host, int(port) if port.isdigit() else None)

    def settings_of(self, name: str) -> ServiceSettings | None:
        """The settings of a service of this name."""
        origin = self.origin_of(name)
        if origin is None:
            return None
        clusters = {subset: replace(cluster, service=name) for subset, cluster in origin.clusters.items()}
        routes = tuple(
            replace(
                route,
                backends=tuple(_renamed(each, origin.name, name) for each in route.backends),
                mirrors=tuple(_renamed(each, origin.name, name) for each in route.mirrors),
            )
            for route in origin.routes
        )
        return replace(origin, name=name, clusters=clusters, routes=RouteTable.of(routes), hosts=(), each_host=())

    def endpoints_of(self, name: str) -> tuple[Endpoint, ...] | None:
        """The endpoints of a service of this name."""
        origin = self.origin_of(name)
        host = name.partition(":")[0]
        return None if origin is None else tuple(replace(each, host=host) for each in origin.each_host)


class WrittenEndpoints(dict[str, tuple[Endpoint, ...]]):
    """Endpoints that the configuration has, by service; `get` and ``in`` know those of `OwnHosts`, too."""

    def __init__(self, services: Mapping[str, tuple[Endpoint, ...]], own: OwnHosts) -> None:
        super().__init__(services)
        self._own = own

    def get(self, name: str, default: Any = None) -> Any:
        """The endpoints of a service; `default` if they are not written."""
        found = super().get(name)
        if found is None:
            found = self._own.endpoints_of(name)
        return default if found is None else found

    def __contains__(self, name: object) -> bool:
        return super().__contains__(name) or (isinstance(name, str) and self._own.origin_of(name) is not None)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, WrittenEndpoints) and self._own == other._own and dict(self) == dict(other)

    def __ne__(self, other: object) -> bool:
        return not self == other

    __hash__ = None


def _port_of(pattern: str) -> str:
    return "" if pattern[:1] == "[" else pattern.partition(":")[2]


def _renamed(target: Any, old: str, new: str) -> Any:
    return replace(target, service=new) if target.service == old else target
