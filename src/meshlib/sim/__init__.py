"""Fleets in virtual time, called by the policies that production runs.

    clock       virtual time
    network     endpoints without queues, and what an attempt is to an endpoint
    server      endpoints with queues: overload
    admission   the queue of the callee's middleware, before such an endpoint
    run         what drives calls: one client over a cluster state made by hand
    client      one client, configured as a mesh is
    fleet       servers and their clients on one clock
    tally       what came of the calls, by second and by percentile
    table       results as a table
    scenarios   published results, and failures of fleets

``python -m meshlib.sim`` runs the scenarios.
"""
