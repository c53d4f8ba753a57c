"""Consul's configuration entries: service-router, -splitter, -resolver and -defaults, and proxy-defaults."""
