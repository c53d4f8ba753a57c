"""What no configuration may do, whoever wrote it: `oracle` says it, `harness` has atheris look for it."""
