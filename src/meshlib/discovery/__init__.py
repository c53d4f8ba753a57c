"""Where endpoints come from: sources, what is believed of them, and this process's own entry in a registry.

    source, build               what a source is; the table of them
    static, local, consul       the sources, with `local_files`, and `consul_http`, `consul_payload`, `consul_blocking`
    consul_chain, consul_names  what Consul says of routes; the names of its DNS
    locality                    where an endpoint runs, as each registry says it
    resolver                    which source's answer holds, and for how long: no I/O
    service_watch, watch        ask the sources of one service, and of all that are in use
    health_checks               asks the endpoints of services in use whether they are well
    load_probes                 asks endpoints how loaded they are
    registration, probe         this process's own entry, and its health check; with Consul by `consul_agent`
    entry, claim                its part in the entry of a port that several processes serve, and how they agree
    living                      the meshes of this process, for servers
    sidecar                     whether a proxy of another mesh stands beside it
    control                     where all this runs: a thread (`control_thread`), and an event loop once one is needed
                                (`control_loop`)
    threads                     threads that are threads, whatever gevent and forks do

A new source is one new file, and one line in the table.
"""
