"""Random tables of routes in the native form, and requests that meet them, or nearly do."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from random import Random
from typing import Any
from urllib.parse import quote

from tests.envoy.telling import Asked

__all__ = ["BACKENDS", "CLUSTERS", "Table", "domains"]

BACKENDS = tuple({"service": f"b{at}"} for at in range(6)) + tuple(
    {"service": "split", "subset": f"v{at}"} for at in range(4)
)
CLUSTERS = tuple("/".join(backend.values()) for backend in BACKENDS)

METHODS = ("GET", "POST", "PUT", "HEAD", "DELETE", "OPTIONS", "PURGE")
NAMES = ("x-a", "x-b", "x-tenant", "end-user", "accept", "X-Num", "cache-control", "if-match")
VALUES = (
    "",
    "a",
    "A",
    "ab",
    "abc",
    "b",
    "jason",
    "Jason",
    "a,b",
    "0",
    "7",
    "10",
    "-3",
    "+5",
    "007",
    "1e3",
    "10 ",
    "\u00fc",
)
LARGE = ("9223372036854775807", "9223372036854775808", "-9223372036854775808", "99999999999999999999999")
AUTHORITIES: tuple[dict[str, Any], ...] = (
    {"suffix": ":81"},
    {"suffix": "example", "invert": True},
    {"suffix": "1", "absent_as_empty": True},
    {"prefix": "H", "ignore_case": True},
    {"contains": "inter"},
    {"regex": "[^:]*(:8[01])?"},
    {"exact": "one.w0.example:81"},
    {"present": True},
)
PARAMETERS = ("x", "y", "X", "a%20b")
COOKIES = ("user", "beta", "User")
TEXT_REGEXES = {
    "[a-c]+": ("a", "abc"),
    "(?i)jason": ("JASON", "jason"),
    "^.*b$": ("ab", "b"),
    "|a": ("", "a"),
    "[0-9]{1,3}": ("007",),
}
PATH_REGEXES = {
    "/v[0-9]+/%s/.*": ("/v1/%s/a", "/v20/%s/", "/v3/%s//b"),
    "(?i)/%s/[a-c]*": ("/%s/A", "/%s/", "/%s/abc"),
    "^/[^/]+/%s$": ("/a/%s", "/x%%20y/%s"),
    "/%s(/a|/b)?": ("/%s", "/%s/a", "/%s/b"),
}
JUNK = ("&", "&=a", "&x&y", "&x=&x=a", "?", "&a=%3D&x=%61", "&&x=a&", "&x==a")
EDITED = ("x-one", "x-two", "x-three", "x-server", "x-a", "via")
PORTS = ("", ":80", ":81", ":8080")


def domains(hosts: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
    """The domains in Envoy of services with such `hosts`: what has no port is meant with each that requests have."""
    written = {host for each in hosts.values() for host in each}
    made: dict[str, list[str]] = {}
    for service, each in hosts.items():
        listed: list[str] = []
        for host in each:
            if host == "*":
                listed.append(host)
            elif ":" in host:
                listed.append(host)
                listed += [host.removesuffix(":80")] if host.endswith(":80") else []
            else:
                taken = {"", ":80"} if f"{host}:80" in written else set()
                listed += [
                    f"{host}{port}"
                    for port in PORTS
                    if port not in taken and (not port or f"{host}{port}" not in written)
                ]
        made[service] = listed
    return made


class Table:
    """Services with routes.

    Attributes:
        hosts: of each service, besides its name.
        routes: of each service.
    """

    def __init__(self, seed: int, size: int, services: int = 24) -> None:
        self._rng = rng = Random(seed)
        names = [f"s{at}" for at in range(services)]
        self.hosts = {name: [name, *self._hosts(at)] for at, name in enumerate(names)}
        self.hosts["rest"] = ["rest", "*"]
        self._ported = {host for hosts in self.hosts.values() for host in hosts if ":" in host}
        # One service has a quarter of all, and the others share the rest.
        sizes = [size // 4] + [size * 3 // 4 // services] * services
        self.routes = {}
        for name, many in zip(self.hosts, sizes, strict=True):
            words = [f"{rng.choice('abov')}{at}" for at in range(max(4, many // 8))] + [
                "a",
                "ab",
                "A",
                "x%20y",
                "%41",
                "a.b",
                "a;b",
            ]
            self.routes[name] = [self._route(f"{name}-{at}", words) for at in range(many)] + [self._last(name)]
        self._flat = [(service, route) for service, routes in self.routes.items() for route in routes]

    def _hosts(self, at: int) -> list[str]:
        kinds = (
            [f"h{at}.internal"],
            [f"*.w{at // 6}.example"],
            [f"*.deep.w{at // 6}.example", f"one.w{at // 6}.example"],
            [f"h{at}.internal:8080", f"h{at - 3}.internal:81"],
            [f"h{at}.internal:80", f"*.w{at // 6}.example:8080"],
            [f"one.two.w{at // 6}.example", f"H{at}.Mixed"],
        )
        return kinds[at % len(kinds)]

    def _last(self, name: str) -> dict[str, Any]:
        """The route for what no other takes: with us to the service itself, in Envoy none."""
        rng = self._rng
        took = {"headers": {"response": {"set": {"x-route": f"{name}-rest"}}}}
        return {
            "name": f"{name}-rest",
            **took,
            **rng.choice(({"direct_response": {"status": 404}}, {"backends": [BACKENDS[0]]})),
        }

    def _route(self, name: str, words: Sequence[str]) -> dict[str, Any]:
        rng = self._rng
        matches = [self._match(words) for _ in range(rng.choice((1, 1, 1, 2, 3)))]
        route: dict[str, Any] = {"name": name, "match": matches}
        paths = [match.get("path", {}) for match in matches]
        prefixed = all("prefix" in path or "path_prefix" in path for path in paths)
        raw = all("prefix" in path for path in paths)
        kind = rng.random()
        if kind < 0.15:
            route["redirect"] = self._redirect(prefixed, raw)
        elif kind < 0.3:
            route["direct_response"] = self._reply()
        else:
            if rng.random() < 0.4:
                route["rewrite"] = self._rewrite(prefixed, raw)
            backends: list[dict[str, Any]] = [dict(rng.choice(BACKENDS)) for _ in range(rng.choice((1, 1, 2, 3, 5)))]
            for backend in backends:
                if rng.random() < 0.3:
                    backend["headers"] = {"request": self._edits(True), "response": self._edits()}
            if len(backends) > 1:
                for backend in backends:
                    backend["weight"] = rng.choice((0, 1, 3, 10, 29, 100, 4999))
                backends[-1]["weight"] = backends[-1]["weight"] or 1
                route["sticky"] = {"number": "x-draw"}
            route["backends"] = backends
        edits = rng.random() < 0.4
        back = self._edits() if edits else {}
        back["set"] = {**back.get("set", {}), "x-route": name}
        asks = self._edits("rewrite" not in route) if edits and "backends" in route else {}
        return {**route, "headers": {"request": asks, "response": back}}

    def _edits(self, hosts: bool = False) -> dict[str, Any]:
        rng = self._rng
        names = rng.sample(EDITED, rng.randrange(4))
        made: dict[str, Any] = {"set": {}, "add": {}, "remove": []}
        for name in names:
            kind = rng.choice(("set", "add", "both", "remove"))
            if kind == "remove":
                made["remove"].append(name)
            if kind in ("set", "both"):
                made["set"][name] = rng.choice(("one", "a,b", "\u00e9"))
            if kind in ("add", "both"):
                made["add"][name] = rng.choice(("two", "a"))
        if hosts and rng.random() < 0.3:
            made["set"]["host"] = rng.choice(("edited", "edited:81"))
        return {kind: edits for kind, edits in made.items() if edits}

    def _redirect(self, prefixed: bool, raw: bool) -> dict[str, Any]:
        rng = self._rng
        made: dict[str, Any] = self._new_path(prefixed, raw, query=True) if rng.random() < 0.7 else {}
        if rng.random() < 0.5:
            made["host"] = rng.choice(("moved", "moved:81"))
        if rng.random() < 0.3 and ":" not in made.get("host", ""):
            made["port"] = rng.choice((81, 8443))
        if rng.random() < 0.4:
            made["scheme"] = rng.choice(("http", "https"))
        return made | {"status": rng.choice((301, 302, 303, 307, 308)), "strip_query": rng.random() < 0.3}

    def _rewrite(self, prefixed: bool, raw: bool) -> dict[str, Any]:
        rng = self._rng
        host = {"host": rng.choice(("moved", "moved:81"))}
        kind = rng.random()
        if kind < 0.2:
            return host
        return self._new_path(prefixed, raw) | (host if kind < 0.5 else {})

    def _new_path(self, prefixed: bool, raw: bool, query: bool = False) -> dict[str, Any]:
        rng = self._rng
        kind = rng.choice(("prefix", "regex", "path") if prefixed else ("regex", "path"))
        if kind == "regex":
            pattern, substitution = rng.choice(
                (("^/([^/]*)/(.*)$", r"/\2/\1"), ("[0-9]+", "n"), ("^/", "/n/"), ("/+$", "/end"), ("(a)|b", r"\0\1"))
            )
            return {"regex": {"pattern": pattern, "substitution": substitution}}
        new = rng.choice(("/n", "/n/m", "/N/%20"))
        # Instead of whole segments Envoy puts what ends with a slash as it is, and the mesh as the Gateway API has it.
        if (kind == "path" or raw) and rng.random() < 0.4:
            new = rng.choice(("/", "/n/", "/n//", "/n?z=1" if query and kind == "path" else "//"))
        return {kind: new}

    def _reply(self) -> dict[str, Any]:
        rng = self._rng
        status = rng.choice((200, 201, 204, 302, 304, 404, 418, 503))
        made: dict[str, Any] = {"status": status}
        if status not in (204, 304) and rng.random() < 0.6:
            made["body"] = rng.choice(("text", "{}", "\u00fc"))
        if rng.random() < 0.3:
            made["headers"] = rng.choice(({"content-type": "text/html"}, {"x-reply": "1"}, {"location": "/there"}))
        return made

    def _match(self, words: Sequence[str]) -> dict[str, Any]:
        rng = self._rng
        made: dict[str, Any] = {"path": self._path(words)} if rng.random() < 0.93 else {}
        if rng.random() < 0.2:
            made["method"] = rng.choice((rng.choice(METHODS), rng.sample(METHODS, 3)))
        if rng.random() < 0.06:
            made["scheme"] = rng.choice(("http", "https"))
        if rng.random() < 0.06:
            made["authority"] = rng.choice(AUTHORITIES)
        for field, names in (("headers", NAMES), ("query", PARAMETERS), ("cookies", COOKIES)):
            if rng.random() < (0.3 if "path" in made else 0.6):
                made[field] = {name: self._value(field) for name in rng.sample(names, rng.choice((1, 1, 2)))}
        if rng.random() < 0.03 or not made.keys() - {"method", "scheme", "authority"}:
            made["percent"] = rng.choice((0, 100) if "path" in made else (0, 0, 0, 0, 100))
        return made

    def _path(self, words: Sequence[str]) -> dict[str, Any]:
        rng = self._rng
        kind = rng.choice(("exact", "prefix", "path_prefix", "regex", "template"))
        own = rng.choice(words)
        if kind == "regex":
            # A word is text in a pattern: what has a meaning there is left out.
            return {"regex": rng.choice(tuple(PATH_REGEXES)) % (own if own.isalnum() else "w")}
        path = "/" + "/".join([own, *rng.choices(words, k=rng.choice((0, 0, 1, 2)))])
        if kind == "template":
            return {
                "template": rng.choice(
                    (f"{path}/{{id}}", f"/{{id}}{path}", f"{path}/{{id}}/{rng.choice(words)}/{{of}}")
                )
            }
        if kind != "path_prefix":
            path += rng.choice(("", "", "", "/", "//a"))
        return {kind: path} | ({"ignore_case": True} if rng.random() < 0.2 else {})

    def _value(self, field: str) -> dict[str, Any]:
        rng = self._rng
        kind = rng.choice(("exact", "exact", "prefix", "suffix", "contains", "regex", "present", "range"))
        if field != "headers" and kind == "range":
            kind = "exact"
        if field == "cookies" and kind == "present":
            kind = "prefix"
        made: dict[str, Any]
        if kind == "present":
            made = {"present": rng.random() < 0.5}
        elif kind == "range":
            low = rng.choice((-5, 0, 5, 2**63 - 1, -(2**63)))
            made = (
                {"range": [low, min(low + rng.choice((1, 5, 100)), 2**63 - 1)]}
                if low < 2**63 - 1
                else {"range": [0, low]}
            )
        elif kind == "regex":
            made = {"regex": rng.choice(tuple(TEXT_REGEXES))}
        else:
            made = {
                kind: rng.choice([value for value in VALUES if value.strip() == value and (value or kind == "exact")])
            }
            if rng.random() < 0.3:
                made["ignore_case"] = True
        if field != "query" and rng.random() < 0.2:
            made["invert"] = True
        if field == "headers" and rng.random() < 0.15:
            made["absent_as_empty"] = True
        return made

    def requests(self, count: int) -> Iterator[Asked]:
        """Requests made to meet one route each, half of which are then changed in something."""
        for _ in range(count):
            yield self._request(*self._rng.choice(self._flat))

    def _request(self, service: str, route: Mapping[str, Any]) -> Asked:
        rng = self._rng
        match = rng.choice(route.get("match") or ({},))
        path = self._met(match.get("path", {"prefix": "/"}))
        method = match.get("method", rng.choice(METHODS) if rng.random() < 0.2 else "GET")
        method = method if isinstance(method, str) else rng.choice(method)
        headers = [("x-draw", str(rng.choice((rng.randrange(20_000), rng.randrange(2**64), 0))))]
        headers += [pair for name, given in match.get("headers", {}).items() for pair in self._pairs(name, given)]
        query = [pair for name, given in match.get("query", {}).items() for pair in self._pairs(name, given)]
        cookies = [pair for name, given in match.get("cookies", {}).items() for pair in self._pairs(name, given)]
        if rng.random() < 0.5:
            change = rng.randrange(5)
            if change == 0:
                path = self._changed(path)
            elif change == 1:
                headers += [(rng.choice((*NAMES, *EDITED)), rng.choice(VALUES))]
            elif change == 2:
                query += [(rng.choice(PARAMETERS), rng.choice(("", "a", "ab", "7", "b=c")))]
            elif change == 3:
                cookies += [(rng.choice(COOKIES), rng.choice(("a", '"a"', "ab", "")))]
            else:
                headers, method = headers[:-1] if len(headers) > 1 else headers, rng.choice(METHODS)
        if cookies:
            headers.append(("cookie", rng.choice(("; ", ";", " ;")).join(f"{name}={value}" for name, value in cookies)))
        if rng.random() < 0.01:
            headers.append(("content-type", "application/grpc"))
        scheme = match.get("scheme", "https" if rng.random() < 0.04 else "http")
        written = "&".join(
            f"{name}={quote(value, safe='=')}" if value or rng.random() < 0.5 else name for name, value in query
        )
        written += rng.choice(JUNK) if rng.random() < 0.05 else ""
        headers = [(name, value.strip(" ")) for name, value in headers]
        return Asked(
            method,
            scheme,
            self._host(service, scheme),
            path + (f"?{written}" if written else ""),
            tuple(headers),
        )

    def _host(self, service: str, scheme: str) -> str:
        rng = self._rng
        host = rng.choice(self.hosts[service]).lower()
        host = (
            host.replace("*", rng.choice(("x", "x.y", "one", "deep", "x.deep")), 1) if host != "*" else "nobody.known"
        )
        if rng.random() < 0.2:
            host = host.partition(":")[0]
        host = host if ":" in host or rng.random() < 0.7 else host + rng.choice(PORTS)
        host = host if rng.random() < 0.9 else host.swapcase()
        # What Envoy is told of a host at port 80 holds for its name alone as well, whatever the scheme.
        return f"{host}:80" if scheme == "https" and f"{host.lower()}:80" in self._ported else host

    def _met(self, path: Mapping[str, Any]) -> str:
        rng = self._rng
        if "regex" in path:
            for pattern, texts in PATH_REGEXES.items():
                before, after = pattern.split("%s")
                if path["regex"].startswith(before) and path["regex"].endswith(after):
                    word = path["regex"][len(before) : len(path["regex"]) - len(after)]
                    return rng.choice(texts) % word
        if "template" in path:
            text: str = path["template"]
            return text.replace("{id}", rng.choice(("7", "a.b", "x-y"))).replace("{of}", rng.choice(("z", "%20")))
        kind, text = next((kind, text) for kind, text in path.items() if kind != "ignore_case")
        if path.get("ignore_case") and rng.random() < 0.7:
            text = text.swapcase().replace("%2F", "%2f")
        if kind == "prefix":
            text += rng.choice(("", "", "a", "/", "/a", "/a/b"))
        elif kind == "path_prefix":
            text += rng.choice(("", "/", "/a", "/a/b", "//"))
        return text

    def _changed(self, path: str) -> str:
        rng = self._rng
        return rng.choice(
            (path + "/", path + "a", path[:-1] or "/", path.swapcase(), "/" + path, path + "%2F", path + ";x")
        )

    def _pairs(self, name: str, given: Mapping[str, Any]) -> list[tuple[str, str]]:
        """Values of a name that mostly meet a condition; none where it is met without."""
        rng = self._rng
        if given.get("present") is given.get("invert", False) or rng.random() < 0.05:
            return []
        if given.get("invert") or "present" in given:
            value = rng.choice(("a", "7", "other"))
        elif "range" in given:
            value = rng.choice((str(given["range"][0]), str(given["range"][1] - 1), str(given["range"][1]), *LARGE[:1]))
            value = rng.choice((value, value, f"+{value.lstrip('-')}", rng.choice(LARGE)))
        elif "regex" in given:
            value = rng.choice(TEXT_REGEXES[given["regex"]])
        else:
            kind, value = next(
                (kind, text) for kind, text in given.items() if kind not in ("ignore_case", "absent_as_empty")
            )
            if given.get("ignore_case") and rng.random() < 0.7:
                value = value.swapcase() if value.isascii() else value
            if kind in ("prefix", "contains"):
                value += rng.choice(("", "tail"))
            if kind in ("suffix", "contains"):
                value = rng.choice(("", "head")) + value
        pairs = [(name, value)]
        if rng.random() < 0.1:
            pairs.insert(rng.randrange(2), (name, rng.choice(VALUES[1:6])))
        return pairs
