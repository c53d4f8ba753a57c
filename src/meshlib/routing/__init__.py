"""Which route a request takes, and what that makes of it. No I/O, no clock, no chance of its own.

    route                       a route: what it matches, where it leads, and what happens on the way
    match, fields               whether a request matches; headers, as conditions read them
    regex, backtracking         expressions that no text can make slow; which of Python's own are so
    index, hosts                the first of many routes that matches; names of hosts, with wildcards
    normalize                   one form of paths that can be written in many
    split                       which of its backends, by weight
    actions                     all else that a route may do:
    rewrite                     other paths
    redirect, answer            sent elsewhere; answers that a route gives itself
    delegation                  routes that hand over to others
    override, override_settings a header that has one service replaced for one request, and which of them are believed

What a condition or an edit means, to the letter, and whose it is, stands in each.
"""
