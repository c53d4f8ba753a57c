"""ServiceProfile: routes by path and method, what to retry of them and for how long, and where a service's calls go.

Source: ``controller/api/destination/profile_translator.go`` of linkerd2; ``service-profiles/src/{http,proto}.rs`` and
``app/outbound/src/http/retry.rs`` of Linkerd's proxy.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from copy import deepcopy
from decimal import Decimal, InvalidOperation
from typing import Any, Final

from meshlib.config.dialects.draft import Draft, ServiceDraft
from meshlib.config.dialects.durations import written
from meshlib.config.dialects.fields import Reader
from meshlib.config.dialects.linkerd.annotations import conditions_of
from meshlib.config.dialects.linkerd.names import backend_of
from meshlib.config.dialects.names import route_name
from meshlib.config.dialects.resources import Place, Resource

__all__ = ["Profile", "read_profile", "write_profile"]

_RETRIES: Final = 100
_MAX_DEPTH: Final = 20
_SUFFIXES: Final = {"m": Decimal("0.001"), "": Decimal(1), "k": Decimal(1000), "M": Decimal(1_000_000)}
_METHODS: Final = ("GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "CONNECT", "HEAD", "TRACE")


class Profile:
    """What a ServiceProfile says.

    Attributes:
        resource: the document.
        host: of the service, in full.
        routes: in order, in the native form, without where to.
        places: of these.
        targets: where all calls go, by weight; empty for the service itself.
        budget: of retries.
    """

    def __init__(self, resource: Resource) -> None:
        self.resource = resource
        self.host = resource.name.lower()
        self.routes: list[dict[str, Any]] = []
        self.places: list[Place] = []
        self.targets: list[tuple[str, float, Place]] = []
        self.budget: tuple[dict[str, Any], Place] | None = None

    @property
    def counts(self) -> bool:
        """Whether it takes the place of routes and annotations: one without routes and targets does not."""
        return bool(self.routes or self.targets)


def read_profile(draft: Draft, resource: Resource) -> Profile:
    """Read one."""
    profile = Profile(resource)
    reader = Reader(draft, resource)
    reader.skip("apiVersion", "kind", "metadata", "status")
    spec = reader.map("spec")
    if spec is None:
        reader.wrong("spec", "is required")
        return profile
    for route in spec.maps("routes"):
        _read_route(draft, route, profile)
    for target in spec.maps("dstOverrides"):
        authority, weight = target.text("authority"), _quantity(target, "weight")
        if authority is None or weight is None:
            target.wrong(None, "has to have an authority and a weight")
        elif weight > 0:
            profile.targets.append((authority, weight, target.place()))
        target.rest()
    budget = spec.map("retryBudget")
    if budget is not None:
        profile.budget = _read_budget(budget), budget.place()
    spec.ignore("opaquePorts", "all calls are HTTP")
    spec.rest()
    reader.rest()
    return profile


def write_profile(draft: Draft, profile: Profile, service: ServiceDraft) -> None:
    """Write it to the service that it is for, instead of what other documents said of its routes."""
    place = profile.resource.place()
    namespace = draft.namespace_of(profile.resource)
    targets = [
        {"service": backend_of(draft, authority, namespace, where), "weight": weight}
        for authority, weight, where in profile.targets
    ]
    routes: list[dict[str, Any]] = []
    taken: set[str] = set()
    for route in profile.routes:
        name = route_name(route.pop("name"), taken)
        routes.append({"name": name, **route, **({"backends": deepcopy(targets)} if targets else {})})
        if "match" not in route:
            break  # what comes after it is never reached
    if targets and all("match" in route for route in routes):
        routes.append({"name": route_name("linkerd-default", taken), "backends": targets})
    service.data.pop("routes", None)
    places = [*profile.places, *(where for _, _, where in profile.targets[:1])]
    service.routes(routes, places[: len(routes)])
    if any(route.get("retry", {}).get("max_retries") for route in routes):
        budget, where = profile.budget or ({"percent": 20, "min_per_second": 10, "ttl": "10s"}, place)
        service.put("retry_budget", {"kind": "rate", **budget, "arithmetic": "tower"}, where)


def _read_route(draft: Draft, reader: Reader, profile: Profile) -> None:
    name, condition = reader.text("name"), reader.map("condition")
    if not name:
        reader.wrong("name", "is required")
    if condition is None:
        reader.wrong("condition", "is required")
        return
    matches = _matches(condition.narrowing())
    route: dict[str, Any] = {"name": name or "route"}
    if matches is not None:
        route["match"] = matches
    timeout = reader.duration("timeout")
    route["timeout"] = written(timeout) if timeout else None
    failing = _failing(reader)
    if reader.flag("isRetryable"):
        # Until the budget is spent: Linkerd counts nothing else, and does not wait.
        retry = {"max_retries": _RETRIES, **conditions_of(failing), "backoff": {"base": 0, "max": 0, "jitter": "none"}}
        if draft.context.settings.retry_unsafe:
            retry["unsafe"] = True
        route["retry"] = retry
        reader.different("isRetryable", f"a call is retried {_RETRIES} times at most, and as the budget allows")
    profile.routes.append(route)
    profile.places.append(reader.place())
    reader.rest()


def _matches(reader: Reader, depth: int = 0) -> list[dict[str, Any]] | None:
    """A condition as native matches, any of which may hold; None if it always holds."""
    if depth > _MAX_DEPTH:
        reader.wrong(None, f"is nested more than {_MAX_DEPTH} levels deep")
        return None
    parts: list[list[dict[str, Any]] | None] = []
    if "all" in reader:
        parts += [_matches(each, depth + 1) for each in reader.maps("all")]
    if "any" in reader:
        parts.append(_any([_matches(each, depth + 1) for each in reader.maps("any")]))
    method = reader.text("method")
    if method:
        if method.upper() not in _METHODS:
            reader.different("method", "is compared with the request's as any other")
        parts.append([{"method": method.upper()}])
    inner = reader.map("not")
    if inner is not None:
        excepted = _matches(inner, depth + 1)
        if excepted is None:
            reader.wrong("not", "is the opposite of a condition that always holds, so that nothing meets it")
        else:
            parts.append([{"unless": excepted}])
    path = reader.text("pathRegex")
    if path:
        pattern = path.strip()
        parts.append([{"path": {"regex": pattern.removeprefix("^").removesuffix("$")}}])
    if not parts and "all" not in reader and "any" not in reader:
        reader.wrong(None, "has to have one of all, any, not, pathRegex and method")
    reader.rest()
    found: list[dict[str, Any]] | None = None
    for part in parts:
        found = part if found is None else found if part is None else [_both(a, b) for a in found for b in part]
    return found


def _any(parts: list[list[dict[str, Any]] | None]) -> list[dict[str, Any]] | None:
    """What meets one of them; one of none is met by nothing, which Linkerd's proxy takes to the letter."""
    if not parts:
        return [{"percent": 0}]
    found: list[dict[str, Any]] = []
    for part in parts:
        if part is None:
            return None
        found += part
    return found


