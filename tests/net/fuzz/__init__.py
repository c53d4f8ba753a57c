"""What no bytes of a peer may do to the parsers of HTTP/1.1: `oracle` says it, `harness` has atheris look for them."""
