"""What a type checker sees of the public names. `python3 dev.py types` and a test read this file; nothing runs it."""

from typing import assert_type

import httpx
import httpx2

import meshlib
from meshlib import (
    Backend,
    Backoff,
    Caller,
    DirectResponse,
    Documents,
    Fault,
    FaultAbort,
    FaultDelay,
    HashCookie,
    HashOn,
    HeaderCondition,
    HeaderEdit,
    HeaderEdits,
    LoadBalancing,
    Match,
    Mesh,
    Mirror,
    OverrideAllowed,
    Overrides,
    PathMatch,
    RateLimitedBackoff,
    Record,
    Redirect,
    RegexRewrite,
    ResetHeader,
    Retry,
    RetryBudget,
    Rewrite,
    Ring,
    Route,
    Service,
    SessionAffinity,
    Sticky,
    ValueMatch,
    Watch,
)
from meshlib.adapters import httpx2 as meshed_httpx2


def a_mesh_from_typed_parts() -> Mesh:
    return Mesh(service="checkout", services={"orders": Service(timeout="2s", retry=Retry(max_retries=1))})


def a_service_whose_users_stick_to_endpoints(client: httpx.Client) -> Service:
    client.get("/", extensions=meshlib.call(hash_key="user-7"))
    client.get("/", extensions=meshlib.call(metadata_match={"version": "v2"}))
    balancing = LoadBalancing(
        policy="ring_hash",
        ring=Ring(min_size=4096, hash="murmur2"),
        hash_balance_percent=150,
        session_affinity=SessionAffinity(cookie="at", ttl="1h", statuses=["healthy", "draining"]),
    )
    hash_on = [HashOn(header="x-user", terminal=True), HashOn(cookie=HashCookie(name="route", ttl="1h"))]
    return Service(load_balancing=balancing, hash_on=hash_on)


def a_service_with_retries_and_faults() -> Service:
    retry = Retry(
        on=["gateway-error", 429, "retriable-headers"],
        backoff=Backoff(base="10ms", jitter="equal"),
        rate_limited_backoff=RateLimitedBackoff(reset_headers=[ResetHeader(name="retry-after")], max_interval="1m"),
        retriable_status_codes=[409],
        retriable_headers=[HeaderCondition(name="x-verdict", exact="again")],
        retriable_methods=["GET"],
    )
    fault = Fault(delay=FaultDelay(fixed="2s", percent=10), abort=FaultAbort(status=503, percent=1), max_active=5)
    return Service(retry=retry, retry_budget=RetryBudget(kind="rate", percent=10, ttl="5s"), fault=fault)


def routes_of_every_kind() -> Mesh:
    testers = Match(
        path=PathMatch(path_prefix="/v2"), method=["GET", "HEAD"], caller=Caller(labels={"app": "checkout"}), percent=10
    )
    routes = [
        Route(
            name="testers",
            match=[testers, Match(cookies={"user": ValueMatch(prefix="test-")})],
            backends=[Backend(subset="v1", weight=90), Backend(service="orders-next", weight=10)],
            sticky=Sticky(cookie="user"),
            rewrite=Rewrite(prefix="/v1", host="orders.internal"),
            headers=HeaderEdits(request=HeaderEdit(set={"x-canary": "1"}, remove=["x-debug"])),
            mirror=[Mirror(service="shadow", percent=5), Mirror(subset="v1")],
        ),
        Route(match=[Match(path=PathMatch(exact="/old"))], redirect=Redirect(path="/new", status=308)),
        Route(match=[Match(method="TRACE")], direct_response=DirectResponse(status=405)),
        Route(
            match=[Match(path=PathMatch(regex="/x.*"))],
            rewrite=Rewrite(regex=RegexRewrite(pattern="^/x", substitution="/y")),
        ),
    ]
    return Mesh(
        service="checkout",
        namespace="shop",
        labels={"app": "checkout"},
        services={"orders": Service(subsets={"v1": {"version": "v1"}}, routes=routes)},
        documents=Documents(strict=True),
        overrides=Overrides(allow=[OverrideAllowed(service="users", to="users-dev-*")]),
    )


async def a_configuration_that_changes(mesh: Mesh) -> None:
    Mesh("mesh.yaml", watch=True)
    Mesh(service="checkout", include=["mesh.d/*.yaml"], watch=Watch(interval="2s"))
    Mesh.from_file("mesh.yaml", watch=False)
    assert_type(mesh.reload(), tuple[str, ...])
    assert_type(await mesh.areload({"services": {}}), tuple[str, ...])


def clients_are_httpxs(mesh: Mesh) -> None:
    assert_type(mesh.client("orders"), httpx.Client)
    assert_type(mesh.async_client("orders"), httpx.AsyncClient)
    assert_type(mesh.attach(httpx.Client()), httpx.Client)
    assert_type(mesh.attach(httpx.AsyncClient()), httpx.AsyncClient)
    httpx.Client(transport=mesh.transport())
    httpx.AsyncClient(transport=mesh.async_transport())


def clients_are_httpx2s(mesh: Mesh) -> None:
    assert_type(meshed_httpx2.client(mesh, "orders"), httpx2.Client)
    assert_type(meshed_httpx2.async_client(mesh, "orders", timeout=2), httpx2.AsyncClient)
    assert_type(mesh.attach(httpx2.Client()), httpx2.Client)
    httpx2.Client(transport=meshed_httpx2.transport(mesh))
    httpx2.AsyncClient(transport=meshed_httpx2.async_transport(mesh))


def a_record_may_be_missing(response: httpx.Response) -> None:
    assert_type(meshlib.record(response), Record | None)


def errors_carry_their_record(error: meshlib.MeshError) -> None:
    assert_type(error.record, Record | None)
    if isinstance(error, meshlib.CircuitOpen):
        assert_type(error.retry_after_s, float)


def a_policy_block_keeps_what_it_decorates(mesh: Mesh) -> None:
    @mesh.policy(timeout="800ms")
    def sync(order: int) -> str:
        return str(order)

    @mesh.policy(retry=Retry(max_retries=0))
    async def asynchronous(order: int) -> str:
        return str(order)

    assert_type(sync(1), str)


async def lifecycles_are_context_managers() -> None:
    with Mesh() as mesh:
        mesh.wait_ready("orders", timeout="5s")
    async with Mesh() as other, other.register(port=8000):
        await other.ready("orders", timeout=5)
        assert_type(meshlib.current().remaining, float | None)


def events_reach_a_function(mesh: Mesh) -> None:
    @mesh.on_event
    def told(event: object) -> None:
        print(event)
