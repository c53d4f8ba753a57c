"""What happens to a call: the core that decides. No I/O, no clock, no chance of its own.

    call                        the state machine: events in, actions out. The last of six layers, on
    timeouts                    the first: how long it may take
    placement                   the second: in which cluster it is made
    holdings                    the third: what it holds, and how it lets go
    facts, journal, record      what calls of one kind share, what one notes of itself, what is told of it
    actions, attempt            what a driver is asked to do; one try
    classify                    one idea of failure, for all that follow
    attempts                    the fourth: which attempts it makes
    injection, fault            the fifth: what is injected into it
    retry, retry_on, backoff    whether there is another attempt, which failures are named, and how long to wait
    budget                      who pays: by tokens, rate or concurrency, each in a module of its own
    breaker, limit              whether a cluster takes a call
    outlier                     whether an endpoint is to be left alone, by our rule; `outlier_sweep` by Envoy's, two of
                                which are in `success_rate`
    health_check                the same by asking it: what an answer says, and when to ask again

What each is set to is in `settings`.
"""
