"""What happens to a call: the core that decides. No I/O, no clock, no chance of its own.

    call                        the state machine: events in, actions out. The last of four layers, on
    timeouts                    the first: how long it may take
    placement                   the second: in which cluster it is made
    holdings                    the third: what it holds, and how it lets go
    facts, journal, record      what calls of one kind share, what one notes of itself, what is told of it
    actions, attempt            what a driver is asked to do; one try
    classify                    one idea of failure, for all that follow
    retry, budget               whether there is another attempt, and who pays
    breaker, limit              whether a cluster takes a call
    outlier                     whether an endpoint is to be left alone

What each is set to is in `settings`.
"""
