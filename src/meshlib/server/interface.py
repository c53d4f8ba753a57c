"""Whether an application can be called as its server's interface calls it: asked once, when a middleware is made."""

from __future__ import annotations

from inspect import signature

__all__ = ["takes"]


def takes(app: object, arguments: int) -> bool:
    """Whether `app` can be called with so many positional arguments, or that cannot be known.

    ASGI's has three (scope, receive, send), WSGI's two (environ, start_response), and what Django gives to a middleware
    one (request).
    """
    try:
        signature(app).bind(*range(arguments))  # type: ignore[arg-type]
    except ValueError:  # it has none that Python knows of, as what is written in C
        return True
    except TypeError:
        return False
    return True
