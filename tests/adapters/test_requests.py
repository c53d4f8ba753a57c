"""What users of requests know of it, through the mesh."""

from __future__ import annotations

import copy
import gc
import gzip
import io
import pickle
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import requests
from requests.auth import HTTPBasicAuth, HTTPDigestAuth
from requests.exceptions import FileModeWarning, RequestException
from urllib3 import Timeout

import meshlib
from meshlib import Mesh, errors
from meshlib.adapters.requests import MeshAdapter, adapter, session
from meshlib.adapters.requests_errors import _AS_REQUESTS, as_requests
from tests.adapters.support import Origin, Seen, address, mesh_of, ok, origins
from tests.net.wire_servers import Peer, serving

DIGEST = 'Digest realm="r", nonce="n", qop="auth", algorithm=MD5'


def answer(seen: Seen, number: int) -> bytes:
    path = seen.line.split()[1]
    match path.partition("?")[0]:
        case "/cookie":
            return ok(b"", Set_Cookie="a=b; Path=/")
        case "/digest" if not seen.header("authorization"):
            return ok(b"who?", "401 Unauthorized", WWW_Authenticate=DIGEST)
        case "/moved":
            return ok(b"", "307 Temporary Redirect", Location="/there?x=1")
        case "/latin":
            return ok("ä".encode("latin-1"), Content_Type="text/plain; charset=latin-1")
        case "/lines":
            pieces = b"".join(b"%x\r\n%b\r\n" % (len(each), each) for each in (b"on", b"e\ntw", b"o\n"))
            return b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + pieces + b"0\r\n\r\n"
        case "/large":
            return ok(b"x" * 300_000)
    return ok(seen.body or path.encode())


@pytest.fixture(scope="module")
def served() -> Iterator[tuple[Origin, Mesh]]:
    with origins(answer) as ((origin,), servers), mesh_of(*servers) as mesh:
        yield origin, mesh


@pytest.fixture
def origin(served: tuple[Origin, Mesh]) -> Origin:
    served[0].seen.clear()
    return served[0]


@pytest.fixture
def mesh(served: tuple[Origin, Mesh]) -> Mesh:
    return served[1]


@pytest.fixture
def orders(mesh: Mesh, origin: Origin) -> Iterator[requests.Session]:
    with session(mesh, "orders") as made:
        yield made


def in_flight(mesh: Mesh) -> int:
    return sum(each.in_flight for service in mesh.status().services for each in service.clusters)


# Sessions


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("/a/b?c=d", "/a/b?c=d"),
        ("a", "/a"),
        ("/x:y", "/x:y"),
        ("http://orders/abs", "/abs"),
        ("HTTP://ORDERS/abs", "/abs"),
        ("/ä b", "/%C3%A4%20b"),
        ("", "/"),
    ],
)
def test_relative_urls_are_those_of_the_service(orders: Any, origin: Origin, url: str, expected: str) -> None:
    orders.get(url)
    assert origin.seen[0].line == f"GET {expected} HTTP/1.1"
    assert origin.seen[0].header("host") in ("orders", "ORDERS")


def test_a_request_that_was_prepared_is_sent(orders: Any, origin: Origin) -> None:
    request = requests.Request("POST", "/x", params={"a": "b"}, data={"c": "d"})
    response = orders.send(orders.prepare_request(request))
    assert (request.url, response.request.url, response.url) == ("/x", "http://orders/x?a=b", "http://orders/x?a=b")
    assert origin.seen[0].body == b"c=d"


@pytest.mark.parametrize("name", ["", "or ders", "a/b", "http://orders", "u@orders", "orders?x"])
def test_what_is_no_name_is_refused(mesh: Mesh, name: str) -> None:
    with pytest.raises(ValueError, match="is not the name of a service"):
        session(mesh, name)


def test_a_mesh_and_a_name_are_expected(mesh: Mesh) -> None:
    with pytest.raises(TypeError, match="a Mesh is expected, not str"):
        session("orders", mesh)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="the name of a service is expected, such as 'orders', not 3"):
        session(mesh, 3)  # type: ignore[arg-type]


@pytest.mark.parametrize("url", ["http://[::1/", "http://orders:x/", "//orders/x"])
def test_what_is_no_url_is_refused_as_by_requests(orders: Any, url: str) -> None:
    with pytest.raises((requests.exceptions.InvalidURL, requests.exceptions.MissingSchema)):
        orders.get(url)


