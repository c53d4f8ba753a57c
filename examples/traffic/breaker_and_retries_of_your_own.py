"""A pybreaker breaker with its listener, and tenacity's strategies, in place of the mesh's own."""

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pybreaker
from tenacity import retry_if_result, stop_after_delay, wait_none

import meshlib
from meshlib import CircuitOpen, Mesh, Retry, Service

answers = [202, 202, 200, 500, 500, 503, 503, 503]


class Orders(BaseHTTPRequestHandler):
    """Stands in for a service of yours: not ready, then ready, then broken."""

    def do_GET(self) -> None:
        self.send_response(answers.pop(0))
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *args: object) -> None:
        pass


class Listener(pybreaker.CircuitBreakerListener):
    """What dashboards hang on already."""

    def state_change(self, cb: object, old_state: object, new_state: object) -> None:
        print(f"the listener: {getattr(old_state, 'name', None)} to {getattr(new_state, 'name', None)}")


server = ThreadingHTTPServer(("127.0.0.1", 0), Orders)
threading.Thread(target=server.serve_forever, daemon=True).start()

breaker = pybreaker.CircuitBreaker(fail_max=3, reset_timeout=30, listeners=[Listener()], name="orders")
patient = Retry(
    max_retries=5, wait=wait_none(), stop=stop_after_delay(2), retry=retry_if_result(lambda r: r.status_code == 202)
)
orders = Service(endpoints=[f"127.0.0.1:{server.server_port}"], circuit_breaker=breaker, retry=patient)

with Mesh(services={"orders": orders}) as mesh, mesh.client("orders") as client:
    response = client.get("/report")
    record = meshlib.record(response)
    assert record is not None
    print(f"asked again while it was not ready: {[attempt.status for attempt in record.attempts]}")
    print(f"an error is an answer, and no failure: {[client.get('/report').status_code for _ in range(2)]}")
    print(f"these are failures: {[client.get('/report').status_code for _ in range(3)]}")
    try:
        client.get("/report")
    except CircuitOpen as error:
        print(f"refused, because of {type(error.__cause__).__name__}; the breaker is {breaker.current_state}")

server.shutdown()
