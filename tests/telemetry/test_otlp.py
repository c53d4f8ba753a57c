"""`setup()`, against a collector of a few lines that reads real OTLP."""

from __future__ import annotations

import gzip
import logging
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from meshlib.telemetry import setup

ROOT = Path(__file__).resolve().parents[2]

CALL = """
from tests.telemetry.calls import Drive, Seen, a_call, a_cluster
from meshlib.telemetry import Observer
observer = Observer(Seen(a_cluster()))
Drive(observer, a_call(), [503, 200])
"""


class Collector:
    """What came in: the name of each span with its resource, and the names of metrics."""

    def __init__(self) -> None:
        self.spans: list[tuple[str, dict[str, str]]] = []
        self.metrics: set[str] = set()
        self.headers: list[dict[str, str]] = []
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                if self.headers.get("content-encoding") == "gzip":
                    body = gzip.decompress(body)
                collector.take(self.path, body, {name.lower(): value for name, value in self.headers.items()})
                self.send_response(200)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})
        self._thread.start()

    def take(self, path: str, body: bytes, headers: dict[str, str]) -> None:
        self.headers.append(headers)
        if path == "/v1/traces":
            traces = ExportTraceServiceRequest.FromString(body)
            for resource in traces.resource_spans:
                of = {each.key: each.value.string_value for each in resource.resource.attributes}
                self.spans += [(span.name, of) for scope in resource.scope_spans for span in scope.spans]
        elif path == "/v1/metrics":
            metrics = ExportMetricsServiceRequest.FromString(body)
            for measured in metrics.resource_metrics:
                self.metrics |= {metric.name for scope in measured.scope_metrics for metric in scope.metrics}
        else:
            raise AssertionError(path)

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.fixture
def collector() -> Iterator[Collector]:
    made = Collector()
    yield made
    made.close()


