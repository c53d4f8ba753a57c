"""Encryption and identity of connections."""
