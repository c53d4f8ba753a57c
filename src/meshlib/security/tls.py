"""TLS contexts for connections to services.

Building a context costs about 20 ms, most of it for parsing the system's roots, so there is one per settings, built
once and shared by all threads and loops. A context is never changed once it is shared: what differs per connection is
only the server's name, which is given to the handshake.
"""

from __future__ import annotations

import os
import ssl
import threading

from meshlib.config.settings import TlsSettings
from meshlib.errors import TLSFailed

__all__ = ["client_context", "forget_contexts", "tls_failed"]

_contexts: dict[tuple[TlsSettings, bool], ssl.SSLContext] = {}
_lock = threading.Lock()


def client_context(settings: TlsSettings, *, http2: bool = False) -> ssl.SSLContext:
    """The shared context for these settings; the same object each time.

    Args:
        settings: roots, own certificate, and whether to verify the peer.
        http2: offer ``h2`` before ``http/1.1`` by ALPN. Without it, nothing is offered.

    Raises:
        TLSFailed: if a file of the settings cannot be read or does not hold what it should; not retryable.
    """
    key = (settings, http2)
    context = _contexts.get(key)
    if context is None:
        # Built outside of the lock, which is held for no file; of two that are built at once, the first is kept.
        built = _build(settings, http2)
        with _lock:
            context = _contexts.setdefault(key, built)
    return context


def forget_contexts() -> None:
    """Build contexts anew at next use, with what the files hold then. Connections that are open keep theirs."""
    with _lock:
        _contexts.clear()


def tls_failed(error: Exception, endpoint: str, server_name: str) -> TLSFailed:
    """The error for a handshake that failed; `error` is what `ssl` or the identity check raised."""
    if isinstance(error, ssl.SSLCertVerificationError):
        reason = getattr(error, "verify_message", "") or str(error.args[-1] if error.args else error)
        why = f"its certificate is not that of {server_name!r}: {reason}"
        hint = "; check the server name, and `ca_file` if a private CA signed it"
        # Another try at the same endpoint would meet the same certificate, but another endpoint may be well.
        return TLSFailed(f"TLS with {endpoint} failed: {why}{hint}", endpoint=endpoint)
    why = getattr(error, "reason", None) or str(error) or type(error).__name__
    return TLSFailed(f"TLS with {endpoint} (as {server_name!r}) failed: {why}", endpoint=endpoint)


def _build(settings: TlsSettings, http2: bool) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=settings.ca_file, cadata=settings.ca)
    except (OSError, ValueError) as error:
        where = "the configuration" if settings.ca_file is None else repr(settings.ca_file)
        raise _unusable(f"the roots in {where}", error) from None
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if not settings.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if settings.cert_file:
        try:
            context.load_cert_chain(settings.cert_file, settings.key_file, password=_no_password)
        except (OSError, ValueError, _Encrypted) as error:
            raise _unusable(f"the certificate {settings.cert_file!r} with its key", error) from None
    if http2:
        context.set_alpn_protocols(["h2", "http/1.1"])
    return context


class _Encrypted(Exception):
    """The private key is encrypted."""


def _no_password() -> bytes:
    # Without this, OpenSSL would ask on the terminal, and a service would hang at its start.
    raise _Encrypted


def _unusable(what: str, error: Exception) -> TLSFailed:
    # The cause is cut off on purpose: nothing of a key, its path included, may get into a log.
    if isinstance(error, _Encrypted):
        why = "the key is encrypted, and there is no one to ask for its password"
    elif isinstance(error, ssl.SSLError):
        why = error.reason or "not PEM"
    else:
        why = getattr(error, "strerror", None) or type(error).__name__
    return TLSFailed(f"{what} cannot be used: {why}", retryable=False)


def _renew() -> None:
    # Another thread of the parent may have held it.
    global _lock
    _lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew)
