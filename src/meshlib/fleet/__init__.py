"""What the processes of a fleet share: limits and breakers over Redis.

    shared    the gates that reach beyond a process, and the one connection to Redis that they ask
    errands   the thread that does for calls what takes time, while they wait no longer than they can afford

How these gates decide is in `meshlib.policy.fleet_gate` and `meshlib.policy.user_breaker`.
"""
