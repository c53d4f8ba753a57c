"""What documents of other meshes say, laid beside what a user wrote."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence, Set
from typing import Any, Final

from meshlib.config.dialects.draft import Context, Draft, ServiceDraft
from meshlib.config.dialects.resources import Place, Resource
from meshlib.config.dialects.table import translate
from meshlib.config.problems import Path, Problem, dotted
from meshlib.config.settings import DocumentSettings
from meshlib.durations import parse_duration
from meshlib.policy.settings import CallPolicy

__all__ = ["context_of", "merged", "translated"]

_TIMEOUT_S: Final = CallPolicy().timeout_s


def translated(resources: Sequence[Resource], data: Mapping[str, Any]) -> tuple[Draft, list[Problem]]:
    """What `resources` say, and what is wrong with them.

    Args:
        resources: the documents.
        data: the configuration that the user wrote, not yet checked.
    """
    context = context_of(data)
    draft = translate(resources, context)
    fatal = {"wrong", "ignored"} if context.settings.strict else {"wrong"}
    problems = [_problem(note.place, note.text) for note in draft.notes if note.effect in fatal]
    return draft, problems


def context_of(data: Mapping[str, Any]) -> Context:
    """What a translation may know of a configuration that is not checked yet; what is wrong in it shows later."""
    namespace, labels = data.get("namespace"), data.get("labels")
    documents, defaults, service = data.get("documents"), data.get("defaults"), data.get("service")
    locality = data.get("locality")
    zone = locality.get("zone") if isinstance(locality, Mapping) else getattr(locality, "zone", None)
    return Context(
        namespace if isinstance(namespace, str) and namespace else "default",
        {key: value for key, value in labels.items() if isinstance(value, str)} if isinstance(labels, Mapping) else {},
        _settings(documents),
        frozenset(defaults) if isinstance(defaults, Mapping) else frozenset(getattr(defaults, "model_fields_set", ())),
        service if isinstance(service, str) else "",
        zone if isinstance(zone, str) else "",
        bool(data.get("discovery")),
    )


def _settings(given: Any) -> DocumentSettings:
    from pydantic import ValidationError

    from meshlib.config.lay import lay_over
    from meshlib.config.parts import Documents

    try:
        return lay_over(DocumentSettings(), Documents.model_validate({} if given is None else given))
    except ValidationError:
        return DocumentSettings()


def _problem(place: Place, text: str) -> Problem:
    return Problem(place.file, (), f"{place.what}: {text}", place.line)


def merged(
    draft: Draft, data: Mapping[str, Any], origin_of: Callable[[Path], str]
) -> tuple[dict[str, Any], dict[Path, Place], list[Problem]]:
    """The configuration with what documents say in it.

    Where the user and a document write different things of one field, that is a problem; the user's ``hosts`` and
    ``endpoints`` are joined with theirs, and of what is merely usual in another mesh the user's word holds.

    Returns:
        The configuration, where documents say what of it, and the problems.
    """
    said, origins = draft.data()
    problems: list[Problem] = []
    result = dict(data)
    for key, value in said.items():
        if key == "services":
            continue
        if key in result and result[key] != value:
            text = f"{key} is written in {origin_of((key,))} as well"
            problems.append(_problem(origins[(key,)], text))
        else:
            result[key] = value
    services = result.get("services")
    services = dict(services) if isinstance(services, Mapping) else {}
    said_at: dict[Path, list[Path]] = {}
    for path in origins if services else ():
        said_at.setdefault(path[:3], []).append(path)
    defaults = _fields(result.get("defaults"))
    for name, service in draft.services.items():
        written = services.get(name)
        own = {} if written is None else _fields(written)
        if own is not None:
            both = _service(service, own, origin_of, origins, said_at, problems)
            services[name] = _within_timeout(both, service.data.keys() - own.keys(), defaults or {})
    if services:
        result["services"] = services
    return result, origins, problems


def _fields(given: Any) -> Mapping[str, Any] | None:
    """The fields of a part that a user wrote, as a map or in code; None if it is neither."""
    named = getattr(given, "model_fields_set", None)
    if named is not None:
        return {name: getattr(given, name) for name in named}
    return given if isinstance(given, Mapping) else None


def _within_timeout(service: Mapping[str, Any], said: Set[str], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """The service, with what documents say of connecting and of attempts cut to its timeout, which ends these anyway.

    In the native form a time above the timeout is a slip. Documents did not know the timeout, or do not mind.

    Args:
        service: all of it.
        said: the fields of it that documents write.
        defaults: what the user writes for all services.
    """
    timeout = service.get("timeout", defaults.get("timeout", _TIMEOUT_S))
    times = said & {"connect_timeout", "per_try_timeout"}
    cut = {name: timeout for name in times if _is_above(service[name], timeout)}
    if "routes" in said:
        cut["routes"] = [_route_within(route, timeout) for route in service["routes"]]
    return {**service, **cut}


def _route_within(route: Mapping[str, Any], timeout: Any) -> Mapping[str, Any]:
    timeout = route.get("timeout", timeout)
    return {**route, "per_try_timeout": timeout} if _is_above(route.get("per_try_timeout"), timeout) else route


def _is_above(one: Any, other: Any) -> bool:
    if one is None or other is None:
        return False
    try:
        return parse_duration(one) > parse_duration(other)
    except (ValueError, TypeError, OverflowError):
        return False  # what is wrong with it shows when it is checked


def _service(
    draft: ServiceDraft,
    own: Mapping[str, Any],
    origin_of: Callable[[Path], str],
    origins: dict[Path, Place],
    said_at: Mapping[Path, Sequence[Path]],
    problems: list[Problem],
) -> dict[str, Any]:
    result = dict(own)
    for field, value in draft.data.items():
        path: Path = ("services", draft.name, field)
        if field not in own:
            result[field] = value
            continue
        # What the user wrote of it stands in the user's own place, and errors are to name that.
        place = origins[path]
        for each in said_at.get(path, ()):
            del origins[each]
        if field in draft.usual or own[field] == value:
            continue
        if field in ("hosts", "endpoints") and isinstance(own[field], (list, tuple)):
            known = {repr(each) for each in own[field]}
            result[field] = [*own[field], *(each for each in value if repr(each) not in known)]
        else:
            text = f"says what {dotted(path)} says as well, in {origin_of(path)}; one of them must go"
            problems.append(_problem(place, text))
    return result