def _both(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """What meets both. Of a condition that both have, the other's becomes an exception to an exception."""
    result = dict(one)
    for name, value in other.items():
        if name == "unless":
            result["unless"] = [*result.get("unless", ()), *value]
        elif name in result and result[name] != value:
            result["unless"] = [*result.get("unless", ()), {"unless": [{name: value}]}]
        else:
            result[name] = value
    return result


def _failing(route: Reader) -> frozenset[int]:
    """The statuses that are failures: as the first class says whose condition they meet; else 500 and above."""
    classes: list[tuple[Callable[[int], bool], bool]] = []
    for reader in route.maps("responseClasses"):
        condition = reader.map("condition")
        is_failure = bool(reader.flag("isFailure"))
        if condition is None:
            reader.wrong("condition", "is required")
        else:
            classes.append((_response(condition.narrowing()), is_failure))
        reader.rest()
    if classes:
        route.different("responseClasses", "say what is retried, but not what counts as a failure for anything else")
    return frozenset(status for status in range(100, 600) if _fails(status, classes))


def _fails(status: int, classes: list[tuple[Callable[[int], bool], bool]]) -> bool:
    return next((is_failure for holds, is_failure in classes if holds(status)), status >= 500)


def _response(reader: Reader, depth: int = 0) -> Callable[[int], bool]:
    if depth > _MAX_DEPTH:
        reader.wrong(None, f"is nested more than {_MAX_DEPTH} levels deep")
        return lambda status: False
    tests = list(_responses(reader, depth))
    if not tests:
        reader.wrong(None, "has to have one of all, any, not and status")
    reader.rest()
    return lambda status: bool(tests) and all(test(status) for test in tests)


def _responses(reader: Reader, depth: int) -> Iterator[Callable[[int], bool]]:
    if "all" in reader:
        every = [_response(each, depth + 1) for each in reader.maps("all")]
        yield lambda status: all(test(status) for test in every)
    if "any" in reader:
        some = [_response(each, depth + 1) for each in reader.maps("any")]
        yield lambda status: any(test(status) for test in some)
    given = reader.map("status")
    if given is not None:
        low, high = given.integer("min"), given.integer("max")
        given.rest()
        # Linkerd's proxy takes no range that lacks one of its ends.
        if low is None or high is None or not 100 <= low <= high <= 599:
            given.wrong(None, "has to have a min and a max, from 100 to 599")
        else:
            yield lambda status: low <= status <= high
    inner = reader.map("not")
    if inner is not None:
        excepted = _response(inner, depth + 1)
        yield lambda status: not excepted(status)


def _read_budget(reader: Reader) -> dict[str, Any]:
    ratio, least, ttl = reader.number("retryRatio"), reader.number("minRetriesPerSecond"), reader.duration("ttl")
    reader.rest()
    if ratio is None or not 0 <= ratio <= 1000:
        reader.wrong("retryRatio", "is required, from 0 to 1000")
        ratio = 0.2
    if ttl is None or not 1 <= ttl <= 60:
        reader.wrong("ttl", "is required, from 1s to 60s")
        ttl = 10.0
    return {"percent": float(f"{ratio * 100:.10g}"), "min_per_second": least or 0, "ttl": written(ttl)}


def _quantity(reader: Reader, name: str) -> float | None:
    """A quantity of Kubernetes': ``500m``, ``1``, ``0.5``."""
    value = reader.raw(name)
    text = str(value) if isinstance(value, int | float | str) and not isinstance(value, bool) else ""
    suffix = text[-1:] if text[-1:] in _SUFFIXES and not text[-1:].isdigit() else ""
    try:
        amount = Decimal(text.removesuffix(suffix) if suffix else text) * _SUFFIXES[suffix]
    except InvalidOperation:
        if value is not None:
            reader.wrong(name, "a quantity such as 500m or 1 is expected")
        return None
    return float(amount) if amount.is_finite() and 0 <= amount < 1_000_000_000 else None
