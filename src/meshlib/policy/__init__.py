"""What happens to a call: the core that decides. No I/O, no clock, no chance of its own.

A call, in seven layers of one object, and what it is made of:

    timeouts                    the first: how long it may take
    placement                   the second: in which cluster it is made
    holdings                    the third: what it holds, and how it lets go
    attempts                    the fourth: which attempts it makes
    reply, routed               the fifth: what its route answers instead; what the route does to one request
    injection, fault            the sixth: what is injected into it
    call                        the last, the state machine: events in, actions out
    actions, attempt            what a driver is asked to do; one try
    facts, traits               what calls of one kind share; what is read of one request: `sticky` by which hash or
                                session it is bound to an endpoint, `keys` whose it is
    journal, record             what one notes of itself, what is told of it

The policies, in the order in which a call meets them:

    breaker, user_breaker       whether its cluster is open: by our circuit breaker, by one of the user's own
    gate, gates                 what else may refuse it there; which gates a cluster has, and in which order
    throttle_gate               by `throttle` (the SRE book's), `success_rate_throttle` (Envoy's) or `nack_throttle`
                                (Finagle's)
    limit                       calls in flight and in line; `priority_limit` and `bulkhead` divide it
    adaptive                    finds that limit, by `gradient`, `gradient2`, `vegas` or `aimd`; both it and throttles
                                learn from a `sample` of each attempt
    rate_limit, rate_limit_gate calls in a time, by `gcra` or `token_bucket`; `fleet_gate` for all processes together
    classify                    one idea of failure, for all that follow
    retry, retry_on, backoff    whether there is another attempt, which failures are named, and how long to wait
    hedge, percentile           when one starts beside another; how long attempts took of late
    budget                      who pays for both: `token_budget`, `rate_budget` or `concurrency_budget`
    outlier                     whether an endpoint is to be left alone, by our rule; `outlier_sweep` by Envoy's, two of
                                which are in `success_rate`, `accrual` by Finagle's and Linkerd's
    health_check                the same by asking it: what an answer says, and when to ask again
    mirror                      which calls are copied to another cluster, and how many at once
    shadow, comparison          policies that run beside and decide nothing, and what is counted of them:
                                `shadow_breaker`, `shadow_gate`, `shadow_outlier`

At the callee's side, `serving_queue` decides who is served, who waits and who is refused: `serving_lane` is fair among
callers, `codel` says how long one may wait.

`rolling` counts over a sliding window. What each is set to is in `settings`, `admission_settings` (the gates),
`retry_settings` and `serving_settings`.
"""
