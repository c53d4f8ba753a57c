"""The callee's side: what a request being served brings along, and when it is no longer worth serving.

What a user adds, each in the idiom of its framework:

    asgi, wsgi, django          the middleware, three times
    fastapi, flask              a lifespan and dependencies; an extension

The way of a request through it:

    serving                     the steps in front of the application, in their order; what was served, counted
    intake, override            what a request brings along, and who is believed; a header for development
    endpoints, health           what the mesh answers itself: whether this process lives, and is ready
    hopeless                    what cannot finish in time
    admission                   waits for a place, as `meshlib.policy.serving_queue` decides
    waiting, departure          the steps that may wait; whether the client goes away meanwhile
    served                      one request in flight, to its last byte
    pieces                      what runs of it at different times, with its scope
    cancellation                ends what nobody waits for
    refusal, closing            responses in the place of the application; ``Connection: close``
    interface                   whether an application is one of the server's interface

What callers are told of the load:

    load, latency_bins          the report, and how long requests take beside others
    loop_lag, backlog           how late a loop is; what waits to be accepted
    workers                     all workers of one port together

How the process comes and goes:

    lifecycle, signals          in the registry while its port answers, and drained before it ends; who hears of that
    asgi_lifespan, uvicorn, hypercorn, gunicorn, werkzeug
                                the same, server by server
"""
