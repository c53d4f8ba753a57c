"""Which endpoint of a cluster an attempt goes to. No I/O, no clock, no chance of its own.

    endpoint, cluster           an address that serves a service; what a call is balanced over
    health, load, cells         how well an endpoint is; how loaded; where the numbers lie that each pick compares
    known, alike, usual         what discovery knows of a cluster, whether its members differ, what is usual there
    settings                    what all of this is set to
    succession                  what a cluster keeps when its settings change

Who may be picked, where endpoints differ:

    priority_set                all of it together, over `tiers`, into which the members are sorted
    priority, locality          how much goes to which priority, and to which place
    failover, zone_aware        priorities by place and by label; staying in one's own zone
    subset                      by the metadata of the call
    filter                      by an expression in Consul's language
    subsetting                  a few of many endpoints, for any balancer
    slow_start                  less of a newcomer

Balancers, and what they are made of:

    balancer, table             what one is; all of them by name
    peak_ewma, least_request    by load: of some endpoints the least loaded
    round_robin, random         in turn; by chance
    server_weights              by what servers say of their load (`load_report`), with the schedule `static_stride`
    edf, fair_share             the schedule for unequal weights; bounded corrections to them
    aperture                    a part of a large fleet, the same for each server
    prequal                     by probes of what servers have in flight: the pool of answers `probe_pool`, what servers
                                say with answers to calls `reported`, who is to be asked `probing`
    ring_hash, maglev           by a hash: `hash_policy` of the call, `hashing` the functions, `consistent_hash` what
                                both share, `bounded_load` how they pass calls on, `ahead` their tables made in time
    affinity, cookies           sessions that stay at one endpoint; reading and writing their cookies
    shadow                      a second balancer beside the live one, which decides nothing
"""
