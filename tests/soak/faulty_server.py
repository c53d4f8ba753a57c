"""A server for long runs: quick, and wrong now and then, in every way that a connection can go wrong.

    python -m tests.soak.faulty_server SEED

It prints its port, and ends when its standard input does.
"""

from __future__ import annotations

import asyncio
import random
import re
import socket
import struct
import sys
from typing import cast

BODY = b'{"order": 42, "state": "shipped"}'
PLAIN = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (len(BODY), BODY)
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(BODY), BODY)
CLOSING = PLAIN.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n", 1)
BUSY = b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n"
_LENGTH = re.compile(rb"content-length: (\d+)", re.IGNORECASE)


class Server(asyncio.Protocol):
    """One connection; about one answer in fifty is a fault."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._buffer = b""
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while (end := self._buffer.find(b"\r\n\r\n")) >= 0:
            length = _LENGTH.search(self._buffer, 0, end)
            whole = end + 4 + (int(length[1]) if length else 0)
            if len(self._buffer) < whole:
                return
            self._buffer = self._buffer[whole:]
            self._answer()

    def _answer(self) -> None:
        draw, write = self._rng.randrange(500), self._transport.write
        if draw == 0:  # a reset instead of an answer
            self._reset()
        elif draw == 1:  # a reset in the middle of the body
            write(PLAIN[:-7])
            asyncio.get_running_loop().call_later(0.001, self._reset)
        elif draw == 2:  # the end in the middle of the head
            write(PLAIN[:21])
            self._transport.close()
        elif draw == 3:
            write(CLOSING)
            self._transport.close()
        elif draw == 4:  # closes without having said so
            write(PLAIN)
            self._transport.close()
        elif draw == 5:  # more than it was asked
            write(PLAIN + PLAIN)
        elif draw == 6:
            write(BUSY)
        elif draw == 7:  # in two pieces
            write(PLAIN[:-5])
            asyncio.get_running_loop().call_later(0.002, write, PLAIN[-5:])
        elif draw < 50:
            write(CHUNKED)
        else:
            write(PLAIN)

    def _reset(self) -> None:
        sock = self._transport.get_extra_info("socket")
        if sock is not None and sock.fileno() >= 0:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._transport.abort()


async def _main(seed: int) -> None:
    rng, loop = random.Random(seed), asyncio.get_running_loop()
    server = await loop.create_server(lambda: Server(rng), "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(_main(int(sys.argv[1])))