def run(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run `code` in a process of its own, since a provider can be set only once in one."""
    start = f"import sys; sys.path[:0] = [{str(ROOT / 'src')!r}, {str(ROOT)!r}]\n"
    return subprocess.run(
        [sys.executable, "-c", start + code],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={"PATH": "/usr/bin:/bin", **environment},
    )


def succeed(code: str, **environment: str) -> str:
    done = run(code, **environment)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr, done.stderr
    return done.stdout


def test_one_line_sends_traces_and_metrics_which_arrive_at_the_latest_at_exit(collector: Collector) -> None:
    succeed(f"from meshlib.telemetry import setup\nsetup('checkout', {collector.url!r}){CALL}")

    assert [name for name, _ in collector.spans] == ["GET", "GET"]
    assert {of["service.name"] for _, of in collector.spans} == {"checkout"}
    assert {"http.client.request.duration", "meshlib.client.call.duration", "meshlib.endpoints"} <= collector.metrics


def test_what_is_not_given_comes_from_the_environment(collector: Collector) -> None:
    succeed(
        f"from meshlib.telemetry import setup\nsetup(){CALL}",
        OTEL_EXPORTER_OTLP_ENDPOINT=collector.url,
        OTEL_SERVICE_NAME="from-env",
        OTEL_METRICS_EXPORTER="none",
    )

    assert {of["service.name"] for _, of in collector.spans} == {"from-env"}
    assert not collector.metrics


def test_headers_and_attributes_are_sent_along(collector: Collector) -> None:
    succeed(
        "from meshlib.telemetry import setup\n"
        f"setup('a', {collector.url!r}, headers={{'x-token': 't'}}, resource_attributes={{'zone': 'z1'}}){CALL}"
    )

    assert {headers["x-token"] for headers in collector.headers} == {"t"}
    assert {of["zone"] for _, of in collector.spans} == {"z1"}


def test_leaving_the_block_sends_what_there_is(collector: Collector) -> None:
    succeed(
        "import os\nfrom meshlib.telemetry import setup\n"
        f"with setup('a', {collector.url!r}) as telemetry:\n"
        + "".join(f"    {line}\n" for line in CALL.strip().splitlines())
        + "telemetry.shutdown()\nos._exit(0)"
    )

    assert len(collector.spans) == 2
    assert collector.metrics


def test_a_provider_that_is_set_is_left_alone(collector: Collector) -> None:
    code = (
        "import logging; logging.basicConfig(level=logging.INFO, stream=sys.stdout, format='%(name)s %(message)s')\n"
        "from tests.telemetry.conftest import Sdk\n"
        "from opentelemetry import metrics, trace\n"
        "sdk = Sdk()\n"
        "trace.set_tracer_provider(sdk.tracers); metrics.set_meter_provider(sdk.meters)\n"
        "from meshlib.telemetry import setup\n"
        f"telemetry = setup('checkout', {collector.url!r})\n"
        "assert telemetry.tracer_provider is None and telemetry.meter_provider is None\n"
        f"{CALL}\n"
        "telemetry.shutdown()\n"
        "assert trace.get_tracer_provider() is sdk.tracers\n"
        "print(len(sdk.spans()), 'http.client.request.duration' in sdk.metrics())"
    )

    out = succeed(code)

    assert out.splitlines()[-1] == "2 True"
    assert "meshlib telemetry: a tracer provider is set already, so spans go there" in out
    assert not collector.headers


def test_calling_it_twice_starts_one(collector: Collector) -> None:
    succeed(
        "from meshlib.telemetry import setup\n"
        f"first = setup('a', {collector.url!r}); second = setup('b', {collector.url!r})\n"
        f"assert second.tracer_provider is None{CALL}"
    )

    assert {of["service.name"] for _, of in collector.spans} == {"a"}


def test_it_goes_on_in_a_forked_child(collector: Collector) -> None:
    code = (
        "import os\nfrom meshlib.telemetry import setup\n"
        f"telemetry = setup('preloaded', {collector.url!r}){CALL}\n"
        "telemetry.flush()\n"
        "child = os.fork()\n"
        "if child == 0:\n"
        "    Drive(observer, a_call(method='PUT'), [200])\n"
        "    os._exit(0 if telemetry.flush() else 1)\n"
        "assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0\n"
    )
    # A process with threads that forks is what is tested; Python 3.12 warns of it.
    succeed(code, PYTHONWARNINGS="ignore::DeprecationWarning")

    assert sorted(name for name, _ in collector.spans) == ["GET", "GET", "PUT"]


def test_a_disabled_sdk_sends_nothing(collector: Collector) -> None:
    succeed(
        f"from meshlib.telemetry import setup\nsetup('a', {collector.url!r}){CALL}",
        OTEL_SDK_DISABLED="true",
    )

    assert not collector.headers


HIDE = """
import sys
class Hide:
    def find_spec(self, name, path=None, target=None):
        if name.startswith({name!r}):
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Hide())
"""


@pytest.mark.parametrize("name", ["opentelemetry.sdk", "opentelemetry.exporter"])
def test_without_the_extra_the_error_says_what_to_install(name: str) -> None:
    done = run(HIDE.format(name=name) + "from meshlib.telemetry import setup\nsetup()")

    assert done.returncode == 1
    assert 'pip install "meshlib-http[otel]"' in done.stderr.splitlines()[-1]


def test_without_the_exporter_for_grpc_the_error_says_so() -> None:
    done = run(
        HIDE.format(name="opentelemetry.exporter.otlp.proto.grpc")
        + "from meshlib.telemetry import setup\nsetup(protocol='grpc')"
    )

    assert 'pip install "meshlib-http[otel]" (no OTLP exporter for grpc' in done.stderr.splitlines()[-1]


def test_an_unknown_protocol_is_refused(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    with pytest.raises(ValueError, match="'http/protobuf' or 'grpc', not 'http/json'"):
        setup(protocol="http/json")  # type: ignore[arg-type]
