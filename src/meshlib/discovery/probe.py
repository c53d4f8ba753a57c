"""A health check that a process makes of itself: one HTTP request, or one TCP connection, on asyncio alone."""

from __future__ import annotations

__all__ = ["probe"]


async def probe(host: str, port: int, path: str | None, timeout_s: float) -> str | None:
    """Check ``host:port``.

    Args:
        host: an IP address or a name.
        port: 1 to 65535.
        path: an HTTP path that has to answer 2xx, as Consul's HTTP check wants it; None for a connection alone.
        timeout_s: for all of it.

    Returns:
        None if it is well, else what is wrong.
    """
    import asyncio

    try:
        async with asyncio.timeout(timeout_s):
            return await _probe(host, port, path)
    except TimeoutError:
        return f"no answer within {timeout_s:g} s"
    except OSError as error:
        return str(error) or type(error).__name__


async def _probe(host: str, port: int, path: str | None) -> str | None:
    from asyncio import open_connection

    reader, writer = await open_connection(host, port)
    try:
        if path is None:
            return None
        name = f"[{host}]" if ":" in host else host
        head = f"GET {path} HTTP/1.1\r\nhost: {name}:{port}\r\nuser-agent: meshlib\r\nconnection: close\r\n\r\n"
        writer.write(head.encode("latin-1", "replace"))
        await writer.drain()
        status = (await reader.readline()).split(b" ", 2)
        if len(status) < 2 or not status[0].startswith(b"HTTP/1."):
            return "the answer is not HTTP/1"
        return None if status[1][:1] == b"2" else f"HTTP status {status[1].decode('latin-1').strip()}"
    except ValueError:
        return "the answer is not HTTP/1"  # a first line beyond the reader's limit
    finally:
        writer.transport.abort()
