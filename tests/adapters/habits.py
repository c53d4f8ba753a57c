"""What users of httpx do, by its documentation (its quick start, and "advanced"): a table of cases.

Each is a coroutine of a `Kit`, and returns what its user sees, as plain data. They are tried on bare clients and on
those of the mesh, and see the same.
"""

from __future__ import annotations

import io
import os
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

from tests.adapters.habits_kit import Kit, seen

Case = Callable[[Kit], Awaitable[Any]]

CASES: dict[str, Case] = {}


def case(function: Case) -> Case:
    CASES[function.__name__] = function
    return function


# Quick start


@case
async def methods(kit: Kit) -> Any:
    async with kit.client() as client:
        return [
            seen(await client.get("/echo")),
            seen(await client.options("/echo")),
            seen(await client.head("/echo")),
            seen(await client.delete("/echo")),
            seen(await client.post("/echo", data={"k": "v"})),
            seen(await client.put("/echo", content=b"x")),
            seen(await client.patch("/echo", json={"a": [1, None, "é"]})),
            seen(await client.request("PROPFIND", "/echo")),
            seen(await client.request("GET", "/echo", content=b"body of a get")),
        ]


@case
async def parameters(kit: Kit) -> Any:
    async with kit.client(params={"all": "1"}) as client:
        return [
            seen(await client.get("/echo", params=params))
            for params in (
                {"a": "1", "b": ["x", "y"], "none": None, "yes": True},
                [("a", "1"), ("a", "2")],
                "raw=%20x&y",
                kit.httpx.QueryParams({"é": "ü"}),
                None,
                {},
            )
        ] + [seen(await client.get("/echo?in=url", params={"p": "q"})), seen(await client.get("/echo?in=url"))]


@case
async def urls(kit: Kit) -> Any:
    paths = ("/a b/é", "/%2F/%61?x=%2B+", "/a/../b/./c", "/echo#part", "/a?b?c=d&&e", "//double", "/~x;y=1,2'()*!$&")
    async with kit.client(base_url=f"{kit.here}/base/") as client:
        got = [seen(await client.get(path)) for path in paths]
        got += [seen(await client.get("relative")), seen(await client.get("")), seen(await client.get("/"))]
        got += [seen(await client.get(kit.httpx.URL(f"{kit.here}/absolute"))), seen(await client.get(f"{kit.there}/o"))]
        return got


@case
async def json_and_forms(kit: Kit) -> Any:
    async with kit.client() as client:
        return [
            seen(await client.post("/echo", data={"a": ["1", "2"], "b": "ü &="})),
            seen(await client.post("/echo", json="text")),
            seen(await client.post("/echo", json={})),
            seen(await client.post("/echo", content="täxt", headers={"Content-Type": "text/x"})),
            seen(await client.post("/echo")),
            (await client.post("/echo", json={"k": 1})).json()["body"],
        ]


@case
async def uploads(kit: Kit) -> Any:
    form = {"Content-Type": "multipart/form-data; boundary=b0undary"}

    async def chunks() -> AsyncIterator[bytes]:
        for chunk in (b"one", b"two"):
            yield chunk

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "report.txt")
        path.write_bytes(b"content")
        async with kit.client() as client:
            got = []
            with path.open("rb") as file:
                got.append(seen(await client.post("/echo", files={"f": file}, headers=form)))
            files = [("f", ("n.csv", io.BytesIO(b"a,b"), "text/csv", {"X-Part": "1"})), ("g", (None, "text"))]
            got.append(seen(await client.post("/echo", files=files, data={"k": ["v", "w"]}, headers=form)))
            got.append(seen(await client.post("/echo", content=iter((b"one", b"two")) if kit.sync else chunks())))
            if kit.sync:
                with path.open("rb") as file:
                    got.append(seen(await client.put("/echo", content=file)))
            return got


@case
async def headers_of_a_call(kit: Kit) -> Any:
    async with kit.client(headers={"X-Client": "1", "User-Agent": "own"}) as client:
        got = [
            seen(await client.get("/echo", headers={"x-client": "2", "X-Call": "call"})),
            seen(await client.get("/echo", headers=[("x-a", "1"), ("x-a", "2")])),
            seen(await client.get("/echo", headers=kit.httpx.Headers({"X-B": "3"}))),
            seen(await client.get("/echo", headers={"Host": "other.example", "Accept": "text/plain"})),
        ]
        client.headers["X-Later"] = "4"
        del client.headers["X-Client"]
        return [*got, seen(await client.get("/echo"))]


