"""The traffic management tasks of Istio's documentation, on real servers: what its readers see is what callers see.

Documents are written as users of Istio write them, and beside those of Kubernetes they are all there is; of this
workload itself, only what no document says: its namespace, its labels, its locality.
"""

from __future__ import annotations

import asyncio
import ssl
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
import trustme

import meshlib
from meshlib import Mesh
from tests.adapters.support import Origin, Seen, ok
from tests.integration.bookinfo import Pod, Shop, shop
from tests.integration.calling import Call, Caller
from tests.net.wire_servers import serving

REVIEWS = "http://reviews:9080/reviews/0"
RATINGS = "http://ratings:9080/ratings/0"
HTTPBIN = "http://httpbin:9080/get"
JASON = {"end-user": "jason"}


@pytest.fixture
def bookinfo(tmp_path: Path) -> Iterator[Shop]:
    with shop(tmp_path) as made:
        yield made


def answers(call: Call, url: str, calls: int = 1, **options: Any) -> Counter[str]:
    """What calls were answered with: their bodies, or their statuses where they are errors."""
    responses = [call("GET", url, **options) for _ in range(calls)]
    return Counter(each.text if each.is_success else str(each.status_code) for each in responses)


def test_requests_are_routed_by_user(bookinfo: Shop, caller: Caller) -> None:
    for version in ("v1", "v2", "v3"):
        bookinfo.run("reviews", version)
    bookinfo.publish()
    with Mesh(str(bookinfo.directory)) as mesh:
        productpage = caller.attached(mesh)
        assert answers(productpage, REVIEWS, 60).keys() == {"v1", "v2", "v3"}  # as without any rule
        bookinfo.apply("destination-rule-reviews")
        bookinfo.apply("virtual-service-reviews-v1")
        mesh.reload()
        assert answers(productpage, REVIEWS, 10) == {"v1": 10}
        bookinfo.apply("virtual-service-reviews-test-v2")
        mesh.reload()
        assert answers(productpage, REVIEWS, 5, headers=JASON) == {"v2": 5}
        assert answers(productpage, REVIEWS, 5) == {"v1": 5}
        assert answers(productpage, "http://reviews.default.svc.cluster.local:9080/", headers=JASON) == {"v2": 1}


def run_reviews_with_ratings(shop: Shop) -> tuple[Mesh, Pod]:
    """Reviews that ask ratings: the mesh by which they do so, and the pod of ratings."""
    clients: list[httpx.Client] = []

    def reviews(seen: Seen, number: int) -> bytes:
        user = seen.header("end-user")
        try:
            clients[0].get(RATINGS, headers={"end-user": user} if user else {}).raise_for_status()
        except httpx.HTTPError:
            return ok(b"ratings are unavailable")
        return ok(b"stars")

    ratings = shop.run("ratings", "v1")
    shop.run("reviews", "v2", reviews)
    mesh = shop.mesh(labels={"app": "reviews", "version": "v2"})
    clients.append(mesh.client())
    return mesh, ratings


def test_a_delay_that_is_injected_shows_a_timeout_that_is_too_short(bookinfo: Shop, caller: Caller) -> None:
    bookinfo.apply("virtual-service-ratings-test-delay", delay="0.3s")
    _, ratings = run_reviews_with_ratings(bookinfo)
    productpage = caller.attached(bookinfo.mesh())
    assert answers(productpage, REVIEWS) == {"stars": 1}
    late = productpage("GET", REVIEWS, headers=JASON)
    assert late.text == "stars"
    assert late.elapsed.total_seconds() > 0.29
    # What the page has for a timeout is shorter than what reviews have for theirs.
    with pytest.raises(httpx.TimeoutException):
        productpage("GET", REVIEWS, headers=JASON, timeout=0.05)
    assert ratings.calls >= 2


def test_an_abort_that_is_injected_is_for_one_user(bookinfo: Shop, caller: Caller) -> None:
    bookinfo.apply("virtual-service-ratings-test-abort")
    _, ratings = run_reviews_with_ratings(bookinfo)
    mesh = bookinfo.mesh()
    productpage = caller.attached(mesh)
    assert answers(productpage, REVIEWS, headers=JASON) == {"ratings are unavailable": 1}
    assert ratings.calls == 0
    assert answers(productpage, REVIEWS) == {"stars": 1}
    aborted = productpage("GET", RATINGS, headers=JASON)
    assert (aborted.status_code, aborted.text) == (500, "fault filter abort")


def test_traffic_is_shifted_by_weights(bookinfo: Shop, caller: Caller) -> None:
    for version in ("v1", "v2", "v3"):
        bookinfo.run("reviews", version)
    bookinfo.apply("destination-rule-reviews")
    bookinfo.apply("virtual-service-reviews-80-20")
    mesh = bookinfo.mesh()
    productpage = caller.attached(mesh)
    found = answers(productpage, REVIEWS, 400)
    assert found.keys() == {"v1", "v3"}
    assert 36 <= found["v3"] <= 124  # of 80 that are expected: 5.5 standard deviations
    bookinfo.apply("virtual-service-reviews-0-100")
    mesh.reload()
    assert answers(productpage, REVIEWS, 20) == {"v3": 20}


