"""Where endpoints come from, as it is written."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BeforeValidator, Discriminator, Field, Tag

from meshlib.config import shown
from meshlib.config.fields import Flag, Interval, Part, Text, Url
from meshlib.config.settings import ConsulSettings, LocalSettings

__all__ = ["Consul", "Local", "Source"]

_CONSUL = ConsulSettings()
_LOCAL = LocalSettings()


class Consul(Part):
    """A Consul agent as a discovery source.

    Attributes:
        address: its HTTP address.
        token: an ACL token; never shown.
        datacenter: another datacenter to ask for; the agent's own unless given.
        tag: only instances with this tag.
        chain: whether to follow the discovery chain of each service in use: its routes, splits, subsets and failover.
        wait: how long a blocking query may block at the server.
        retry_base, retry_max: the back-off while Consul is unwell.
    """

    address: Url = _CONSUL.address
    token: str | None = Field(default=None, repr=False)
    datacenter: Text | None = None
    tag: Text | None = None
    chain: Flag = False
    wait: Interval = _CONSUL.wait_s
    retry_base: Interval = _CONSUL.retry_base_s
    retry_max: Interval = _CONSUL.retry_max_s


class Local(Part):
    """The embedded registry of one machine as a discovery source.

    Attributes:
        directory: where instances are entered; the user's own unless given.
        poll_interval: how often a watch looks at it.
    """

    directory: Text | None = None
    poll_interval: Interval = _LOCAL.poll_interval_s


def _source(value: Any) -> str | None:
    if isinstance(value, Part):
        return type(value).__name__.lower()
    if isinstance(value, Mapping) and len(value) == 1:
        return str(next(iter(value)))
    return None


def _inside(name: str) -> BeforeValidator:
    return BeforeValidator(
        lambda value: ({} if value[name] is None else value[name]) if isinstance(value, Mapping) else value
    )


Source = Annotated[
    Annotated[Consul, _inside("consul"), shown.Inside("consul"), Tag("consul")]
    | Annotated[Local, _inside("local"), shown.Inside("local"), Tag("local")],
    Discriminator(_source),
]
