"""A bulkhead: slow reports cannot take all the places that checkouts need."""

import threading
from concurrent.futures import ThreadPoolExecutor, wait
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from meshlib import Bulkhead, LimitExceeded, Limits, Match, Mesh, PathMatch, Route, Service

go_on = threading.Event()


class Orders(BaseHTTPRequestHandler):
    """Stands in for a service of yours, whose reports take for ever."""

    def do_GET(self) -> None:
        if self.path.startswith("/reports"):
            go_on.wait(10)
        self.send_response(204)
        self.end_headers()

    def log_message(self, *args: object) -> None:
        pass


server = ThreadingHTTPServer(("127.0.0.1", 0), Orders)
threading.Thread(target=server.serve_forever, daemon=True).start()

routes = [Route(name=kind, match=[Match(path=PathMatch(path_prefix=f"/{kind}"))]) for kind in ("reports", "checkout")]
shared = Service(
    endpoints=[f"127.0.0.1:{server.server_port}"], routes=routes, limits=Limits(max_in_flight=6, max_pending=0)
)
divided = Service(
    endpoints=shared.endpoints,
    routes=routes,
    limits=Limits(max_in_flight=6),
    bulkhead=Bulkhead(percents={"reports": 50, "checkout": 50}, hard=True),
)


def shop(title: str, orders: Service) -> None:
    """Ask for ten reports at once, and meanwhile for a checkout."""
    go_on.clear()
    with Mesh(services={"orders": orders}) as mesh, mesh.client("orders") as client, ThreadPoolExecutor(10) as threads:

        def ask(path: str) -> str:
            try:
                return str(client.get(path).status_code)
            except LimitExceeded as error:
                return f"refused by the {error.gate}"

        reports = [threads.submit(ask, "/reports") for _ in range(10)]
        refused = wait(reports, timeout=0.5).done
        print(f"{title}: {10 - len(refused)} reports under way; the checkout: {ask('/checkout')}")
        go_on.set()


shop("one limit for all", shared)
shop("divided", divided)
server.shutdown()
