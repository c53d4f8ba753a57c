"""Timeouts, retries and sessions of a rule.

Where a rule has a ``retry``, attempts without a response are retried besides its codes (GEP-1731), those that the
backend's timeout cut off included. Its back-off is the least wait, so the jitter is added to it; the waits double up to
ten times the first.
"""

from __future__ import annotations

from typing import Any, Final

from meshlib.config.dialects.durations import written
from meshlib.config.dialects.fields import Reader
from meshlib.policy.settings import CallPolicy

__all__ = ["read_retry", "read_session", "read_timeouts"]

_NO_RESPONSE: Final = ("connect-failure", "reset")
_USUAL_TIMEOUT_S: Final = CallPolicy().timeout_s or 0.0
_LONGEST_WAIT: Final = 10


def read_timeouts(reader: Reader | None) -> dict[str, Any]:
    """``timeout`` and ``per_try_timeout``; 0 stands for none."""
    if reader is None:
        return {}
    request_s, attempt_s = reader.duration("request"), reader.duration("backendRequest")
    reader.rest()
    native: dict[str, Any] = {}
    if request_s is not None:
        native["timeout"] = _limit(request_s)
    if attempt_s is not None:
        native["per_try_timeout"] = _limit(attempt_s)
        if request_s and attempt_s > request_s:
            reader.wrong("backendRequest", "is longer than request, which spans all attempts")
        elif request_s is None and (attempt_s > _USUAL_TIMEOUT_S) and "timeout" not in reader.draft.context.defaults:
            native["timeout"] = None  # ours would cut the attempt short
    return native


def _limit(seconds: float) -> str | None:
    return written(seconds) if seconds else None


def read_retry(reader: Reader | None) -> dict[str, Any]:
    """``retry``; empty without one."""
    if reader is None:
        return {}
    codes, attempts, backoff_s = _codes(reader), reader.integer("attempts"), reader.duration("backoff")
    reader.rest()
    retry: dict[str, Any] = {}
    if attempts is not None:
        retry["max_retries"] = attempts
    if codes:
        retry["on"] = [*_NO_RESPONSE, *codes]
    if backoff_s:
        wait = {"base": written(backoff_s), "max": written(_LONGEST_WAIT * backoff_s), "jitter": "additive"}
        retry["backoff"] = wait
    if reader.draft.context.settings.retry_unsafe:
        retry["unsafe"] = True
    return {"retry": retry} if retry else {}


def _codes(reader: Reader) -> list[int]:
    given, codes = reader.raw("codes"), []
    for index, code in enumerate(given if isinstance(given, list) else []):
        if isinstance(code, int) and not isinstance(code, bool) and 400 <= code <= 599:
            codes.append(code)
        else:
            reader.draft.note(reader.resource.place(*reader.path, "codes", index), "400 to 599 is expected", "wrong")
    if given is not None and not isinstance(given, list):
        reader.wrong("codes", "a list is expected")
    return codes


def read_session(reader: Reader | None) -> dict[str, Any]:
    """``session_affinity``; empty without one.

    Up to version 1.4 the cookie was described by ``sessionName`` and ``cookieConfig``.
    """
    if reader is None:
        return {}
    kind, cookie, until_s = reader.text("type") or "Cookie", reader.map("cookie"), reader.duration("absoluteTimeout")
    name, older = reader.text("sessionName"), reader.map("cookieConfig")
    reader.ignore("idleTimeout", "a session ends with its cookie, however long nothing was asked")
    reader.skip("header")
    reader.rest()
    if kind == "Header":
        reader.draft.note(reader.place("type"), "is not honoured: sessions are kept by a cookie alone", "ignored")
        return {}
    if kind != "Cookie":
        reader.wrong("type", f"{kind!r} is none of Cookie, Header")
        return {}
    path, lifetime = None, "Session"
    if older is not None:
        lifetime = older.text("lifetimeType") or lifetime
        older.rest()
    if cookie is not None:
        name, path = cookie.text("name") or name, cookie.text("path")
        lifetime = cookie.text("lifetimeType") or lifetime
        cookie.rest()
    session: dict[str, Any] = {"cookie": name or "meshlib-endpoint"}
    if path is not None:
        session["path"] = path
    if until_s is not None and lifetime == "Permanent":
        session["ttl"] = written(until_s)
    elif until_s is not None:
        text = "is not honoured: a session lasts as long as the client keeps the cookie"
        reader.draft.note(reader.place("absoluteTimeout"), text, "ignored")
    return session
