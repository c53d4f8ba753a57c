"""Real servers for tests: Consul, Envoy, nginx and Redis, fetched once and run on ports of their own.

`fetch` finds or downloads the programs, `process` runs one and makes sure that it ends, `consul` and `servers` know how
each is configured, `fixtures` hands them to tests.
"""
