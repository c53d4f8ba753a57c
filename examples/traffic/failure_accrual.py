"""An endpoint that fails every third call: never five times in a row, so only a rule on its own success rate finds it.

The rule is Linkerd's: with at least five calls in the last ten seconds, less than 80 % of them well, it is left out.
"""

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from meshlib import Accrual, LoadBalancing, Mesh, OutlierDetection, Retry, Service

CALLS = 90


def server(fails_each: int = 0) -> ThreadingHTTPServer:
    """One that fails each so-manieth request; 0 for none."""
    got = 0

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            nonlocal got
            got += 1
            self.send_response(503 if fails_each and got % fails_each == 0 else 200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *args: Any) -> None:
            pass

    made = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=made.serve_forever, args=(0.01,), daemon=True).start()
    return made


def failures(detection: OutlierDetection) -> tuple[int, str]:
    """How many calls fail, without any retry; and what an endpoint was ejected for."""
    servers = [server(fails_each=3), server(), server()]
    orders = Service(
        endpoints=[f"127.0.0.1:{each.server_port}" for each in servers],
        load_balancing=LoadBalancing(policy="round_robin"),
        retry=Retry(max_retries=0),
        outlier_detection=detection,
    )
    ejected: list[str] = []
    with Mesh(services={"orders": orders}, discovery=[]) as mesh:
        mesh.on_event(lambda event: ejected.append(event.reason) if event.kind == "ejected" else None)
        client = mesh.client("orders")
        failed = sum(client.get("/").status_code == 503 for _ in range(CALLS))
    for each in servers:
        each.shutdown()
        each.server_close()
    return failed, ", ".join(ejected) or "nothing"


failed, reason = failures(OutlierDetection())
print(f"by failures in a row: {failed} of {CALLS} calls failed, and an endpoint was ejected for {reason}")
failed, reason = failures(OutlierDetection(accrual=Accrual(kind="window")))
print(f"by its success rate: {failed} of {CALLS} calls failed, and an endpoint was ejected for {reason}")
