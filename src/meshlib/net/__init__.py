"""Connections and pools: how bytes move. `SyncEngine` and `AsyncEngine` are the wires of a mesh.

From the mesh down to the socket. What waits is there twice, ``sync_`` for threads and ``async_`` for event loops; what
does not is there once.

    wire                        a seam: what the mesh gives for one attempt, and what it gets back
    sync_engine, async_engine   a wire: one pool for each target; sends once more what a stale connection lost
    body                        the body of a response, and the connection that it holds
    sync_pool, async_pool       who waits for a connection, on top of
    pool                        which connection serves which request: bookkeeping alone
    connection_cap              a limit over the pools of all endpoints of a service
    connect                     opens what a target asks for: a stream by
    sync_dial, async_dial       with `dial` (sockets, and the race between addresses) and `lookup` (names)

    connection                  a seam: what a connection is, whatever it speaks
    sync_http1, async_http1     HTTP/1.1, the bytes of which are the business of a
    framing                     a seam: `http1` on httptools, `http1_h11` on h11; both write by `http1_request`
    sync_http2, async_http2     HTTP/2 (`sync_http2_shared`: one stream for many threads), the bytes of which belong to
    http2                       on h2

    sync_stream                 a socket whose operations end by a deadline
    steps                       the same operations for a thread that has several attempts under way
    async_link                  a transport of asyncio, and waiting for news of it; two protocols are made of it:
    async_stream                keeps what comes until it is read (for TLS to start on, for HTTP/2), and `async_http1`
    health_probe                one active check, on a connection of its own
    fork                        lets go of connections in a forked child
"""
