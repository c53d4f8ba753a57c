"""Without an SDK nothing is imported, nothing is recorded, and a trace that came in goes on."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from opentelemetry import context as otel_context
from opentelemetry import propagate, trace
from opentelemetry.metrics import NoOpMeterProvider
from opentelemetry.trace import NoOpTracerProvider

from meshlib.propagation import as_caller
from meshlib.telemetry.observer import NullObserver, Observer
from tests.telemetry.calls import Drive, a_call

ROOT = Path(__file__).resolve().parents[2]
PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def run(code: str) -> str:
    start = f"import sys; sys.path[:0] = [{str(ROOT / 'src')!r}, {str(ROOT)!r}]\n"
    done = subprocess.run([sys.executable, "-c", start + code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_importing_telemetry_imports_no_opentelemetry() -> None:
    names = "setup, Observer, NullObserver, EventBus, Changes, Observed, quiet"
    code = f"from meshlib.telemetry import {names}\nprint('opentelemetry' in sys.modules)"

    assert run(code) == "False\n"


CALLS_ONCE = (
    "from tests.telemetry.calls import Drive, a_call\n"
    "from meshlib.telemetry.observer import Observer\n"
    "drive = Drive(Observer(), a_call(), [503, 200])\n"
    "assert drive.sent == [[], []], drive.sent\n"
)


def test_a_call_without_an_sdk_imports_none() -> None:
    code = f"import opentelemetry.trace\n{CALLS_ONCE}"
    code += "print([name for name in sys.modules if name.startswith('opentelemetry.sdk')])"

    assert run(code) == "[]\n"


def test_a_call_of_a_program_that_does_not_use_opentelemetry_does_not_import_it() -> None:
    assert run(f"{CALLS_ONCE}print('opentelemetry' in sys.modules)") == "False\n"


@pytest.mark.parametrize("variable", ["OTEL_PYTHON_TRACER_PROVIDER", "OTEL_PYTHON_METER_PROVIDER"])
def test_a_provider_that_the_environment_names_is_looked_for_at_the_first_call(variable: str) -> None:
    code = (
        f"import os; os.environ[{variable!r}] = 'nobody_has_installed_this'\n"
        "import logging; logging.disable()\n"
        "from tests.telemetry.calls import Drive, a_call\n"
        "from meshlib.telemetry.observer import Observer\n"
        "try:\n    Drive(Observer(), a_call(), [200])\n"
        "except Exception as error:\n    print(type(error).__name__)\n"
        "print('opentelemetry' in sys.modules)"
    )

    assert run(code).endswith("True\n")


def test_a_provider_that_is_set_late_is_used_from_then_on() -> None:
    code = (
        "from tests.telemetry.calls import Drive, a_call\n"
        "from meshlib.telemetry.observer import Observer\n"
        "observer = Observer()\n"
        "Drive(observer, a_call(), [200])\n"
        "from tests.telemetry.conftest import Sdk\n"
        "from opentelemetry import metrics, trace\n"
        "sdk = Sdk()\n"
        "trace.set_tracer_provider(sdk.tracers); metrics.set_meter_provider(sdk.meters)\n"
        "Drive(observer, a_call(), [200])\n"
        "print(len(sdk.spans()), sum(sdk.points('http.client.request.duration').values()))"
    )

    assert run(code) == "1 1\n"


def test_a_disabled_sdk_counts_as_none() -> None:
    code = (
        "import os; os.environ['OTEL_SDK_DISABLED'] = 'true'\n"
        "from tests.telemetry.conftest import Sdk\n"
        "from tests.telemetry.calls import Drive, a_call\n"
        "sdk = Sdk(); observer = sdk.observer()\n"
        "assert Drive(observer, a_call(), [200]).sent == [[]]\n"
        "print(len(sdk.spans()))"
    )

    assert run(code) == "0\n"


def test_a_provider_that_does_nothing_counts_as_none() -> None:
    observer = Observer(tracer_provider=NoOpTracerProvider(), meter_provider=NoOpMeterProvider())

    assert Drive(observer, a_call(), [200]).sent == [[]]


def test_a_trace_that_came_in_goes_on_unchanged() -> None:
    observer = Observer(tracer_provider=NoOpTracerProvider(), meter_provider=NoOpMeterProvider())
    token = otel_context.attach(propagate.extract({"traceparent": PARENT, "tracestate": "a=b", "baggage": "k=v"}))
    try:
        drive = Drive(observer, a_call(), [503, 200])
    finally:
        otel_context.detach(token)

    expected = [(b"baggage", b"k=v"), (b"traceparent", PARENT.encode()), (b"tracestate", b"a=b")]
    assert drive.sent == [expected, expected]


def test_a_callers_trace_that_is_no_current_span_goes_on_unchanged() -> None:
    observer = Observer(tracer_provider=NoOpTracerProvider(), meter_provider=NoOpMeterProvider())
    token = otel_context.attach(as_caller(propagate.extract({"traceparent": PARENT, "tracestate": "a=b"})))
    try:
        assert trace.get_current_span() is trace.INVALID_SPAN
        drive = Drive(observer, a_call(), [503, 200])
    finally:
        otel_context.detach(token)

    expected = [(b"traceparent", PARENT.encode()), (b"tracestate", b"a=b")]
    assert drive.sent == [expected, expected]


def test_telemetry_that_is_off_does_nothing() -> None:
    observer = NullObserver()

    assert Drive(observer, a_call(), [503, 200]).sent == [[], []]
    observer.close()
