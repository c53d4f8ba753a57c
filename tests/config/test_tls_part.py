"""Roots of TLS, as a file or as text."""

from __future__ import annotations

from typing import Any

import pytest
import trustme

import meshlib
from meshlib.config.compile import compile_config
from meshlib.config.load import load_mapping
from meshlib.errors import ConfigError
from meshlib.security.tls import client_context

PEM = trustme.CA().cert_pem.bytes().decode()


def _tls(given: dict[str, Any]) -> Any:
    settings = compile_config(load_mapping({"services": {"orders": {"tls": given}}}))
    return settings.services["orders"].clusters[None].tls


def test_roots_may_be_given_as_text() -> None:
    settings = _tls({"ca": PEM})
    assert (settings.ca, settings.ca_file) == (PEM, None)
    assert len(client_context(settings).get_ca_certs()) == 1
    assert PEM[40:60] not in repr(settings)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"ca": PEM, "ca_file": "ca.pem"}, "has a ca_file and a ca: one of them is expected"),
        ({"ca": PEM, "verify": False}, "has a ca and verify: false"),
        ({"ca": "ca.pem"}, "has no certificate in it"),
    ],
)
def test_what_makes_no_sense_is_refused(given: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        _tls(given)


def test_a_certificate_that_is_none_is_told_at_the_first_call() -> None:
    broken = _tls({"ca": "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"})
    with pytest.raises(meshlib.TLSFailed, match="the roots in the configuration cannot be used"):
        client_context(broken)