def test_cookies_are_kept_and_sent(orders: Any, origin: Origin) -> None:
    assert orders.get("/cookie").cookies.get_dict() == {"a": "b"}
    orders.get("/x", cookies={"c": "d"})
    assert origin.seen[1].header("cookie") == "a=b; c=d"


def test_authentication(orders: Any, origin: Origin) -> None:
    orders.get("/x", auth=HTTPBasicAuth("u", "p"))
    assert (origin.seen[0].header("authorization") or "").startswith("Basic ")
    response = orders.get("/digest", auth=HTTPDigestAuth("u", "p"))
    assert (response.status_code, [each.status_code for each in response.history]) == (200, [401])
    assert meshlib.record(response.history[0]) is not None


def test_redirects_repeat_the_body(orders: Any, origin: Origin) -> None:
    response = orders.post("/moved", data=io.BytesIO(b"body"))
    assert (response.content, response.url) == (b"body", "http://orders/there?x=1")
    assert orders.get("/moved", allow_redirects=False).next.url == "http://orders/there?x=1"


def test_hooks_and_elapsed(orders: Any) -> None:
    seen: list[Any] = []
    response = orders.get("/x", hooks={"response": lambda response, **_: seen.append(response.elapsed)})
    assert seen == [response.elapsed]
    assert 0 < response.elapsed.total_seconds() < 5
    assert isinstance(response.connection, MeshAdapter)


def test_encodings_and_reasons(orders: Any) -> None:
    response = orders.get("/latin")
    assert (response.text, response.encoding, response.reason, response.ok) == ("ä", "latin-1", "OK", True)


# Bodies


def test_uploads(orders: Any, origin: Origin, tmp_path: Any) -> None:
    (tmp_path / "f").write_bytes(b"from a file")
    with open(tmp_path / "f", "rb") as file:
        file.seek(5)
        orders.put("/x", data=file)
    with open(tmp_path / "f") as text, pytest.warns(FileModeWarning):
        orders.put("/x", data=text)
    orders.put("/x", data=iter([b"a", "ä", b"c"]))
    orders.put("/x", data="ä")
    orders.put("/x", files={"f": ("name", io.BytesIO(b"part"), "text/plain")}, data={"k": "v"})
    orders.post("/x")
    lengths = [seen.header("content-length") for seen in origin.seen]
    assert [seen.body for seen in origin.seen[:2]] == [b"a file", b"from a file"]
    assert origin.seen[2].body == b"1\r\na\r\n2\r\n\xc3\xa4\r\n1\r\nc\r\n"
    assert origin.seen[3].body.decode({"1": "latin-1", "2": "utf-8"}[lengths[3] or ""]) == "ä"  # by urllib3's version
    assert b'filename="name"' in origin.seen[4].body
    assert (lengths[0], lengths[2], lengths[5]) == ("6", None, "0")


def test_an_upload_that_fails_on_its_own_is_no_failure_of_the_service(orders: Any, mesh: Mesh) -> None:
    def body() -> Iterator[bytes]:
        yield b"x"
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        orders.put("/x", data=body())
    assert in_flight(mesh) == 0


def test_a_streamed_response(orders: Any, mesh: Mesh) -> None:
    with orders.get("/large", stream=True) as response:
        assert in_flight(mesh) == 1
        assert next(response.iter_content(1000)) == b"x" * 1000
        assert len(response.raw.read(500)) == 500
        assert not response.raw.closed
    assert response.raw.closed
    assert in_flight(mesh) == 0
    with orders.get("/large", stream=True) as response:
        assert sum(map(len, response.iter_content(7777))) == 300_000
        assert response.raw.closed
        assert (response.raw.read(), response.raw.read(10)) == (b"", b"")
        response.raw.release_conn()
    with orders.get("/lines", stream=True) as response:
        assert list(response.iter_lines()) == [b"one", b"two"]


def test_what_comes_is_given_at_once() -> None:
    more = threading.Event()

    def slowly(peer: Peer) -> None:
        peer.request()
        peer.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n6\r\nfirst\n\r\n")
        more.wait(10)
        peer.send(b"5\r\nlast\n\r\n0\r\n\r\n")

    with serving(slowly) as server, mesh_of(server) as mesh:
        with session(mesh, "orders").get("/", stream=True) as response:
            lines = response.iter_lines(chunk_size=1024)
            assert next(lines) == b"first"
            more.set()
            assert next(lines) == b"last"


