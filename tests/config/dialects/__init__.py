"""Tests of `meshlib.config.dialects`."""
