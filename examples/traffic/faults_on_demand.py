"""Faults on demand: a request asks for a delay or an answer, and the caller's own code shows what it makes of them."""

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import meshlib
from meshlib import Fault, FaultAbort, FaultDelay, Mesh, MeshError, Service

served: list[str] = []


class Orders(BaseHTTPRequestHandler):
    """Stands in for a service of yours."""

    def do_GET(self) -> None:
        served.append(self.path)
        self.send_response(200)
        self.send_header("content-length", "2")
        self.end_headers()
        self.wfile.write(b"42")

    def log_message(self, *args: object) -> None:
        pass


server = ThreadingHTTPServer(("127.0.0.1", 0), Orders)
threading.Thread(target=server.serve_forever, daemon=True).start()

# Every request may ask for a fault, and none has one that did not.
fault = Fault(headers=True, delay=FaultDelay(percent=100), abort=FaultAbort(percent=100))
orders = Service(endpoints=[f"127.0.0.1:{server.server_port}"], timeout="200ms", fault=fault)

with Mesh(services={"orders": orders}) as mesh, mesh.client("orders") as client:

    @meshlib.fallback(value="what we knew yesterday")
    def order(**faults: str) -> str:
        headers = {f"x-envoy-fault-{name.replace('_', '-')}": value for name, value in faults.items()}
        return client.get("/orders/42", headers=headers).raise_for_status().text

    print("as it is:", order())
    print("50 ms slower:", order(delay_request="50"))
    print("slower than the timeout:", order(delay_request="500"))

    answer = client.get("/orders/42", headers={"x-envoy-fault-abort-request": "503"})
    print("refused:", answer.status_code, answer.extensions["meshlib.fault"])
    print(meshlib.record(answer).attempts, "no attempt was made")
    try:
        client.get("/orders/42", headers={"x-envoy-fault-delay-request": "500"})
    except MeshError as error:
        print(type(error).__name__, "in", meshlib.record(error).waits[0].reason)

print("requests that the server got:", len(served))
server.shutdown()