def test_a_raw_response_is_decoded_on_request(served: Any) -> None:
    coded = gzip.compress(b"hello" * 100)
    with origins(lambda seen, number: ok(coded, Content_Encoding="gzip")) as (_, servers), mesh_of(*servers) as mesh:
        orders = session(mesh, "orders")
        with orders.get("/", stream=True) as response:
            assert response.raw.read() == coded
        with orders.get("/", stream=True) as response:
            assert response.raw.read(decode_content=True) == b"hello" * 100
        with orders.get("/", stream=True) as response:
            response.raw.decode_content = True
            assert gzip.compress(response.raw.data) and response.raw.headers["content-encoding"] == "gzip"


def test_a_response_that_nobody_reads_is_settled(orders: Any, mesh: Mesh) -> None:
    response = orders.get("/large", stream=True)
    assert in_flight(mesh) == 1
    del response
    gc.collect()
    orders.get("/x")
    assert in_flight(mesh) == 0


def test_responses_can_be_pickled(orders: Any) -> None:
    for response in (orders.get("/x"), orders.get("/large", stream=True)):
        made = pickle.loads(pickle.dumps(response))
        assert (made.content, made.url, made.status_code) == (response.content, response.url, 200)


# Timeouts


def test_a_number_is_the_total_of_a_session_and_a_limit_of_phases_of_an_adapter() -> None:
    with serving(lambda peer: peer.wait_until_gone()) as silent:
        with mesh_of(silent, retry={"max_retries": 1, "on": ["5xx", "reset"]}) as mesh:
            with pytest.raises(meshlib.DeadlineExceeded) as total:
                session(mesh, "orders").get("/", timeout=0.05)
            own = mesh.attach(requests.Session())
            for given in (0.05, (3, 0.05), Timeout(read=0.05)):
                with pytest.raises(meshlib.AttemptTimeout) as phase:
                    own.get("http://orders/", timeout=given)
                assert isinstance(phase.value, requests.ReadTimeout)
            with pytest.raises(meshlib.DeadlineExceeded):
                own.get("http://orders/", timeout=Timeout(total=0.05))
    assert isinstance(total.value, requests.ReadTimeout)
    assert total.value.record is not None and total.value.record.limit == "client"


@pytest.mark.parametrize("timeout", [0, -1, float("nan"), "2s", (0, 1), (1, 2, 3)])
def test_a_timeout_that_is_none_is_refused(orders: Any, timeout: Any) -> None:
    with pytest.raises(ValueError, match=r"(?i)timeout"):
        orders.get("/x", timeout=timeout)


# Outside and around


class Noting(requests.adapters.BaseAdapter):
    """What is asked of the adapter that serves what is outside."""

    def __init__(self) -> None:
        super().__init__()
        self.given: list[Any] = []
        self.closed = 0

    def send(self, request: Any, **given: Any) -> requests.Response:
        self.given.append(given)
        response = requests.Response()
        response.status_code, response.request, response.url = 200, request, request.url
        response.raw = io.BytesIO(b"outside")
        return response

    def close(self) -> None:
        self.closed += 1


def test_outside_all_is_as_given(mesh: Mesh, monkeypatch: pytest.MonkeyPatch) -> None:
    noting = Noting()
    own = requests.Session()
    own.mount("https://", adapter(mesh, fallback=noting))
    proxies = {"https": "http://proxy:1"}
    with own, meshlib.detached():
        own.get("https://example.com/", timeout=(1, 2), verify="/ca", cert="/cert", proxies=proxies, stream=True)
    (given,) = noting.given
    assert given == {"stream": True, "timeout": (1, 2), "verify": "/ca", "cert": "/cert", "proxies": proxies}
    assert noting.closed == 1


