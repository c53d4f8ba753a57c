"""Which way a request goes, into the mesh or outside, for adapters of any client library."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from typing import TYPE_CHECKING

from meshlib.adapters.exchange import Exchange
from meshlib.adapters.plane import DEFAULT_PORTS, DataPlane
from meshlib.config.settings import Mode
from meshlib.context import current_scope, too_late
from meshlib.errors import DeadlineExceeded, EgressRefused, MeshError, UnknownService

if TYPE_CHECKING:
    from meshlib.adapters.observe import Shadow

__all__ = ["Ways", "base_of"]

_log = logging.getLogger("meshlib")


_NAME = r"([^\s/?#@:]+)(?::[0-9]+)?"


def base_of(service: str) -> tuple[str, str]:
    """The URL that relative ones of a session's service are joined to, and its host.

    Raises:
        TypeError: if `service` is no text.
        ValueError: if it cannot be a name.
    """
    if not isinstance(service, str):
        raise TypeError(f"the name of a service is expected, such as 'orders', not {service!r}")
    parts = re.fullmatch(_NAME, service)
    if parts is None:
        raise ValueError(f"{service!r} is not the name of a service; a session takes one such as 'orders', or none")
    return f"http://{service}/", parts[1]


class Ways:
    """Tells where the requests of one client go.

    Args:
        plane: the mesh's data plane.
        service: a name that is a service of the mesh whatever its form; None for none.

    Attributes:
        plane: it.
    """

    __slots__ = ("_host", "_service", "plane")

    def __init__(self, plane: DataPlane, service: str | None = None) -> None:
        self.plane = plane
        self._host = None if service is None else service.lower()
        self._service = None if service is None else plane.locate(service, None) or service.lower()

    def service_at(self, host: str, port: int | None, scheme: str) -> str | None:
        """The service that a URL means; None is a host outside the mesh."""
        if self._service is not None and host.lower() == self._host:
            return self._service
        return self.plane.locate(host, port or DEFAULT_PORTS.get(scheme))

    def of(self, host: str, port: int | None, scheme: str) -> tuple[str | None, Mode]:
        """The service that a URL means, and what to do with the request; None is a host outside the mesh.

        Raises:
            EgressRefused: if nothing may go outside.
        """
        plane = self.plane
        service = self.service_at(host, port, scheme)
        if service is not None:
            return service, plane.mode_of(service)
        if plane.mode == "on" and plane.settings.egress == "refuse":
            text = f"{host} is outside the mesh, and the configuration says `egress: refuse`; name it under `services`"
            raise EgressRefused(text)
        return None, plane.mode

    def failed(self, error: MeshError, service: str) -> MeshError | None:
        """What to raise for a failed call; None where the request is to go outside the mesh after all.

        A name that no source knows may be a host outside, unless somebody called it a service.
        """
        if not isinstance(error, UnknownService) or self.is_named(service):
            return error
        if self.plane.settings.egress != "refuse":
            return None
        text = f"no discovery source knows {service}, and the configuration says `egress: refuse`"
        return EgressRefused(text, service=service, record=error.record)

    def is_named(self, service: str) -> bool:
        """Whether somebody called it a service, so that it is none of the hosts outside."""
        return service == self._service or service in self.plane.settings.services

    def left_s(self, host: str) -> float | None:
        """How long a request to a host outside may take, by a deadline that was set or inherited; None for no limit.

        Raises:
            DeadlineExceeded: if it has passed.
        """
        deadline = current_scope().deadline
        if deadline is None or self.plane.mode != "on":
            return None
        left_s = deadline - self.plane.clock.now()
        if left_s <= 0:
            raise DeadlineExceeded(f"{too_late()} before the request to {host} began", limit="deadline")
        return left_s

    @property
    def withheld(self) -> str | None:
        """The header that hosts outside are not to see; None for none."""
        overrides = self.plane.settings.overrides
        return overrides.header if overrides is not None and self.plane.mode == "on" else None

    def shadow(self, service: str, make: Callable[[], Exchange]) -> Shadow | None:
        """What would have been done with a call; None where that cannot be told, which must not disturb the call."""
        from meshlib.adapters.observe import Shadow

        try:
            return Shadow(make())
        except Exception as error:
            _log.warning("a call to %s was not observed: %s", service, error, exc_info=not isinstance(error, MeshError))
            return None
