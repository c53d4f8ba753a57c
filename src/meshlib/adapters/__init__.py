"""The caller's side: what stands between a client library and the wire.

For every library:

    plane                       all that is needed to make calls
    options, outcome            what a caller says of a call, and the record that it can ask for
    exchange                    one call on its way, for both of
    shaping, names              the request that a backend gets; the few headers of it that are looked for
    override                    what an override makes of a call
    sync_driver, async_driver   carry out what `meshlib.policy.call` asks for
    sync_hedge, async_hedge     the same, where several attempts may be under way
    body, clock                 request bodies, and whether they can be had again; time
    local_reply                 responses made here
    mirror                      copies of requests
    observe                     ``mode: observe``
    attach                      which adapter knows a client that exists
    plan, doings, reasons       a dry run: what a route would do, and why not another
    readiness, first_routes     waiting for endpoints; for routes that discovery tells
    load_probe                  a probe of one endpoint's load

For httpx and httpx2, which differ in one argument:

    httpx, httpx2               clients and transports, each those of its library
    httpx_library               what is a library's own, and our classes as its own
    httpx_transport             transports, on top of
    httpx_core                  which way a request goes
    httpx_streams, httpx_errors bodies and errors, as the library has them
    httpx_clients               clients, which tell the transport more than the library would
    httpx_lean                  calls that leave out what it would do for nothing: `httpx_lean_client` says which,
                                `httpx_lean_url` where they go, `httpx_lean_response` what they give
    httpx_wire                  the library's own transports as the wire: ``wire: stock`` and ``transport=``
    httpx_network               connections that switched to another protocol
    httpx_proxies               the proxies of the environment, for hosts outside

For requests and aiohttp, in `requests` and `aiohttp`, with what belongs to each in files named after it:

    ways                        which way a request goes
    reading, translated         responses that the caller reads, errors
    requests_*, aiohttp_*       bodies, responses and errors as the library has them; its own last hop

Over the clients for httpx, `declarative`: classes whose methods are calls.
"""
