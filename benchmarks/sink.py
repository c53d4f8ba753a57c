"""A server that swallows long uploads at the speed of the socket: `python sink.py PORT`.

It reads a body of the announced length whole, throws it away, and answers with its length. nginx would either answer
before the body is there or write it to the disk.
"""

from __future__ import annotations

import re
import socket
import sys
import threading

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)\r\n", re.IGNORECASE)
_EXPECT = re.compile(rb"\r\nexpect: *100-continue\r\n", re.IGNORECASE)


def serve(port: int) -> None:
    """Until the process ends."""
    with socket.create_server(("127.0.0.1", port), backlog=64) as listener:
        while True:
            connection, _ = listener.accept()
            threading.Thread(target=_swallow, args=(connection,), daemon=True).start()


def _swallow(connection: socket.socket) -> None:
    buffer = memoryview(bytearray(1 << 20))
    with connection:
        while head := _head(connection):
            lines, _, rest = head.partition(b"\r\n\r\n")
            length = _LENGTH.search(lines + b"\r\n")
            wanted = int(length[1]) if length else 0
            if _EXPECT.search(lines + b"\r\n"):
                connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
            left = wanted - len(rest)
            while left > 0:
                count = connection.recv_into(buffer, min(left, len(buffer)))
                if not count:
                    return
                left -= count
            body = b"%d" % wanted
            connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body))


def _head(connection: socket.socket) -> bytes:
    """A head, and what came with it of the body; nothing at the end of the connection."""
    data = b""
    while b"\r\n\r\n" not in data:
        more = connection.recv(65536)
        if not more:
            return b""
        data += more
    return data


if __name__ == "__main__":
    serve(int(sys.argv[1]))
