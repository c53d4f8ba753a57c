"""Requests told apart: by user, by path, by cookie, and by the host of a wildcard; what is not right is refused.

Each server answers with the name of the version that it is; no name is looked up in DNS.
"""

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx

import meshlib
from meshlib import ConfigError, Mesh


class Handler(BaseHTTPRequestHandler):
    wbufsize = -1  # headers and body go out together

    def do_GET(self) -> None:
        body = self.server.version.encode()  # type: ignore[attr-defined]
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        pass


def serve(version: str) -> dict[str, object]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.version = version  # type: ignore[attr-defined]
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return {"address": f"127.0.0.1:{server.server_port}", "metadata": {"version": version}}


REVIEWS = {
    "hosts": ["*.reviews.example"],
    "endpoints": [serve("v1"), serve("v2"), serve("v3")],
    "subsets": {version: {"version": version} for version in ("v1", "v2", "v3")},
    "routes": [
        {"name": "jason", "match": [{"headers": {"end-user": {"exact": "jason"}}}], "backends": [{"subset": "v2"}]},
        {
            "name": "testers",
            "match": [
                {"path": {"path_prefix": "/v3"}, "cookies": {"group": {"exact": "testers"}}},
                {"authority": {"prefix": "beta."}},
            ],
            "backends": [{"subset": "v3"}],
        },
        {"name": "stable", "backends": [{"subset": "v1"}]},
    ],
}

with (
    Mesh({"discovery": [], "path_normalization": "base", "services": {"reviews": REVIEWS}}) as mesh,
    httpx.Client(transport=mesh.transport(), timeout=None) as client,
):
    for url, headers in (
        ("http://reviews/1", {}),
        ("http://reviews/1", {"end-user": "jason"}),
        ("http://reviews/v3/1", {"cookie": "lang=en; group=testers"}),
        ("http://reviews/x/../v3/1", {"cookie": "group=testers"}),
        ("http://reviews/v30/1", {"cookie": "group=testers"}),
        ("http://beta.eu.reviews.example/1", {}),
    ):
        response = client.get(url, headers=headers)
        record = meshlib.record(response)
        print(f"{url} {headers}: {response.text}, by the route {record.route if record else '-'}")

    plan = mesh.plan("GET", "http://reviews/v3/1", headers={"end-user": "eve"})
    print(*(f"not {name}: {reason}" for name, reason in plan.routes_not_taken), sep="\n")

try:
    Mesh({"services": {"reviews": {"routes": [{"match": [{"path": {"regex": "/v[0-9]+(?!/old)"}}]}]}}})
except ConfigError as error:
    print("a regex that RE2 does not have is refused:", "(?!" in str(error) or "lookaround" in str(error))
