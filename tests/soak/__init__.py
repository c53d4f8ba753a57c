"""Runs that are too long for the suite; `nox -s soak` and `nox -s fuzz` start them."""
