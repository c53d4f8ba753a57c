"""The plainest of configurations, compiled as they are: without pydantic, whose models take longer to make than a call.

`Mesh(services={"orders": {"endpoints": ["10.0.0.1:8080"], "timeout": "2s"}})` has nothing in it that needs more than a
look. What has anything else in it, or anything wrong, is left to `meshlib.config.load`, which knows all fields and says
what is wrong: here nothing is ever refused. For what is taken here the two give equal settings; a test of generated
configurations holds that.
"""

from __future__ import annotations

import re
from typing import Any, Final

from meshlib.balance.endpoint import Endpoint
from meshlib.config.settings import ClusterSettings, LocalSettings, MeshSettings, ServiceSettings, StaticSettings
from meshlib.dataclass import replace
from meshlib.durations import LONGEST_S, SHORTEST_S, parse_duration
from meshlib.policy.settings import CallPolicy
from meshlib.routing.route import Backend, Route

__all__ = ["plain_settings"]

_NAME = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
_ADDRESS = re.compile(r"(?!unix:)([a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?):([1-9][0-9]{0,4})")
_MANY: Final = 100
"""More services, or more endpoints of one, are no longer plain: reading them takes longer than making the models."""


class _NotPlain(Exception):
    """There is something in it that is for the models to judge."""


def plain_settings(data: Any) -> MeshSettings | None:
    """The settings that `data`, a configuration as a map, compiles to; None if it is not plain."""
    try:
        return _settings(data)
    except _NotPlain:
        return None


def _settings(data: Any) -> MeshSettings:
    given = _map(data, ("service", "services"))
    service = given.get("service", "")
    if service != "":
        _matching(_NAME, service)
    written = _map(given.get("services", {}))
    services = {name: _service(name, each) for name, each in written.items()}
    static = {name: _endpoints(each["endpoints"]) for name, each in written.items() if "endpoints" in each}
    sources = (StaticSettings(static), LocalSettings()) if static else (LocalSettings(),)
    return MeshSettings(service, discovery=sources, services=services)


def _service(name: str, written: Any) -> ServiceSettings:
    _matching(_NAME, name)
    given = _map(written, ("endpoints", "timeout", "per_try_timeout", "retry"))
    call = CallPolicy()
    if "timeout" in given:
        call = replace(call, timeout_s=_seconds(given["timeout"]))
    if "per_try_timeout" in given:
        call = replace(call, per_try_timeout_s=_seconds(given["per_try_timeout"], call.timeout_s))
    retry = _map(given.get("retry", {}), ("max_retries",))
    if retry:
        call = replace(call, retry=replace(call.retry, max_retries=_count(retry["max_retries"])))
    return ServiceSettings(name, (Route("default", (Backend(name),), call),), {None: ClusterSettings(name)})


def _endpoints(given: Any) -> tuple[Endpoint, ...]:
    if type(given) not in (list, tuple) or len(given) > _MANY:
        raise _NotPlain
    found = [_matching(_ADDRESS, each).groups() for each in given]
    if len(set(found)) < len(found) or any(int(port) > 65535 for _, port in found):
        raise _NotPlain
    return tuple(Endpoint(host, int(port), metadata={}) for host, port in found)


def _map(given: Any, fields: tuple[str, ...] | None = None) -> dict[str, Any]:
    """`given`, if it is a plain map with no other keys than `fields`."""
    if type(given) is not dict or len(given) > _MANY or (fields is not None and not given.keys() <= set(fields)):
        raise _NotPlain
    return given


def _matching(pattern: re.Pattern[str], given: Any) -> re.Match[str]:
    match = pattern.fullmatch(given) if type(given) is str else None
    if match is None:
        raise _NotPlain
    return match


def _seconds(given: Any, at_most: float | None = None) -> float:
    if type(given) not in (str, int, float):
        raise _NotPlain
    try:
        seconds = parse_duration(given)
    except ValueError:
        raise _NotPlain from None
    if not SHORTEST_S <= seconds <= LONGEST_S or (at_most is not None and seconds > at_most):
        raise _NotPlain
    return seconds


def _count(given: Any) -> int:
    if type(given) is not int or not 0 <= given <= 100:
        raise _NotPlain
    return given
