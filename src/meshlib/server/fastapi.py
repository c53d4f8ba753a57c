"""For FastAPI: ``app.add_middleware(MeshMiddleware, mesh=mesh)``. See `meshlib.server.asgi`."""

from __future__ import annotations

from meshlib.server.asgi import MeshMiddleware

__all__ = ["MeshMiddleware"]
