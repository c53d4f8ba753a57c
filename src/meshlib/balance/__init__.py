"""Which endpoint of a cluster an attempt goes to. No I/O, no clock, no chance of its own.

    endpoint, cluster           an address that serves a service; what a call is balanced over
    balancer, table             what a balancer is; the balancers by name
    load, health, cells         how loaded an endpoint is; how well; where the numbers lie that each pick compares
    edf, static_stride          schedules for unequal weights
    fair_share                  bounded corrections to them
    load_report                 what a server says of its own load
    subsetting                  a few of many endpoints, for any balancer

Each other file is one balancer.
"""