def test_a_request_ends_with_the_timeout_of_its_route(bookinfo: Shop, caller: Caller) -> None:
    bookinfo.apply("virtual-service-ratings-test-delay", delay="1s")
    run_reviews_with_ratings(bookinfo)
    bookinfo.apply("virtual-service-reviews-timeout")
    productpage = caller.attached(bookinfo.mesh())
    assert answers(productpage, REVIEWS) == {"stars": 1}
    with pytest.raises(meshlib.DeadlineExceeded) as caught:
        productpage("GET", REVIEWS, headers=JASON)
    assert (caught.value.limit, caught.value.service) == ("timeout", "reviews")
    assert isinstance(caught.value, httpx.TimeoutException)


def test_traffic_is_mirrored(bookinfo: Shop, caller: Caller) -> None:
    copied = threading.Semaphore(0)

    def shadow(seen: Seen, number: int) -> bytes:
        copied.release()
        return ok(b"nobody reads this", status="500 Broken")

    first, second = bookinfo.run("httpbin", "v1"), bookinfo.run("httpbin", "v2", shadow)
    bookinfo.apply("httpbin-mirror")
    client = caller.attached(bookinfo.mesh())
    assert answers(client, "http://httpbin:9080/headers?a=b", 3) == {"v1": 3}
    assert all(copied.acquire(timeout=10) for _ in range(3))
    assert (first.calls, second.calls) == (3, 3)
    assert {seen.line for seen in second.origin.seen} == {"GET /headers?a=b HTTP/1.1"}


def at_once(caller: Caller, call: Call, url: str, calls: int, failed: threading.Semaphore) -> list[str]:
    """Calls side by side, and how each ended; `failed` is released for each that was not answered."""

    def named(error: meshlib.MeshError) -> str:
        failed.release()
        return type(error).__name__

    def one() -> str:
        try:
            return str(call.client.get(url).text)
        except meshlib.MeshError as error:
            return named(error)

    async def one_of_many() -> str:
        try:
            return str((await call.client.get(url)).text)
        except meshlib.MeshError as error:
            return named(error)

    async def all_of_them() -> list[str]:
        return await asyncio.gather(*(one_of_many() for _ in range(calls)))

    if caller.name == "async":
        found: list[str] = caller.run(all_of_them())
        return found
    with ThreadPoolExecutor(calls) as pool:
        return [each.result() for each in [pool.submit(one) for _ in range(calls)]]


def test_a_circuit_breaker_lets_one_call_through_and_one_wait(bookinfo: Shop, caller: Caller) -> None:
    failed = threading.Semaphore(0)

    def busy(seen: Seen, number: int) -> bytes:
        if number == 1:
            assert all(failed.acquire(timeout=10) for _ in range(3))
        return ok(b"v1")

    pod = bookinfo.run("httpbin", "v1", busy)
    bookinfo.apply("httpbin-circuit-breaker")
    client = caller.attached(bookinfo.mesh())
    found = at_once(caller, client, HTTPBIN, 5, failed)
    assert sorted(found) == ["LimitExceeded"] * 3 + ["v1"] * 2
    assert (pod.calls, pod.server.accepted) == (2, 2)  # no connection is used twice


def test_an_endpoint_that_fails_once_is_left_out(bookinfo: Shop, caller: Caller) -> None:
    def broken(seen: Seen, number: int) -> bytes:
        return ok(status="500 Broken")

    good, bad = bookinfo.run("httpbin", "v1"), bookinfo.run("httpbin", "v2", broken)
    bookinfo.apply("httpbin-circuit-breaker")
    mesh = bookinfo.mesh()
    client = caller.attached(mesh)
    found = answers(client, HTTPBIN, 60)
    assert found == {"v1": 59, "500": 1}
    good.origin.answer = broken
    assert answers(client, HTTPBIN) == {"500": 1}
    # Nobody is left, and Istio knows no panic: 503 UH there.
    with pytest.raises(meshlib.NoEndpoint) as caught:
        client("GET", HTTPBIN)
    assert isinstance(caught.value, httpx.ConnectError)
    assert (good.calls, bad.calls) == (60, 1)


HELLO = "http://helloworld.sample:9080/hello"
PLACES = ("region1.zone1", "region1.zone2", "region2.zone3", "region3.zone4")


@pytest.fixture
def sample(tmp_path: Path) -> Iterator[Shop]:
    """The service `helloworld` in four places."""
    with shop(tmp_path, "sample") as made:
        for place in PLACES:
            made.run("helloworld", place, node=place)
        yield made


