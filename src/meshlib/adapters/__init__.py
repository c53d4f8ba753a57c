"""The caller's side: what stands between a client library and the wire.

For every library:

    plane                       all that is needed to make calls
    options, outcome            what a caller says of a call, and the record that it can ask for
    exchange                    one call on its way, for both of
    sync_driver, async_driver   carry out what `meshlib.policy.call` asks for
    body, clock                 request bodies, and whether they can be had again; time
    observe                     ``mode: observe``
    attach                      which adapter knows a client that exists
    plan, reasons, readiness    a dry run, why not, waiting for endpoints

For httpx:

    httpx                       transports, on top of
    httpx_core                  which way a request goes
    httpx_streams, httpx_errors bodies and errors, as httpx has them
    httpx_clients               clients, which tell the transport more than httpx would
    httpx_lean                  calls that leave out what httpx would do for nothing: `httpx_lean_client` says which,
                                `httpx_lean_url` where they go, `httpx_lean_response` what they give
    httpx_wire                  httpx's own transports as the wire: ``wire: stock`` and ``transport=``

For requests and aiohttp, in `requests` and `aiohttp`, with what belongs to each in files named after it:

    ways                        which way a request goes
    reading, translated         responses that the caller reads, errors
    requests_*, aiohttp_*       bodies, responses and errors as the library has them; its own last hop
"""
