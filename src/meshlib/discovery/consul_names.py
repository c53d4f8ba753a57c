"""What a service's name asks Consul for: the service itself, or what Consul's own DNS means by it."""

from __future__ import annotations

import re

from meshlib.dataclass import dataclass

__all__ = ["ConsulName"]

_DNS = re.compile(
    r"(?:(?P<tag>[^.]+)\.)?(?P<service>[^.]+)\.service(?:\.(?P<datacenter>[^.]+))?\.consul", re.IGNORECASE
)


@dataclass(frozen=True, slots=True)
class ConsulName:
    """A name, taken apart: ``[tag.]orders.service[.dc2].consul``, or any other as it is.

    Attributes:
        service: as Consul has it.
        datacenter: where it is asked for; empty for that of the settings.
        tag: that its instances have; empty for any.
        is_dns: whether it is in the form of Consul's DNS.
    """

    service: str
    datacenter: str = ""
    tag: str = ""
    is_dns: bool = False

    @classmethod
    def of(cls, name: str) -> ConsulName:
        """Take a name apart."""
        found = _DNS.fullmatch(name)
        if found is None:
            return cls(name)
        return cls(found["service"], found["datacenter"] or "", found["tag"] or "", True)