def test_calls_fail_over_from_place_to_place(sample: Shop, caller: Caller) -> None:
    sample.apply("helloworld-failover")
    mesh = sample.mesh(locality={"region": "region1", "zone": "zone1"})
    client = caller.attached(mesh)
    for pod in sample.pods:
        assert answers(client, HELLO, 10) == {pod.version: 10}
        pod.kill()
    with pytest.raises(meshlib.MeshError) as caught:
        client("GET", HELLO)
    assert isinstance(caught.value, httpx.ConnectError)


def test_calls_are_distributed_over_places(sample: Shop, caller: Caller) -> None:
    sample.apply("helloworld-distribution")
    mesh = sample.mesh(locality={"region": "region1", "zone": "zone1"})
    found = answers(caller.attached(mesh), HELLO, 200)
    assert found.keys() == set(PLACES) - {"region2.zone3"}
    # 5.5 standard deviations of a free draw; meshlib's shares are closer than that.
    assert 104 <= found["region1.zone1"] <= 176
    assert 9 <= found["region1.zone2"] <= 72
    assert 1 <= found["region3.zone4"] <= 44


def test_egress_is_to_registered_hosts_alone(bookinfo: Shop, caller: Caller, tmp_path: Path) -> None:
    released = threading.Event()

    def outside(seen: Seen, number: int) -> bytes:
        if "delay" in seen.line:
            released.wait(10)
        return ok(b"outside")

    bookinfo.run("reviews", "v1")
    with serving(Origin(outside)) as server, shop(tmp_path, "other") as other:
        other.run("ratings", "v1")
        other.publish()
        mesh = bookinfo.mesh()
        client = caller.attached(mesh)
        urls = [f"http://127.0.0.1:{server.port}/", "http://ratings.other:9080/", REVIEWS]
        assert [client("GET", url).text for url in urls] == ["outside", "v1", "v1"]

        bookinfo.apply("sidecar-registry-only")
        mesh.reload()
        with pytest.raises(meshlib.EgressRefused):
            client("GET", urls[0])
        with pytest.raises(meshlib.EgressRefused):
            client("GET", "http://httpbin.example.com/headers")
        assert client("GET", urls[1]).status_code == 502
        assert client("GET", urls[2]).text == "v1"

        bookinfo.apply("httpbin-ext", port=server.port)
        mesh.reload()
        assert client("GET", "http://httpbin.example.com/headers").text == "outside"
        with pytest.raises(meshlib.DeadlineExceeded):
            client("GET", "http://httpbin.example.com/delay/5")
        released.set()


def test_services_of_kubernetes_stand_for_hosts_outside(bookinfo: Shop, caller: Caller) -> None:
    def host(seen: Seen, number: int) -> bytes:
        return ok((seen.header("host") or "").encode())

    with serving(Origin(host)) as server:
        bookinfo.apply("my-httpbin", port=server.port)
        client = caller.attached(bookinfo.mesh())
        name = f"my-httpbin.default.svc.cluster.local:{server.port}"
        assert client("GET", f"http://{name}/headers").text == name  # the name of the Service, as Istio's page shows
        assert client("GET", "http://my-wikipedia/wiki/Main_Page").text == "my-wikipedia"


def test_tls_is_originated_for_calls_without(bookinfo: Shop, caller: Caller, tmp_path: Path) -> None:
    ca, roots = trustme.CA(), tmp_path / "roots.pem"
    ca.cert_pem.write_to_path(str(roots))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert("edition.example.com").configure_cert(context)
    with serving(Origin(), context) as server:
        bookinfo.apply("edition-tls-origination", port=server.port, roots=roots)
        client = caller.attached(bookinfo.mesh())
        answer = client("GET", "http://edition.example.com/politics")
        assert (answer.text, answer.url.scheme) == ("ok", "http")
        assert server.failed_handshakes == 0


def test_documents_are_tried_without_changing_anything(bookinfo: Shop, caller: Caller) -> None:
    first, second = bookinfo.run("reviews", "v1"), bookinfo.run("reviews", "v2")
    bookinfo.apply("destination-rule-reviews")
    bookinfo.apply("virtual-service-reviews-test-v2")
    # No DNS tells of reviews here, so that of the application is an address that both go by.
    here = f"127.0.0.1:{first.server.port}"
    mesh = bookinfo.mesh(mode="observe", services={"reviews": {"hosts": [here]}})
    productpage = caller.attached(mesh)
    answer = productpage("GET", f"http://{here}/reviews/0", headers=JASON)
    record = meshlib.record(answer)
    assert record is not None
    assert (answer.text, record.route, second.calls) == ("v1", "reviews-1", 0)
    assert record.why[0] == f"would go to 127.0.0.1:{second.server.port} (reviews/v2)"
    mesh.set_mode("on", service="reviews")
    assert answers(productpage, f"http://{here}/reviews/0", headers=JASON) == {"v2": 1}
