"""Redirects: where the caller is sent.

Source: Envoy's ``Utility::newUri`` and ``processRequestHost`` (``source/common/http/utility.cc``). A port that is its
scheme's own is not written, as Istio and the Gateway API have it.
"""

from __future__ import annotations

from typing import Final

from meshlib.routing.actions import Redirect
from meshlib.routing.match import PathMatch, RequestView
from meshlib.routing.rewrite import rewrite_path, sendable

__all__ = ["location_of"]

_PORTS: Final = {"http": 80, "https": 443}


def location_of(redirect: Redirect, request: RequestView, matched: PathMatch | None) -> str:
    """The absolute URL for ``Location``.

    Args:
        redirect: says what of the request's own URL changes.
        request: that is answered.
        matched: the condition on the path by which its route was taken.
    """
    scheme = redirect.scheme or request.scheme
    port = redirect.port
    host = _host(request, scheme, port is not None) if redirect.host is None else redirect.host
    if port is not None and port != _PORTS.get(scheme):
        host = f"{host}:{port}"
    path, given, query = (redirect.path or "").partition("?")
    if given:  # its own query stands for that of the request, and is never left out
        return f"{scheme}://{host}{sendable(path)}?{query}"
    path = rewrite_path(redirect, request.path, matched)
    return f"{scheme}://{host}{path}{'' if redirect.strip_query or not request.query else f'?{request.query}'}"


def _host(request: RequestView, scheme: str, replaced: bool) -> str:
    """The request's own host: without its port if that is replaced, or was its scheme's own and the scheme changes."""
    authority = request.authority
    end = authority.rfind("]:") + 1 if authority.startswith("[") else authority.rfind(":")
    if end <= 0:
        return authority
    own = scheme != request.scheme and authority[end + 1 :] == str(_PORTS.get(request.scheme))
    return authority[:end] if replaced or own else authority