@case
async def codings_and_charsets(kit: Kit) -> Any:
    async with kit.client() as client:
        got = [seen(await client.get(f"/coded?coding={coding}")) for coding in ("gzip", "deflate")]
        got += [
            seen(await client.get(f"/text?{query}"))
            for query in ("type=text/plain", "type=text/plain;charset=latin-1&in=latin-1", "", "in=latin-1", "type=x/y")
        ]
        changed = await client.get("/text?in=latin-1")
        (changed.wrapped if kit.sync else changed).encoding = "latin-1"
        return [*got, changed.text]


@case
async def a_default_encoding(kit: Kit) -> Any:
    got = []
    for default in ("latin-1", lambda content: "utf-16" if b"\0" in content else "latin-1"):
        async with kit.client(default_encoding=default) as client:
            got += [seen(await client.get("/text?in=latin-1")), seen(await client.get("/text?type=text/a"))]
    return got


@case
async def statuses(kit: Kit) -> Any:
    async with kit.client() as client:
        got: list[Any] = []
        for status in (200, 204, 304, 404, 418, 500):
            response = await client.get(f"/echo?status={status}")
            try:
                response.raise_for_status()
                got.append("fine")
            except kit.httpx.HTTPStatusError as error:
                got.append([str(error), error.response.status_code, str(error.request.url)])
        return got


@case
async def headers_of_a_response(kit: Kit) -> Any:
    async with kit.client() as client:
        response = await client.get("/links")
        return [
            response.links,
            response.headers["X-A"],
            response.headers.get_list("x-a"),
            response.headers.get("mixed", "no"),
            response.headers["x-mixed-case"],
            seen(response),
        ]


@case
async def streams(kit: Kit) -> Any:
    async with kit.client() as client:
        got: list[Any] = []
        async with client.stream("GET", "/stream") as response:
            got.append([response.status_code, response.is_closed, "".join(await kit.each(response.aiter_text()))])
        async with client.stream("GET", "/stream") as response:
            got.append(await kit.each(response.aiter_lines()))
        async with client.stream("GET", "/coded?coding=gzip") as response:
            raw = b"".join(await kit.each(response.aiter_raw()))
            got.append([len(raw), response.num_bytes_downloaded, response.is_closed])
        async with client.stream("GET", "/coded?coding=gzip") as response:
            got.append([len(chunk) for chunk in await kit.each(response.aiter_bytes(chunk_size=100))])
        async with client.stream("GET", "/stream") as response:
            got.append([(await response.aread()).decode(), response.text])
        async with client.stream("GET", "/stream?n=500") as response:
            async for _ in response.aiter_bytes():
                break
        got.append(response.is_closed)
        return got


@case
async def a_stream_that_is_not_read(kit: Kit) -> Any:
    async with kit.client() as client:
        got: list[Any] = []
        async with client.stream("GET", "/stream") as response:
            for name in ("content", "text"):
                try:
                    getattr(response, name)
                except kit.httpx.ResponseNotRead:
                    got.append(name)
            try:
                _ = response.elapsed
            except RuntimeError as error:
                got.append(str(error))
        for read in (response.aread, lambda: kit.each(response.aiter_raw())):
            try:
                await read()
            except kit.httpx.StreamError as error:
                got.append(type(error).__name__)
        return got


@case
async def cookies(kit: Kit) -> Any:
    async with kit.client(cookies={"own": "1"}) as client:
        await client.get("/cookies?a=one%3D1%3B%20Path%3D/echo&b=two%3D2%3B%20HttpOnly&c=gone%3D3%3B%20Max-Age%3D0")
        got = [seen(await client.get("/echo")), seen(await client.get("/other")), sorted(client.cookies.items())]
        got.append(seen(await client.get(f"{kit.there}/echo")))
        client.cookies.set("late", "4")
        client.cookies.delete("own")
        got.append(seen(await client.get("/echo")))
        client.cookies = {"fresh": "5"}
        return [*got, seen(await client.get("/echo"))]


@case
async def cookies_of_a_redirect(kit: Kit) -> Any:
    async with kit.client(follow_redirects=True) as client:
        await client.get("/cookies?a=one%3D1")
        return [seen(await client.get("/redirect?to=/echo")), sorted(client.cookies.items())]


