"""The callee's side: what a request being served brings along, and when it is no longer worth serving."""
