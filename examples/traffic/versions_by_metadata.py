"""Calls name the metadata of the endpoints they want; what nobody has falls back to what is stable."""

import threading
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import meshlib
from meshlib import Endpoint, LoadBalancing, Mesh, MetadataSubsets, Service, SubsetSelector


class Orders(BaseHTTPRequestHandler):
    """Stands in for an instance of a service of yours."""

    def do_GET(self) -> None:
        self.send_response(204)
        self.end_headers()

    def log_message(self, *args: object) -> None:
        pass


versions = {}
for version in ("v1", "v1", "v2"):
    server = ThreadingHTTPServer(("127.0.0.1", 0), Orders)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    versions[f"127.0.0.1:{server.server_port}"] = version

subset = MetadataSubsets(selectors=[SubsetSelector(keys=["version"])], fallback="default", default={"version": "v1"})
orders = Service(
    endpoints=[Endpoint(address=address, metadata={"version": version}) for address, version in versions.items()],
    load_balancing=LoadBalancing(subset=subset),
)

with Mesh(services={"orders": orders}) as mesh, mesh.client("orders") as client:
    for wanted in (None, {"version": "v2"}, {"version": "v3"}):
        seen, how = Counter[str](), set[str | None]()
        for _ in range(10):
            record = meshlib.record(client.get("/orders", extensions=meshlib.call(metadata_match=wanted)))
            assert record is not None
            seen[versions[record.attempts[0].endpoint]] += 1
            how.add(record.attempts[0].how)
        print(f"{wanted or 'nothing'} asked for: {dict(seen)}, {how.pop()}")
