"""``wire``: what parses HTTP/1.1 beneath a mesh."""

from __future__ import annotations

import pytest

import meshlib
from meshlib import Mesh
from tests.integration.calling import Caller
from tests.net.wire_servers import answering, serving

OLD = b"HTTP/1.1 200 OK\nX-Folded: one\n two\nContent-Length: 3\n\nold"
"""Lines that end in LF alone, and a folded one, as servers of the nineties sent them."""


@pytest.mark.parametrize("by", ["configuration", "environment"])
def test_the_wire_h11_understands_servers_that_the_native_one_refuses(
    caller: Caller, by: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving(answering(OLD)) as server:
        config = {"discovery": [], "services": {"orders": {"endpoints": [f"127.0.0.1:{server.port}"]}}}
        with Mesh(config) as mesh, pytest.raises(meshlib.ProtocolError):
            caller.client(mesh)("GET", "/")
        if by == "configuration":
            config["wire"] = "h11"
        else:
            monkeypatch.setenv("MESHLIB_WIRE", "h11")
        with Mesh(config) as mesh:
            answer = caller.client(mesh)("GET", "/")
            assert (answer.text, answer.headers["x-folded"]) == ("old", "one two")
