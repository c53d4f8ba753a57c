"""Whether an application can be called as its server's interface calls it: asked once, when a middleware is made."""

from __future__ import annotations

from meshlib.signature import signature_of

__all__ = ["takes"]


def takes(app: object, arguments: int) -> bool:
    """Whether `app` can be called with so many positional arguments, or that cannot be known.

    ASGI's has three (scope, receive, send), WSGI's two (environ, start_response), and what Django gives to a middleware
    one (request).
    """
    if not callable(app):
        return False
    try:
        # Its own, not that of a function it is wrapped around: that of werkzeug's `Request.application` takes less.
        found = signature_of(app, follow_wrapped=False)
    except (TypeError, ValueError):  # it has none that Python knows of, as what is written in C
        return True
    try:
        found.bind(*range(arguments))
    except TypeError:
        return False
    return True
