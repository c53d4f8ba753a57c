"""A service in three zones of two regions: calls stay near, and move on only as far as they have to."""

import threading
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import meshlib
from meshlib import Endpoint, LoadBalancing, Locality, Mesh, OutlierDetection, Service

ZONES = {"eu-west-1a": "eu-west", "eu-west-1b": "eu-west", "us-east-1a": "us-east"}
broken: set[str] = set()


def serve(zone: str) -> ThreadingHTTPServer:
    class Orders(BaseHTTPRequestHandler):
        wbufsize = -1  # headers and body go out together

        def do_GET(self) -> None:
            self.send_response(503 if zone in broken else 200)
            self.send_header("content-length", str(len(zone)))
            self.end_headers()
            self.wfile.write(zone.encode())

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Orders)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


servers = [(zone, serve(zone)) for zone in ZONES for _ in range(2)]
endpoints = [
    Endpoint(address=f"127.0.0.1:{server.server_port}", locality=Locality(region=ZONES[zone], zone=zone))
    for zone, server in servers
]

with Mesh(
    locality=Locality(region="eu-west", zone="eu-west-1a"),
    services={
        "orders": Service(
            endpoints=endpoints,
            load_balancing=LoadBalancing(failover=True),
            outlier_detection=OutlierDetection(consecutive_errors=3, max_ejection_percent=100),
        )
    },
) as mesh:
    orders = mesh.client("orders")

    def show(when: str) -> None:
        for _ in range(40):  # what is broken is found out by those who call it
            orders.get("/")
        responses = [orders.get("/") for _ in range(40)]
        zones = Counter(response.text for response in responses)
        record = meshlib.record(responses[-1])
        assert record is not None
        failed = sum(response.status_code != 200 for response in responses)
        print(f"{when}: {dict(zones)}, {failed} failed; the last from {record.attempts[-1].how}")

    show("all zones are well")
    broken.add("eu-west-1a")
    show("eu-west-1a is down")
    broken.add("eu-west-1b")
    show("all of eu-west is down")