def test_the_environment_is_searched_for_proxies_only_for_what_leaves_the_mesh(
    mesh: Mesh, orders: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    searched: list[str] = []

    def search(url: str, no_proxy: str | None = None) -> dict[str, str]:
        searched.append(url)
        return {"http": "http://proxy:1"}

    monkeypatch.setattr("requests.sessions.get_environ_proxies", search)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/ca")
    settings: Any = orders.merge_environment_settings
    assert settings("http://orders/", {}, None, None, None) == {
        "proxies": {},
        "stream": False,
        "verify": "/ca",
        "cert": None,
    }
    assert orders.get("/x").content == b"/x"
    assert not searched
    outside = settings("http://example.com/", {}, None, None, None)
    assert (dict(outside["proxies"]), outside["verify"]) == ({"http": "http://proxy:1"}, "/ca")
    with mesh_of(mode="off") as off, session(off, "orders") as plain:
        plain.merge_environment_settings("http://orders/", {}, None, None, None)
    assert searched == ["http://example.com/", "http://orders/"]


@pytest.mark.parametrize("timeout", [None, 60, (60, None), Timeout(read=60)], ids=str)
def test_outside_no_phase_goes_beyond_the_deadline(mesh: Mesh, timeout: Any) -> None:
    noting = Noting()
    own = requests.Session()
    own.mount("https://", adapter(mesh, fallback=noting))
    with meshlib.timeout("5s"):
        own.get("https://example.com/", timeout=timeout)
    given = noting.given[0]["timeout"]
    phases = (given.connect_timeout, given.total) if isinstance(given, Timeout) else given
    assert all(0 < phase <= 5 for phase in phases)


def test_attach_keeps_what_was_mounted(mesh: Mesh) -> None:
    own, noting = requests.Session(), Noting()
    own.mount("https://example.com/", noting)
    own.mount("mock://", noting)
    assert mesh.attach(own) is own
    made = dict(own.adapters)
    assert mesh.attach(own).adapters == made
    assert own.get("https://example.com/").content == b"outside"
    assert own.adapters["mock://"] is noting
    with mesh_of() as other:
        other.attach(own)
    assert own.adapters["https://example.com/"].fallback is noting  # type: ignore[attr-defined]


def test_a_session_of_one_mesh_changes_over_to_another(mesh: Mesh, origin: Origin) -> None:
    with Mesh({"discovery": []}) as other, session(other, "orders") as moved:
        mesh.attach(moved)
        assert moved.get("/x").content == b"/x"
    assert origin.seen[0].header("x-envoy-attempt-count") == "1"


def test_sessions_are_neither_pickled_nor_copied(orders: Any) -> None:
    for act in (pickle.dumps, copy.deepcopy):
        with pytest.raises(TypeError, match="make a session of its own in each process"):
            act(orders)


def test_a_session_is_for_many_threads(orders: Any, mesh: Mesh) -> None:
    failures: list[BaseException] = []

    def call() -> None:
        try:
            for _ in range(20):
                assert orders.get("/x").content == b"/x"
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=call) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert in_flight(mesh) == 0


def test_tenacity_sees_a_response(served: Any) -> None:
    import tenacity

    def failed(response: Any) -> bool:
        return bool(response.status_code == 200 and response.headers["x-again"] == "yes")

    retry = meshlib.Retry(retry=tenacity.retry_if_result(failed), backoff={"base": "1ms", "max": "1ms"})
    turns = lambda seen, number: ok(x_again="yes" if number == 1 else "no")  # noqa: E731
    with origins(turns) as ((origin,), servers), mesh_of(*servers) as mesh, mesh.policy(retry=retry):
        assert session(mesh, "orders").get("/").headers["x-again"] == "no"
    assert len(origin.seen) == 2


@pytest.mark.parametrize("cls", _AS_REQUESTS, ids=lambda cls: cls.__name__)
def test_each_error_is_one_of_requests_and_can_be_pickled(cls: type[errors.MeshError]) -> None:
    request = requests.Request("GET", "http://orders/").prepare()
    error = as_requests(cls("why", service="orders"), request)
    assert isinstance(error, cls) and isinstance(error, RequestException)
    assert (error.request, error.response, str(error)) == (request, None, "orders: why")
    made = pickle.loads(pickle.dumps(error))
    assert (type(made), str(made), made.service, made.request) == (type(error), str(error), "orders", None)
    assert str(error.without_frames()) == str(error)


def test_a_host_header_of_one_s_own_goes_out(orders: Any, origin: Origin, mesh: Mesh) -> None:
    orders.get("/x", headers={"Host": "elsewhere", "User-Agent": None, "X-Bytes": b"raw"})
    assert origin.seen[0].header("host") == "elsewhere"
    assert origin.seen[0].header("x-bytes") == "raw"
    assert origin.seen[0].count("user-agent") == 0


def test_a_name_that_nobody_knows_is_a_host_outside() -> None:
    with origins(answer) as (_, (server,)), Mesh({"discovery": []}) as mesh:
        noting = Noting()
        own = requests.Session()
        own.mount("http://", adapter(mesh, fallback=noting))
        assert own.get("http://nobody/").content == b"outside"
        assert own.get(f"http://{address(server)}/").content == b"outside"
