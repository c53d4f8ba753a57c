"""The two ends of a cookie: read from a request's header, written into a response's. As Envoy does both."""

from __future__ import annotations

__all__ = ["cookie_value", "set_cookie"]


def cookie_value(header: str, name: str) -> str:
    """The value of the first cookie of this name, without quotes; empty if there is none.

    Args:
        header: of the request, ``Cookie``.
        name: of the cookie.
    """
    for part in header.split(";"):
        found, equals, value = part.partition("=")
        if equals and found.strip() == name:
            value = value.strip()
            return value[1:-1] if len(value) >= 2 and value[0] == value[-1] == '"' else value
    return ""


def set_cookie(name: str, value: str, path: str, ttl_s: float) -> str:
    """The value of a ``Set-Cookie`` header.

    Args:
        name: a token.
        value: without quotes, spaces, commas or semicolons.
        path: the paths it is for; empty for that of the request.
        ttl_s: of whole seconds; below 1 it lives as long as the client's session.
    """
    age = f"; Max-Age={int(ttl_s)}" if ttl_s >= 1 else ""
    return f'{name}="{value}"{age}{f"; Path={path}" if path else ""}; HttpOnly'