@case
async def redirects(kit: Kit) -> Any:
    async with kit.client() as client:
        got = [seen(await client.get("/redirect"))]
        later = (await client.get("/redirect")).next_request
        got.append(seen(await client.send(later)))
        for code in (301, 302, 303, 307, 308):
            for method in ("GET", "POST", "HEAD"):
                body = {"content": b"kept?"} if method == "POST" else {}
                url = f"/redirect?code={code}"
                got.append(seen(await client.request(method, url, follow_redirects=True, **body)))
        got.append(seen(await client.get("/redirect?times=3", follow_redirects=True)))
        got.append(seen(await client.get("/redirect?to=/a%20b%3Fq%3D1%23f", follow_redirects=True)))
        return got


@case
async def redirects_elsewhere(kit: Kit) -> Any:
    options: dict[str, Any] = {"auth": ("user", "pass"), "headers": {"X-Kept": "1"}, "cookies": {"c": "1"}}
    async with kit.client(follow_redirects=True, **options) as client:
        return [
            seen(await client.get(f"/redirect?to={kit.there}/echo")),
            seen(await client.get(f"/redirect?to={kit.here}/echo")),
            seen(await client.get("/redirect", headers={"Authorization": "own"}, auth=None)),
        ]


@case
async def too_many_redirects(kit: Kit) -> Any:
    async with kit.client(follow_redirects=True, max_redirects=2) as client:
        return [await kit.error(lambda: client.get("/redirect?times=3")), (await client.get("/redirect?times=2")).text]


@case
async def redirects_that_lead_nowhere(kit: Kit) -> Any:
    async with kit.client(follow_redirects=True) as client:
        return [
            await kit.error(lambda: client.get("/redirect?to=ftp://x/")),
            await kit.error(lambda: client.get("/redirect?to=http://%5B/")),
        ]


# Advanced: authentication


@case
async def basic_auth(kit: Kit) -> Any:
    async with kit.client() as client:
        got = [
            seen(await client.get("/basic")),
            seen(await client.get("/basic", auth=("user", "pass"))),
            seen(await client.get("/basic", auth=kit.httpx.BasicAuth("user", "pass"))),
            seen(await client.get(f"{kit.here.replace('://', '://user:pass@')}/basic")),
        ]
    async with kit.client(auth=("user", "wrong")) as client:
        return [*got, seen(await client.get("/basic")), seen(await client.get("/basic", auth=None))]


@case
async def digest_auth(kit: Kit) -> Any:
    auth = kit.httpx.DigestAuth("user", "pass")
    async with kit.client(auth=auth) as client:
        got = [await client.get("/digest?x=1"), await client.get("/digest"), await client.post("/digest", content=b"b")]
        return [[each.status_code, each.text, [old.status_code for old in each.history]] for each in got]


@case
async def netrc_auth(kit: Kit) -> Any:
    host = kit.here.partition("://")[2].partition(":")[0]
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "netrc")
        with open(path, "w") as file:
            file.write(f"machine {host} login user password pass\n")
        async with kit.client(auth=kit.httpx.NetRCAuth(path)) as client:
            return seen(await client.get("/basic"))


@case
async def auth_of_ones_own(kit: Kit) -> Any:
    class Fresh(kit.httpx.Auth):  # type: ignore[misc, name-defined]
        requires_request_body = True
        requires_response_body = True

        def auth_flow(self, request: Any) -> Any:
            request.headers["x-body"] = str(len(request.content))
            response = yield request
            if response.status_code == 401:
                request.headers["x-token"] = response.text
                yield request

    def sign(request: Any) -> Any:
        request.headers["x-signed"] = request.method
        return request

    async with kit.client() as client:
        return [
            seen(await client.post("/token", content=b"body", auth=Fresh())),
            seen(await client.post("/token", data={"a": "b"}, auth=Fresh())),
            seen(await client.get("/echo", auth=sign)),
        ]


# Advanced: clients


@case
async def event_hooks(kit: Kit) -> Any:
    told: list[Any] = []

    def asked(request: Any) -> None:
        request.headers["x-hook"] = "1"
        told.append([request.method, str(request.url)])

    def answered(response: Any) -> None:
        told.append([response.status_code, str(response.url), response.is_closed, hasattr(response, "_content")])

    hooks = {"request": [kit.hook(asked)], "response": [kit.hook(answered)]}
    async with kit.client(event_hooks=hooks, follow_redirects=True) as client:
        got = [seen(await client.get("/echo")), seen(await client.get("/redirect"))]
        client.event_hooks = {"request": [], "response": []}
        return [*got, seen(await client.get("/echo")), told]


