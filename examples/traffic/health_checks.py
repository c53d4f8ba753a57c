"""Active checks: a server that says that it is not well gets no calls, and is taken back when it says that it is."""

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from meshlib import HealthCheck, HttpCheck, LoadBalancing, Mesh, Service


class Orders(BaseHTTPRequestHandler):
    """Stands in for a service of yours. It says whether it is well at ``/health``."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        check = self.path == "/health"
        if not check:
            calls[self.server.server_port] += 1
        self.send_response(health[self.server.server_port] if check else 200)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *args: object) -> None:
        pass


servers = [ThreadingHTTPServer(("127.0.0.1", 0), Orders) for _ in range(2)]
first, second = (server.server_port for server in servers)
health = {first: 200, second: 200}
calls = {first: 0, second: 0}
for server in servers:
    threading.Thread(target=server.serve_forever, daemon=True).start()

check = HealthCheck(http=HttpCheck(path="/health"), interval="20ms", timeout="1s")
endpoints = [f"127.0.0.1:{first}", f"127.0.0.1:{second}"]
in_turn = LoadBalancing(policy="round_robin")
orders = Service(endpoints=endpoints, load_balancing=in_turn, health_check=check)

with Mesh(services={"orders": orders}) as mesh, mesh.client("orders") as client:
    told = []
    changed = threading.Event()

    @mesh.on_event
    def note(event):
        if event.kind.startswith("check_"):
            told.append(event.kind)
            changed.set()

    def twenty_calls() -> str:
        calls.update({first: 0, second: 0})
        for _ in range(20):
            client.get("/orders/42").raise_for_status()
        return f"{calls[first]} and {calls[second]}"

    def wait_for_a_change() -> None:
        changed.wait(10)
        changed.clear()

    print("both are well:", twenty_calls())
    health[first] = 503
    wait_for_a_change()
    print("the first is not:", twenty_calls())
    print("why:", mesh.plan("GET", "http://orders/orders/42").candidates[0].why_not)
    health[first] = 200
    wait_for_a_change()
    print("it is again:", twenty_calls())
    print("told:", ", ".join(told))

for server in servers:
    server.shutdown()
