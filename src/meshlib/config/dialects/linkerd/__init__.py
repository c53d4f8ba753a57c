"""Linkerd's documents: ServiceProfile, its own HTTPRoute, and its annotations on Services and HTTPRoutes."""
