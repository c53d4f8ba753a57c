"""A lean call whose response httpx has work with: who sends a request goes on with the response of his own call."""

from __future__ import annotations

import gzip
import threading
from typing import Any

from meshlib.adapters.httpx import MeshClient
from meshlib.adapters.httpx_lean_client import COMPLETE, lean_send
from tests.adapters.support import Origin, mesh_of, ok, origins


def test_threads_that_send_one_request_at_once_each_get_their_own_response() -> None:
    def answer(seen: Any, number: int) -> bytes:
        return ok(gzip.compress(b"%d" % number), content_encoding="gzip")

    with origins(Origin(answer)) as ([origin], [server]), mesh_of(server) as mesh, mesh.client("orders") as client:
        assert isinstance(client, MeshClient)
        transport: Any = client._transport
        request = client.build_request("POST", "/", content=b"x")
        request.extensions["meshlib"] = COMPLETE
        got: list[str] = []

        def send(halfway: Any) -> None:
            call = lean_send(client, request, COMPLETE, None)
            assert call is not None
            assert transport.call(call) is None
            halfway()
            response = transport.handle_request(request)
            response.read()
            got.append(response.text)

        def another() -> None:
            thread = threading.Thread(target=send, args=(lambda: None,))
            thread.start()
            thread.join(10)

        send(another)
        assert got == ["2", "1"]
        assert len(origin.seen) == 2
