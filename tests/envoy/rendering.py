"""Native routes as a route configuration of Envoy, for comparisons of the two."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from tests.envoy.harness import TYPES

__all__ = ["BESIDE", "OVER", "bootstrap", "header", "swapped", "virtual_host"]

OVER, BESIDE = "OVERWRITE_IF_EXISTS_OR_ADD", "APPEND_IF_EXISTS_OR_ADD"

_CODES = {
    301: "MOVED_PERMANENTLY",
    302: "FOUND",
    303: "SEE_OTHER",
    307: "TEMPORARY_REDIRECT",
    308: "PERMANENT_REDIRECT",
}
_TEXTS = ("exact", "prefix", "suffix", "contains")
_MILLION = 1_000_000


def header(name: str, value: str, action: str) -> dict[str, Any]:
    """One header to add."""
    return {"header": {"key": name, "value": value}, "append_action": action}


def swapped(pattern: str, substitution: str) -> dict[str, Any]:
    """A substitution by a regular expression."""
    return {"pattern": {"regex": pattern}, "substitution": substitution}


def virtual_host(name: str, domains: Sequence[str], routes: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """A service as a virtual host. Its routes name the services that they go to."""
    return {"name": name, "domains": list(domains), "routes": [made for route in routes for made in _routes(route)]}


def bootstrap(
    virtual_hosts: Sequence[Any], clusters: Mapping[str, int], listeners: Mapping[int, Mapping[str, Any]]
) -> dict[str, Any]:
    """A configuration with all of them behind each listener.

    Args:
        virtual_hosts: of Envoy's form.
        clusters: the port of the only endpoint of each, by name.
        listeners: by port, further fields of Envoy's connection manager.
    """
    return {
        "static_resources": {
            "listeners": [_listener(port, virtual_hosts, more) for port, more in listeners.items()],
            "clusters": [
                {
                    "name": name,
                    "connect_timeout": "5s",
                    "load_assignment": {
                        "cluster_name": name,
                        "endpoints": [{"lb_endpoints": [{"endpoint": {"address": _address(port)}}]}],
                    },
                }
                for name, port in clusters.items()
            ],
        }
    }


def _address(port: int) -> dict[str, Any]:
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}


def _listener(port: int, virtual_hosts: Sequence[Any], more: Mapping[str, Any]) -> dict[str, Any]:
    manager = {
        "@type": f"{TYPES}.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": f"in-{port}",
        "generate_request_id": False,
        "http_filters": [{"name": "router", "typed_config": {"@type": f"{TYPES}.filters.http.router.v3.Router"}}],
        "route_config": {"virtual_hosts": virtual_hosts},
        **more,
    }
    filters = [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]
    return {"name": f"in-{port}", "address": _address(port), "filter_chains": [{"filters": filters}]}


def _routes(route: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for match in route.get("match") or ({},):
        yield {"match": _match(match), **_action(route, match)}


def _match(match: Mapping[str, Any]) -> dict[str, Any]:
    made = _path(match.get("path"))
    headers = [_value(name, given) for name, given in match.get("headers", {}).items()]
    methods = match.get("method", ())
    if isinstance(methods, str):
        headers.append({"name": ":method", "string_match": {"exact": methods}})
    elif methods:
        headers.append({"name": ":method", "string_match": {"safe_regex": {"regex": "|".join(methods)}}})
    if "scheme" in match:
        headers.append({"name": ":scheme", "string_match": {"exact": match["scheme"]}})
    if "authority" in match:
        headers.append(_value(":authority", match["authority"]))
    made["headers"] = headers
    made["query_parameters"] = [_value(name, given) for name, given in match.get("query", {}).items()]
    made["cookies"] = [_value(name, given) for name, given in match.get("cookies", {}).items()]
    if "percent" in match:
        numerator = round(match["percent"] * _MILLION / 100)
        made["runtime_fraction"] = {"default_value": {"numerator": numerator, "denominator": "MILLION"}}
    return made


def _path(path: Mapping[str, Any] | None) -> dict[str, Any]:
    if path is None:
        return {"prefix": "/"}
    made: dict[str, Any]
    if "template" in path:
        template = {"@type": f"{TYPES}.path.match.uri_template.v3.UriTemplateMatchConfig"}
        config = {**template, "path_template": path["template"]}
        return {
            "path_match_policy": {"name": "envoy.path.match.uri_template.uri_template_matcher", "typed_config": config}
        }
    if "regex" in path:
        return {"safe_regex": {"regex": path["regex"]}}
    if "exact" in path:
        made = {"path": path["exact"]}
    elif "prefix" in path:
        made = {"prefix": path["prefix"]}
    else:
        made = {"path_separated_prefix": path["path_prefix"]}
    return made | ({"case_sensitive": False} if path.get("ignore_case") else {})


def _value(name: str, given: Mapping[str, Any]) -> dict[str, Any]:
    made: dict[str, Any] = {"name": name}
    for kind in _TEXTS:
        if kind in given:
            made["string_match"] = {kind: given[kind]}
            if given.get("ignore_case"):
                made["string_match"]["ignore_case"] = True
    if "regex" in given:
        made["string_match"] = {"safe_regex": {"regex": given["regex"]}}
    if "range" in given:
        made["range_match"] = {"start": given["range"][0], "end": given["range"][1]}
    if "present" in given:
        made["present_match"] = given["present"]
    if given.get("invert"):
        made["invert_match"] = True
    if given.get("absent_as_empty"):
        made["treat_missing_header_as_empty"] = True
    return made


def _action(route: Mapping[str, Any], match: Mapping[str, Any]) -> dict[str, Any]:
    edits = route.get("headers", {})
    request, response = dict(edits.get("request", {})), edits.get("response", {})
    own = {**request, "set": {name: value for name, value in request.get("set", {}).items() if name != "host"}}
    made = _edits(own, response)
    if "direct_response" in route:
        reply = route["direct_response"]
        body = {"body": {"inline_string": reply["body"]}} if reply.get("body") else {}
        said = [header(name, value, OVER) for name, value in reply.get("headers", {}).items()]
        made["response_headers_to_add"] = [*said, *made["response_headers_to_add"]]
        return {**made, "direct_response": {"status": reply["status"], **body}}
    if "redirect" in route:
        return {**made, "redirect": _redirect(route["redirect"])}
    action: dict[str, Any] = {"timeout": "15s"}
    host = route.get("rewrite", {}).get("host") or request.get("set", {}).get("host")
    if host is not None:
        action["host_rewrite_literal"] = host
    action |= _rewrite(route.get("rewrite", {}), match)
    backends = route["backends"]
    if len(backends) == 1 and "headers" not in backends[0]:
        return {**made, "route": {**action, "cluster": _cluster(backends[0])}}
    weighted: dict[str, Any] = {"clusters": [_backend(backend) for backend in backends]}
    if "number" in route.get("sticky", {}):
        weighted["header_name"] = route["sticky"]["number"]
    return {**made, "route": {**action, "weighted_clusters": weighted}}


def _cluster(backend: Mapping[str, Any]) -> str:
    name: str = backend["service"]
    return f"{name}/{backend['subset']}" if "subset" in backend else name


def _backend(backend: Mapping[str, Any]) -> dict[str, Any]:
    edits = backend.get("headers", {})
    request = edits.get("request", {})
    values = dict(request.get("set", {}))
    host = values.pop("host", None)
    made = {"name": _cluster(backend), "weight": backend.get("weight", 1)}
    made |= _edits({**request, "set": values}, edits.get("response", {}))
    return made | ({} if host is None else {"host_rewrite_literal": host})


def _edits(request: Mapping[str, Any], response: Mapping[str, Any]) -> dict[str, Any]:
    made: dict[str, Any] = {}
    for what, edits in (("request", request), ("response", response)):
        made[f"{what}_headers_to_remove"] = list(edits.get("remove", ()))
        made[f"{what}_headers_to_add"] = [
            *(header(name, value, OVER) for name, value in edits.get("set", {}).items()),
            *(header(name, value, BESIDE) for name, value in edits.get("add", {}).items()),
        ]
    return made


def _rewrite(rewrite: Mapping[str, Any], match: Mapping[str, Any]) -> dict[str, Any]:
    if "prefix" in rewrite:
        return {"prefix_rewrite": rewrite["prefix"]}
    if "path" in rewrite:
        exact = "exact" in match.get("path", {})
        return {"prefix_rewrite": rewrite["path"]} if exact else {"regex_rewrite": swapped("^.*$", rewrite["path"])}
    return {"regex_rewrite": swapped(**rewrite["regex"])} if "regex" in rewrite else {}


def _redirect(redirect: Mapping[str, Any]) -> dict[str, Any]:
    made: dict[str, Any] = {"response_code": _CODES[redirect.get("status", 301)]}
    names = {"path": "path_redirect", "prefix": "prefix_rewrite", "host": "host_redirect", "port": "port_redirect"}
    names |= {"scheme": "scheme_redirect", "strip_query": "strip_query"}
    made |= {names[field]: value for field, value in redirect.items() if field in names}
    return made | ({"regex_rewrite": swapped(**redirect["regex"])} if "regex" in redirect else {})
