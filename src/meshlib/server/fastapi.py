"""For FastAPI: the middleware, a lifespan, and clients as dependencies.

    mesh = Mesh()
    app = FastAPI(lifespan=lifespan(mesh))
    app.add_middleware(MeshMiddleware, mesh=mesh)

    orders = async_client_of(mesh, "orders")
    Orders = Annotated[httpx.AsyncClient, Depends(orders)]

    @app.get("/orders/{number}")
    async def order(number: int, client: Orders) -> dict[str, object]: ...

    app.dependency_overrides[orders] = lambda: a_fake       # in a test

Starlette takes the middleware and the lifespan alike.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from inspect import isasyncgenfunction, iscoroutinefunction, isgeneratorfunction
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from meshlib.context import ContextExecutor
from meshlib.server.asgi import MeshMiddleware
from meshlib.server.asgi_lifespan import Stay

if TYPE_CHECKING:
    import httpx

    from meshlib.mesh import Mesh

__all__ = ["MeshMiddleware", "async_client_of", "bound", "client_of", "lifespan"]

T = TypeVar("T")


def lifespan(
    mesh: Mesh,
    then: Callable[[Any], AbstractAsyncContextManager[Mapping[str, Any] | None]] | None = None,
    *,
    carry_context: bool = False,
) -> Callable[[Any], AbstractAsyncContextManager[dict[str, Any]]]:
    """A lifespan that starts the mesh with the application, and closes it behind: ``FastAPI(lifespan=lifespan(mesh))``.

    When the application has started, the process is registered as soon as its port answers, if ``register:`` says so;
    and when the server is told to end, it drains first (`meshlib.server.lifecycle`).

    Requests find the mesh as ``request.state.mesh``. A closed mesh makes no calls any more, so an application that is
    started several times, as in tests, wants a mesh for each: make both in a function.

    Args:
        mesh: whose services are watched from the start on.
        then: the application's own lifespan, entered behind the mesh and left before it.
        carry_context: make a `meshlib.ContextExecutor` the default executor of the loop.

    Raises:
        TypeError: if `mesh` is none (it is the application where that was given ``lifespan`` itself), or `then` lacks
            its ``@asynccontextmanager``.
    """
    if not hasattr(type(mesh), "lifecycle"):
        raise TypeError(f"a Mesh is expected, not {mesh!r}: FastAPI(lifespan=lifespan(mesh))")
    if isgeneratorfunction(then) or isasyncgenfunction(then) or iscoroutinefunction(then):
        raise TypeError(f"the lifespan {then.__name__} is to be decorated: @contextlib.asynccontextmanager")

    @asynccontextmanager
    async def run(app: Any) -> AsyncIterator[dict[str, Any]]:
        if carry_context:
            ContextExecutor.install(asyncio.get_running_loop())
        async with mesh, nullcontext() if then is None else then(app) as state, Stay(mesh):
            yield {"mesh": mesh, **(state or {})}

    return run


def client_of(mesh: Mesh, service: str) -> Callable[[], Awaitable[httpx.Client]]:
    """A dependency: the `httpx.Client` of a service. One for all requests.

    Two for the same service of one mesh are equal, so ``app.dependency_overrides[client_of(mesh, "orders")]`` replaces
    it wherever it was asked for.

    Raises:
        TypeError, ValueError: at once, if `service` cannot be a name.
    """
    dependency = _Dependency(mesh.client, (service,), {})
    dependency.make()
    return dependency


def async_client_of(mesh: Mesh, service: str) -> Callable[[], Awaitable[httpx.AsyncClient]]:
    """A dependency: the `httpx.AsyncClient` of a service; see `client_of`."""
    dependency = _Dependency(mesh.async_client, (service,), {})
    dependency.make()
    return dependency


def bound(mesh: Mesh, shape: Callable[..., T], service: str, **options: Any) -> Callable[[], Awaitable[T]]:
    """A dependency: a declarative client, ``mesh.bind(shape, service)``; see `client_of`.

    Args:
        mesh: that makes its calls.
        shape: the class whose methods are declared as calls.
        service: that is called.
        options: of `Mesh.bind`.

    Raises:
        TypeError, ValueError: at once, if a call cannot be made of a method.
    """
    dependency = _Dependency(mesh.bind, (shape, service), options)
    dependency.make()
    return dependency


class _Dependency(Generic[T]):
    """What FastAPI calls for each request, and tells from others by its hash."""

    def __init__(self, make: Callable[..., T], arguments: tuple[Any, ...], options: Mapping[str, Any]) -> None:
        self._what = make, arguments
        self._options = options
        self._made: T | None = None

    async def __call__(self) -> T:
        # A coroutine function, since FastAPI would send a plain one to a thread.
        return self.make()

    def make(self) -> T:
        if self._made is None:
            function, arguments = self._what
            self._made = function(*arguments, **self._options)
        return self._made

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Dependency) and (self._what, self._options) == (other._what, other._options)

    def __hash__(self) -> int:
        return hash(self._what)

    def __repr__(self) -> str:
        function, arguments = self._what
        return f"<dependency {function.__name__}{arguments}>"