@case
async def a_hook_that_raises(kit: Kit) -> Any:
    def check(response: Any) -> None:
        response.raise_for_status()

    async with kit.client(event_hooks={"response": [kit.hook(check)]}) as client:
        return [await kit.error(lambda: client.get("/echo?status=404")), (await client.get("/echo")).status_code]


@case
async def requests_of_ones_own(kit: Kit) -> Any:
    async with kit.client(headers={"X-Client": "1"}, cookies={"c": "2"}, params={"p": "3"}) as client:
        built = client.build_request("POST", "/echo", json={"a": 1}, headers={"x-own": "1"})
        alone = kit.httpx.Request("PUT", f"{kit.here}/echo", content=b"x")
        got = [seen(await client.send(built)), seen(await client.send(alone)), seen(await client.send(built))]
        response = await client.send(client.build_request("GET", "/stream"), stream=True)
        before = response.is_closed
        body = await response.aread()
        await response.aclose()
        got.append([before, body.decode(), response.is_closed])
        return got


@case
async def a_client_is_used_up(kit: Kit) -> Any:
    got: list[Any] = []
    async with kit.client() as client:
        await client.get("/echo")
        got.append(client.is_closed)
    got.append(client.is_closed)
    try:
        await client.get("/echo")
    except RuntimeError as error:
        got.append(str(error))
    return got


@case
async def mounts(kit: Kit) -> Any:
    mock = kit.httpx.MockTransport(lambda request: kit.httpx.Response(299, text=f"mounted {request.url}"))
    patterns = {"all://mounted.example": mock, "http://*.wild.example": mock, f"{kit.there}": mock}
    async with kit.client(mounts=patterns) as client:
        return [
            *[(await client.get(url)).text for url in ("http://mounted.example/x", f"{kit.there}/z")],
            (await client.get("http://a.wild.example/y")).status_code,
            seen(await client.get("/echo")),
        ]


@case
async def request_extensions(kit: Kit) -> Any:
    async with kit.client() as client:
        return [
            seen(await client.get("/echo", extensions={"target": b"/other?target=1"})),
            seen(await client.get("/echo", extensions={"sni_hostname": "unused.example"})),
            seen(await client.get("/echo", extensions={"timeout": {"connect": 5.0, "read": 5.0}})),
        ]


@case
async def unusable_requests(kit: Kit) -> Any:
    got: list[Any] = []
    async with kit.client() as client:
        for url in ("http://", "ftp://x/", "http://[::", "mailto:a@b", "http://a b/"):
            try:
                await client.get(url)
            except (kit.httpx.HTTPError, kit.httpx.InvalidURL, ValueError) as error:
                bases = [cls.__name__ for cls in type(error).__mro__ if "httpx" in cls.__module__]
                got.append([url, bases[0] if bases else type(error).__name__])
        for options in ({"headers": {"x": "a\nb"}}, {"headers": {"x": None}}, {"headers": 7}, {"params": 7}):
            try:
                await client.get("/echo", **options)
                got.append([repr(options), "fine"])
            except Exception as error:
                bases = [cls.__name__ for cls in type(error).__mro__ if cls.__module__ in ("httpx", "httpx2")]
                got.append([repr(options), bases[0] if bases else type(error).__name__])
    return got


@case
async def timeouts(kit: Kit) -> Any:
    Timeout = kit.httpx.Timeout
    async with kit.client(timeout=Timeout(5.0, read=0.05)) as client:
        got = [client.timeout.as_dict(), await kit.error(lambda: client.get("/wait"))]
        got.append((await client.get("/echo", timeout=Timeout(5.0))).status_code)
    async with kit.client() as client:
        got.append(await kit.error(lambda: client.get("/wait", timeout=0.05)))
        got.append(await kit.error(lambda: client.get("/wait", timeout=Timeout(None, read=0.05))))
        got.append((await client.get("/echo", timeout=None)).status_code)
    return got


@case
async def a_port_where_nobody_listens(kit: Kit) -> Any:
    async with kit.client(base_url="http://127.0.0.1:1") as client:
        return await kit.error(lambda: client.get("/x"))
