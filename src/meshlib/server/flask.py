"""For Flask: ``MeshExtension(mesh).init_app(app)``, with an application factory or without.

In views, `current_mesh` is the mesh of the application that serves the request.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

try:
    from flask import current_app, request
except ImportError as error:
    raise ImportError('this extension needs Flask: pip install "meshlib-http[flask]"', name="flask") from error
from werkzeug.local import LocalProxy

from meshlib.server.intake import KEY, HasSettings, expect_mesh
from meshlib.server.refusal import refusal_for
from meshlib.server.wsgi import MeshMiddleware

if TYPE_CHECKING:
    import httpx
    from flask import Flask, Response

    from meshlib.mesh import Mesh
    from meshlib.server.load import LoadReporter

__all__ = ["MeshExtension", "current_mesh"]

_NAME, _SETTING, _CLIENTS = "meshlib", "MESHLIB_MESH", "meshlib.clients"

current_mesh: Mesh = LocalProxy(lambda: current_app.config.get(_SETTING))  # type: ignore[assignment]
"""The mesh of the application whose context this is; falsy where its extension has none."""


class MeshExtension:
    """Lets every meshed call inside a view, sync or async, inherit what came with the request being served.

    It puts `meshlib.server.wsgi.MeshMiddleware` around ``app.wsgi_app`` and itself into ``app.extensions["meshlib"]``.
    An application whose ``config["MESHLIB_MESH"]`` is a mesh has that one: a test brings its own so.

    Args:
        mesh: whose settings hold, of applications without one of their own; None for the defaults.
        app: initialized at once, where there is no application factory.
        map_errors: answer 504 or 503 for the error of a meshed call that no error handler of the application took,
            instead of 500: see `meshlib.server.refusal.refusal_for`.
        load: tells trusted peers how loaded this process is.

    Raises:
        TypeError: if `mesh` is none. The application, which other extensions take first, comes second here.
    """

    def __init__(
        self,
        mesh: HasSettings | None = None,
        app: Flask | None = None,
        *,
        map_errors: bool = True,
        load: LoadReporter | None = None,
    ) -> None:
        expect_mesh(mesh)
        self.mesh = mesh
        self._load = load
        self._map_errors = map_errors
        if app is not None:
            self.init_app(app)

    def init_app(self, app: Flask) -> None:
        """Add the mesh to `app`. Once more does nothing; one extension may serve several applications.

        Raises:
            RuntimeError: if `app` has another extension of the mesh.
            ConfigError: if a trusted peer is not written as CIDR.
        """
        present = app.extensions.get(_NAME)
        if present is self:
            return
        if present is not None:
            raise RuntimeError(f"{app!r} has a MeshExtension already; one application belongs to one mesh")
        mesh = app.config.get(_SETTING)
        if mesh is None:
            mesh = app.config[_SETTING] = self.mesh
        app.wsgi_app = MeshMiddleware(  # type: ignore[method-assign]
            app.wsgi_app, mesh, map_errors=self._map_errors, load=self._load
        )
        if self._map_errors:
            _answer_uncaught(app)
        app.extensions[_NAME] = self

    def client(self, service: str) -> httpx.Client:
        """The client of a service, by the mesh of the current application: one for all its requests.

        Raises:
            RuntimeError: without an application context, or where the application has no mesh.
        """
        clients: dict[str, httpx.Client] = current_app.extensions.setdefault(_CLIENTS, {})
        client = clients.get(service)
        if client is None:
            mesh: Mesh | None = current_app.config.get(_SETTING)
            if mesh is None:
                raise RuntimeError(f"{current_app!r} has no mesh to make calls by: MeshExtension(Mesh())")
            client = clients[service] = mesh.client(service)
        return client


def _answer_uncaught(app: Flask) -> None:
    """Answer errors of the mesh where Flask would answer 500: after all error handlers of the application.

    A handler registered with ``errorhandler()`` would come before the application's own for a wider class.
    """
    otherwise = app.handle_exception

    def handle_exception(e: Exception) -> Response:
        arrival = request.environ.get(KEY)
        refusal = None if arrival is None else refusal_for(e, trusted=arrival.trusted)
        if refusal is None:
            return otherwise(e)
        response = app.response_class(refusal.body, refusal.status.value, list(refusal.headers))
        return app.finalize_request(response, from_error_handler=True)

    app.handle_exception = handle_exception  # type: ignore[method-assign]
