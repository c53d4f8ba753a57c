"""Connections and pools: how bytes move. `SyncEngine` and `AsyncEngine` are the wires of a mesh."""
