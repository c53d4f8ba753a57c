"""Has atheris look for bytes of a peer that break what `oracle` says: `nox -s fuzz`, with libFuzzer's options."""

from __future__ import annotations

import os
import sys

import atheris

with atheris.instrument_imports(include=["h11", "meshlib.net", "tests.net.fuzz"]):
    from tests.net.fuzz.oracle import METHODS, check

SEEDS = [
    b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2;a=b\r\nok\r\n0\r\nX: 1\r\n\r\n",
    b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nok",
    b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\nX:\r\nY: \r\n\r\nto the end",
    b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\nhi",
    b"HTTP/1.1 304 Not Modified\r\nContent-Length: 2\r\nConnection: a, close\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
]


def one_input(data: bytes) -> None:
    """The first byte chooses the request, the next two where the rest is split."""
    if len(data) < 3:
        return
    choice, first, second = data[0], data[1], data[2]
    stream = data[3:]
    cuts = range(1, len(stream)) if choice & 8 else [first, first + second]
    check(stream, METHODS[choice & 3], cuts, upgrade=bool(choice & 4))


def write_seeds(directory: str) -> None:
    """A first corpus, each seed with each request."""
    for number, seed in enumerate(SEEDS):
        for choice in (0, 1, 4, 8):
            with open(f"{directory}/seed-{number}-{choice}", "wb") as file:
                file.write(bytes([choice, 17, 9]) + seed)


if __name__ == "__main__":
    for argument in sys.argv[1:]:
        if os.path.isdir(argument):
            write_seeds(argument)
    atheris.Setup(sys.argv, one_input)
    atheris.Fuzz()
