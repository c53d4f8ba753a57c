"""The Gateway API's documents, where they are about a mesh: routes whose parent is a Service (GEP-1294, "GAMMA").

- `match`: what a rule matches, and which of two matches goes first.
- `filters`: what a rule does to requests on their way.
- `references`: what a backend refers to, and whether it may.
- `policies`: timeouts, retries and sessions.
- `http_route`: an HTTPRoute: its parents and its rules.
- `precedence`: the rules of all routes of a Service, in the order in which they are to be tried.
- `backend_tls`: BackendTLSPolicy.
- `dialect`: all of them together.

Source of all semantics: the API's types (``apis/v1/*_types.go`` of kubernetes-sigs/gateway-api) and, for meshes,
GEP-1294.
"""
